"""Which studies run beside each other: never two on one site, and none waits for ever."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.coordinator.turns import Claim, Turns, may_start
from fedsci.errors import ConnectionFailed

SITES = [f"lab-{number}" for number in range(1, 7)]
some_sites = st.frozensets(st.sampled_from(SITES), min_size=1)


def claim(number: int, *sites: str) -> Claim:
    return Claim(number=number, study=f"study-{number}", sites=frozenset(sites))


claims = st.lists(some_sites, max_size=8).map(lambda sets: [claim(n, *sites) for n, sites in enumerate(sets, start=1)])


def running_ones(studies: list[Claim]) -> list[Claim]:
    """As many as may run together."""
    taken: set[str] = set()
    chosen = []
    for study in studies:
        if taken.isdisjoint(study.sites):
            chosen.append(study)
            taken |= study.sites
    return chosen


@given(claims, st.data())
def test_no_site_is_in_two_running_studies(studies, data):
    running = running_ones(studies)
    ready = data.draw(st.permutations([study for study in studies if study not in running]))
    at_work = [site for study in [*running, *may_start(running, ready)] for site in study.sites]
    assert len(at_work) == len(set(at_work))


@given(claims, st.data())
def test_nobody_waits_who_need_not(studies, data):
    running = running_ones(data.draw(st.permutations(studies)))
    ready = [study for study in studies if study not in running]
    started = may_start(running, ready)
    taken = frozenset().union(*(study.sites for study in [*running, *started]))
    waiting = [study for study in ready if study not in started]
    for study in waiting:
        assert study.sites & (taken | waiting[0].sites)
    if waiting:  # the oldest waits for those that run and for older ones, never for a younger one
        older = [study for study in started if study.number < waiting[0].number]
        assert waiting[0].sites & frozenset().union(*(study.sites for study in [*running, *older]))
        assert all(waiting[0].sites.isdisjoint(study.sites) for study in started if study not in older)


@given(st.data())
def test_a_large_study_starts_however_many_small_ones_come_after_it(data):
    large = claim(3, *SITES)
    running, ready, number = [claim(1, *SITES[:3]), claim(2, *SITES[3:])], [large], 3
    ends = 0
    while large not in running:
        for sites in data.draw(st.lists(some_sites, max_size=3)):
            number += 1
            ready.append(claim(number, *sites))
        for study in may_start(running, ready):
            ready.remove(study)
            running.append(study)
        if large not in running:
            running.remove(data.draw(st.sampled_from(running)))
            ends += 1
        assert ends <= 2  # those that ran when it came, and no other


def test_first_come_first_served_would_be_starvation_without_the_kept_sites():
    large, small = claim(2, "lab-1", "lab-2"), claim(3, "lab-2")
    assert may_start([claim(1, "lab-1")], [small, large]) == []
    assert may_start([claim(1, "lab-1")], [small]) == [small]  # what would happen again and again
    assert may_start([], [small, large]) == [large]
    assert may_start([claim(1, "lab-1")], [large, claim(4, "lab-3")]) == [claim(4, "lab-3")]


@pytest.fixture
def status():
    return dict.fromkeys(SITES, "online")


@pytest.fixture
def turns(status):
    return Turns(lambda: dict(status))


def test_sites_are_given_back_to_the_oldest_that_waits(turns):
    first, second, third = claim(1, "lab-1", "lab-2"), claim(2, "lab-2", "lab-3"), claim(3, "lab-3")
    assert turns.take(first)
    assert not turns.take(second)
    assert turns.busy(second) == {"lab-2": "is in study study-1 (run 1)"}
    assert not turns.take(third)
    assert turns.busy(third) == {"lab-3": "is kept for study study-2 (run 2)"}
    turns.give_back(second)  # one of its sites went away: it keeps nothing from others
    assert turns.take(third)
    assert not turns.take(second)
    turns.give_back(first)
    turns.give_back(third)
    assert turns.take(second)
    assert turns.take(second)
    assert turns.busy(second) == {}


def test_a_study_that_is_taken_up_again_has_its_sites_before_all_others(turns):
    turns.hold(claim(5, "lab-1"))
    assert not turns.take(claim(1, "lab-1"))
    assert turns.busy(claim(1, "lab-1")) == {"lab-1": "is in study study-5 (run 5)"}


def test_many_threads_never_share_a_site(turns):
    at_work: list[str] = []
    lock, faults = threading.Lock(), []

    def study(mine: Claim) -> None:
        while not turns.take(mine):
            pass
        with lock:
            faults.extend(mine.sites & set(at_work))
            at_work.extend(mine.sites)
        with lock:
            for site in mine.sites:
                at_work.remove(site)
        turns.give_back(mine)

    studies = [claim(number, *SITES[number % 3 : number % 3 + 3]) for number in range(1, 25)]
    threads = [threading.Thread(target=study, args=(mine,)) for mine in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_who_is_connected_is_looked_up_once_a_second_and_remembered_while_superlink_is_out(status, monkeypatch):
    looks, now = [], [100.0]

    def look():
        looks.append(now[0])
        if now[0] > 105:
            raise ConnectionFailed("SuperLink does not answer")
        return dict(status)

    monkeypatch.setattr("fedsci.coordinator.turns.time.monotonic", lambda: now[0])
    turns = Turns(look)
    mine = claim(1, "lab-1", "lab-9")
    for _ in range(5):
        assert turns.away(mine) == {"lab-9": "is not connected"}
    assert looks == [100.0]
    status["lab-1"] = "offline"
    now[0] = 102.0
    assert list(turns.away(mine)) == ["lab-1", "lab-9"]
    now[0] = 110.0
    assert list(turns.away(mine)) == ["lab-1", "lab-9"]
