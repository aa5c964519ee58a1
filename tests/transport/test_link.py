"""The coordinator's link over the in-process grid: who answered, who did not, and what it cost."""

import threading

import numpy as np
import pytest

from fedsci.errors import BudgetRefused, ConnectionFailed, SiteFailed
from fedsci.transport.in_memory import LocalGrid
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Reply, Request
from fedsci.transport.site_app import build_site_app

PRIVATE = "patient-4711"


@pytest.fixture
def connect():
    """A link to sites answering with the given handlers, called lab-1, lab-2, ... unless they say otherwise."""
    grids = []

    def make(*handlers, timeout_s: float = 10.0, serialise: bool = False, names=None) -> SiteLink:
        def named(number):
            def handle(request: Request) -> Reply:
                if request.action == "hello":
                    return Reply(fields={"site": names[number] if names else f"lab-{number + 1}"})
                return handlers[number](request)

            return handle

        grid = LocalGrid(build_site_app(named), len(handlers), serialise=serialise)
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
