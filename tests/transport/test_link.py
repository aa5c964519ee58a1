"""The coordinator's link over the in-process grid: who answered, who did not, and what it cost."""

import threading
import time

import numpy as np
import pytest
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from fedsci.errors import BudgetRefused, ConnectionFailed, SiteFailed
from fedsci.transport.codec import encode
from fedsci.transport.in_memory import LocalGrid
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import BUSY, Reply, Request
from fedsci.transport.site_app import build_site_app

PRIVATE = "patient-4711"


@pytest.fixture
def connect():
    """A link to sites answering with the given handlers, called lab-1, lab-2, ... unless they say otherwise."""
    grids = []

    def make(
        *handlers, timeout_s: float = 10.0, serialise: bool = False, names=None, keys=None, workers: int | None = None
    ) -> SiteLink:
        def named(number):
            def handle(request: Request) -> Reply:
                if request.action == "hello":
                    said = {"site": names[number] if names else f"lab-{number + 1}"}
                    return Reply(fields=said | ({"key": keys[number]} if keys else {}))
                return handlers[number](request)

            return handle

        grid = LocalGrid(build_site_app(named), len(handlers), workers=workers or len(handlers), serialise=serialise)
        grids.append(grid)
        return SiteLink(grid=grid, timeout_s=timeout_s)

    yield make
    for grid in grids:
        grid.close()


def echo(request: Request) -> Reply:
    return Reply(fields=request.fields, vector=request.vector)


def fail(error: BaseException):
    def handle(request: Request) -> Reply:
        raise error

    return handle


def ask(link: SiteLink, *sites: str):
    link.discover(sites)
    request = Request(action="train", fields={"round": 1}, vector=np.arange(3, dtype=np.float32))
    return link.ask(dict.fromkeys(sites, request))


@pytest.mark.parametrize("serialise", [False, True])
def test_every_site_answers_in_the_order_of_names(connect, serialise):
    link = connect(echo, echo, echo, serialise=serialise)
    replies = ask(link, "lab-3", "lab-1", "lab-2")
    assert list(replies) == ["lab-1", "lab-2", "lab-3"]
    assert all(reply.vector.tolist() == [0, 1, 2] for reply in replies.values())
    assert link.traffic.down >= 3 * 12
    assert link.traffic.up >= 3 * 12
    assert link.seconds_codec > 0


@pytest.mark.parametrize("serialise", [False, True])
@pytest.mark.parametrize("error", [BudgetRefused(PRIVATE), ValueError(PRIVATE), KeyError(PRIVATE)])
def test_an_errors_text_never_leaves_the_site(connect, error, serialise):
    replies = ask(connect(echo, fail(error), serialise=serialise), "lab-1", "lab-2")
    failure = replies["lab-2"]
    assert isinstance(failure, SiteFailed)
    assert PRIVATE not in str(vars(failure))
    assert failure.exit_code == (3 if isinstance(error, BudgetRefused) else 1)
    assert isinstance(replies["lab-1"], Reply)


@pytest.mark.parametrize("value", [float("nan"), {PRIVATE}, PRIVATE.encode(), float("inf")])
def test_a_reply_that_cannot_be_sent_is_an_error_without_its_text(connect, value):
    replies = ask(connect(lambda _: Reply(fields={"x": value})), "lab-1")
    assert replies["lab-1"].site_code == "internal"
    assert PRIVATE not in str(vars(replies["lab-1"]))


def test_silence_is_a_failure_that_says_how_long(connect):
    released = threading.Event()

    def wait(request: Request) -> Reply:
        released.wait(10)
        return Reply()

    link = connect(echo, wait, timeout_s=0.3)
    try:
        replies = ask(link, "lab-1", "lab-2")
    finally:
        released.set()
    assert isinstance(replies["lab-1"], Reply)
    assert replies["lab-2"].site_code == "silent"
    assert "no answer within 0.3 s" in replies["lab-2"].message


def test_a_site_that_is_not_there_is_named(connect):
    with pytest.raises(ConnectionFailed, match="no answer from lab-2"):
        connect(echo).discover(["lab-1", "lab-2"], wait_s=0.1)


def test_two_nodes_of_one_name_are_refused(connect):
    with pytest.raises(ConnectionFailed, match="two nodes say that they are lab-1"):
        connect(echo, echo, names=["lab-1", "lab-1"]).discover(["lab-1"], wait_s=0.1)


@pytest.mark.parametrize("name", ["../etc", "", "Lab", None, {"a": 1}])
def test_a_node_of_an_unusable_name_is_nobody(connect, name):
    link = connect(echo, echo, names=["lab-1", name])
    link.discover(["lab-1"], wait_s=5)
    assert isinstance(link.ask({"lab-1": Request(action="train")})["lab-1"], Reply)


