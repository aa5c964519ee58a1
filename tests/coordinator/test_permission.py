"""A study waits until its sites have agreed and are free; what they said long ago is asked again."""

from collections.abc import Callable

import pytest

from fedsci.coordinator.permission import PENDING, SILENT, await_permission, await_turn
from fedsci.coordinator.turns import Claim, Turns
from fedsci.errors import ConnectionFailed, PolicyRefused, SiteFailed
from fedsci.transport.messages import Reply

GIVEN, WAITS = Reply(fields={"approval": "given"}), Reply(fields={"approval": "pending"})


def failed(site: str, code: str) -> SiteFailed:
    return SiteFailed(site, {"message": "no", "exit_code": 4, "code": code})


class Sites:
    """Stands for the link; every site says what ``says`` holds for it, or that it agrees."""

    def __init__(self) -> None:
        self.says: dict[str, Reply | SiteFailed] = {}
        self.asked: list[list[str]] = []

    def ask(self, requests):
        assert {request.action for request in requests.values()} == {"propose"}
        self.asked.append(sorted(requests))
        return {site: self.says.get(site, GIVEN) for site in requests}


class Waiter:
    """A wait whose pauses are a list of things that happen."""

    def __init__(self, plan, turns: Turns, number: int = 2) -> None:
        self.plan, self.turns = plan, turns
        self.link, self.told = Sites(), []
        self.claim = Claim(number=number, study="mine", sites=frozenset(plan.sites))
        self.happens: list[Callable[[], object]] = []

    def pause(self, seconds: float) -> None:
        if not self.happens:
            raise TimeoutError
        self.happens.pop(0)()

    def tell(self, waiting) -> None:
        if not self.told or self.told[-1] != dict(waiting):
            self.told.append(dict(waiting))

    def wait(self, patience_s: float = 60.0) -> None:
        rest = {"patience_s": patience_s, "tell": self.tell, "pause": self.pause}
        await_turn(self.link, self.plan, self.claim, self.turns, **rest)


@pytest.fixture
def status():
    return dict.fromkeys(("lab-1", "lab-2", "lab-3"), "online")


@pytest.fixture
def other():
    return Claim(number=1, study="other", sites=frozenset({"lab-2"}))


@pytest.fixture
def waiter(make_plan, status, monkeypatch):
    monkeypatch.setattr("fedsci.coordinator.turns._FRESH_S", 0.0)
    return Waiter(make_plan(sites=3), Turns(lambda: status))


def test_a_study_whose_sites_are_free_is_asked_about_once(waiter):
    waiter.wait()
    assert waiter.link.asked == [["lab-1", "lab-2", "lab-3"]]
    assert waiter.told == [{}]
    assert not waiter.turns.take(Claim(number=1, study="other", sites=frozenset({"lab-3"})))


def test_only_those_that_have_not_decided_are_asked_again(waiter):
    waiter.link.says = {"lab-1": WAITS}
    waiter.happens = [lambda: None, lambda: waiter.link.says.clear()]
    waiter.wait()
    assert waiter.link.asked[1:] == [["lab-1"], ["lab-1"]]
    assert waiter.told == [{}, {"lab-1": PENDING}, {}]


def test_a_study_that_waited_for_a_site_asks_again_and_waits_again_if_the_answer_is_another(waiter, other):
    waiter.turns.hold(other)

    def free():
        waiter.turns.give_back(other)
        waiter.link.says = {"lab-1": WAITS}  # its approval has expired meanwhile

    def looks():
        assert waiter.turns.take(Claim(number=9, study="third", sites=frozenset({"lab-3"})))  # it holds nothing
        waiter.turns.give_back(Claim(number=9, study="third", sites=frozenset({"lab-3"})))
        waiter.link.says.clear()

    waiter.happens = [free, looks]
    waiter.wait()
    busy = {"lab-2": "is in study other (run 1)"}
    assert waiter.told == [busy, {}, {"lab-1": PENDING}, {}]
    everybody = ["lab-1", "lab-2", "lab-3"]
    assert waiter.link.asked == [everybody, everybody, everybody, ["lab-1"]]


def test_a_site_that_refuses_meanwhile_ends_the_wait(waiter, other):
    waiter.turns.hold(other)

    def free():
        waiter.turns.give_back(other)
        waiter.link.says = {"lab-3": failed("lab-3", "policy")}

    waiter.happens = [free]
    with pytest.raises(SiteFailed):
        waiter.wait()


def test_a_study_whose_site_goes_away_keeps_nothing_from_others(waiter, other, status):
    waiter.turns.hold(other)
    third = Claim(number=3, study="third", sites=frozenset({"lab-3"}))
    assert not waiter.turns.take(waiter.claim)
    assert not waiter.turns.take(third)  # kept for the older one
    waiter.turns.give_back(third)

    def goes():
        status["lab-1"] = "offline"
        waiter.link.says = {"lab-1": failed("lab-1", "silent")}

    def comes():
        assert waiter.turns.take(third)
        waiter.turns.give_back(third)
        waiter.turns.give_back(other)
        status["lab-1"] = "online"
        waiter.link.says.clear()

    waiter.happens = [goes, comes]
    waiter.wait()
    assert {"lab-1": "is not connected", "lab-2": "is in study other (run 1)"} in waiter.told


def test_patience_is_for_sites_that_do_not_decide_and_not_for_busy_ones(waiter, other):
    waiter.turns.hold(other)
    waiter.link.says = {"lab-2": failed("lab-2", "silent")}  # it computes for the other study

    def free():
        waiter.turns.give_back(other)
        waiter.link.says.clear()

    waiter.happens = [lambda: None, lambda: None, free]
    waiter.wait(patience_s=0.0)
    assert waiter.told[0] == {"lab-2": "is in study other (run 1)"}


@pytest.mark.parametrize(
    ("says", "error", "match"),
    [
        (WAITS, PolicyRefused, "lab-2 did not decide within 0 s"),
        (failed("lab-2", "silent"), ConnectionFailed, "lab-2 did not answer within 0 s"),
        (failed("lab-2", "policy"), SiteFailed, "lab-2"),
    ],
)
def test_patience_ends(waiter, says, error, match):
    waiter.link.says = {"lab-2": says}
    with pytest.raises(error, match=match):
        waiter.wait(patience_s=0.0)


def test_asking_becomes_rarer_but_never_rarer_than_every_fifteen_seconds(waiter):
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 20:
            waiter.link.says.clear()

    waiter.link.says = {"lab-2": failed("lab-2", "silent")}
    await_permission(waiter.link, waiter.plan, patience_s=60, tell=waiter.tell, pause=pause)
    assert pauses[0] == 2.0
    assert pauses == sorted(pauses)
    assert pauses[-1] == 15.0
    assert waiter.told == [{}, {"lab-2": SILENT}, {}]