@pytest.mark.parametrize("key", ["no key", "0", None, 7.5, "é", ["00"]])
def test_a_node_of_an_unusable_key_is_nobody(connect, key):
    link = connect(echo, echo, keys=["00", key])
    assert link.discover(["lab-1"], wait_s=5) == {"lab-1": b"\0"}
    assert link.discovered == ("lab-1",)


def slow_once(seconds: float, began: list[float]):
    """Answers late to the first request and at once to the others."""

    def handle(request: Request) -> Reply:
        began.append(time.monotonic())
        if len(began) == 1:
            time.sleep(seconds)
        return Reply(fields=request.fields)

    return handle


def round_of(link: SiteLink, number: int, action: str = "train"):
    return link.ask(dict.fromkeys(link.discovered, Request(action=action, fields={"round": number})))


def test_a_round_waits_as_long_as_its_deadline_and_other_exchanges_longer(connect):
    link = connect(echo, slow_once(1.0, []), timeout_s=20)
    link.discover(["lab-1", "lab-2"])
    link.round_deadline_s = 0.2
    replies = round_of(link, 1)
    assert isinstance(replies["lab-1"], Reply)
    assert str(replies["lab-2"]) == "lab-2: late: no answer within 0.2 s"
    link = connect(echo, slow_once(0.5, []), timeout_s=20)
    link.discover(["lab-1", "lab-2"])
    link.round_deadline_s = 0.2
    assert all(isinstance(reply, Reply) for reply in round_of(link, 1, action="alone").values())


@pytest.mark.parametrize("action", ["train", "evaluate", "unmask", "votes"])
def test_the_deadline_holds_in_every_exchange_of_a_round(connect, action):
    link = connect(slow_once(1.0, []), timeout_s=20)
    link.discover(["lab-1"])
    link.round_deadline_s = 0.1
    assert round_of(link, 1, action)["lab-1"].site_code == "silent"


def test_no_deadline_is_longer_than_the_link_waits(connect):
    link = connect(slow_once(1.0, []), timeout_s=0.1)
    link.discover(["lab-1"])
    link.round_deadline_s = 3600.0
    assert "within 0.1 s" in str(round_of(link, 1)["lab-1"])


@pytest.mark.slow
@pytest.mark.parametrize("serialise", [False, True])
def test_a_site_that_is_busy_is_asked_again_until_the_time_is_over(connect, serialise):
    asked = []

    def busy(request: Request) -> Reply:
        asked.append(request.fields["round"])
        return Reply(error=BUSY) if len(asked) < 3 else Reply(vector=request.vector)

    link = connect(echo, busy, serialise=serialise)
    replies = ask(link, "lab-1", "lab-2")
    assert asked == [1, 1, 1]
    assert replies["lab-2"].vector.tolist() == [0, 1, 2]
    link = connect(lambda _: Reply(error=BUSY), timeout_s=0.5)
    assert ask(link, "lab-1")["lab-1"].site_code == "silent"


def test_what_waited_until_its_time_was_over_is_not_begun(connect):
    """One processor for two labs: the first holds it until the second's request is out of date."""
    began: list[float] = []
    second: list[int] = []

    def count(request: Request) -> Reply:
        second.append(request.fields["round"])
        return Reply()

    link = connect(slow_once(1.0, began), count, workers=1)
    link.discover(["lab-1", "lab-2"])
    link.round_deadline_s = 0.2
    assert {str(reply).partition(": ")[2] for reply in round_of(link, 1).values()} == {"late: no answer within 0.2 s"}
    link.round_deadline_s = None
    assert all(isinstance(reply, Reply) for reply in round_of(link, 2).values())
    assert second == [2]


@pytest.mark.parametrize(
    ("code", "left_s", "said"),
    [
        (ErrorCode.NODE_UNAVAILABLE, 50, "not connected"),
        (ErrorCode.MESSAGE_UNAVAILABLE, 0.1, None),
        (ErrorCode.REPLY_MESSAGE_UNAVAILABLE, -0.1, None),
        (ErrorCode.MESSAGE_UNAVAILABLE, 50, "the site's process failed (Flower error 3)"),
        (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, 0.1, "the site's process failed (Flower error 2)"),
    ],
)
def test_what_superlink_says_of_a_missing_reply_is_said_in_words(connect, code, left_s, said):
    link = connect(echo)
    link.discover(["lab-1"])
    reply = Message(Error(code, PRIVATE), reply_to=Message(encode(Request(action="train")), 2, "train.contribution"))
    read = link._decode(reply, left_s=left_s)
    assert (read and str(read)) == said
