"""Who is in which buffer: enough that have finished, and of any model several or none."""

import numpy as np
import pytest

from fedsci.coordinator.buffers import NOT_IN_BUFFER, Buffers
from fedsci.errors import SiteFailed
from fedsci.names import digest
from fedsci.transport.messages import Reply

NONE = {"mechanism": "none", "epsilon": None}


def model(number: int) -> np.ndarray:
    return np.array([number], np.float32)


class World:
    """A link and its clock: sites take what ``takes`` says, some are away in some rounds."""

    def __init__(self, takes, away=()) -> None:
        self.takes, self.away = takes, set(away)
        self.now, self.done_at, self.begun = 0.0, {}, []

    def ask(self, requests):
        replies = {}
        for site, request in requests.items():
            version = request.fields["version"]
            if (site, version + 1) in self.away:
                replies[site] = SiteFailed(site, {"message": "not connected", "exit_code": 5, "code": "transport"})
                continue
            assert np.array_equal(request.vector, model(version))
            self.begun.append((site, version))
            self.done_at[site] = self.now + self.takes[site]
            replies[site] = Reply()
        return replies

    def finished(self, sites, *, count, round_number):
        done = {site: self.done_at[site] for site in sites if (site, round_number) not in self.away}
        self.now = max([self.now, *sorted(done.values())[:count]])
        return tuple(sorted(site for site in done if done[site] <= self.now))

    def records_per_s(self, site):
        return None

    def line_s(self, site):
        return 0.0


@pytest.fixture
def schedule(make_plan):
    """Buffers over sites whose trainings take these seconds; returns what opens the next."""

    def make(*takes: float, buffer: int = 0, together: int = 2, survivors: int = 3, away=()):
        options = {"buffer": buffer, "together": together}
        plan = make_plan(
            sites=len(takes), strategy="fedbuff", recipe={"name": "fedbuff", "options": options}, privacy=NONE,
            secure_aggregation={"min_survivors": survivors}, training={"rounds": 50},
        )  # fmt: skip
        records = {site: [10, 5] for site in plan.sites}
        world = World(dict(zip(plan.sites, takes, strict=True)), away)
        buffers = Buffers(
            link=world, clock=world, plan=plan, strategy=plan.strategy, run="a" * 32, records=records
        )  # fmt: skip
        return world, lambda number, members=plan.sites: buffers.open(number, model(number - 1), members)

    return make


def trained(opening) -> dict[int, int]:
    return {int(site.removeprefix("lab-")): version for site, version in opening.fields["trained"].items()}


def test_a_buffer_is_full_when_enough_have_finished_and_slow_sites_come_in_later(schedule):
    world, opened = schedule(1, 1, 1, 1, 3.5, 3.5)
    first = opened(1)
    assert (trained(first), world.now) == ({1: 0, 2: 0, 3: 0, 4: 0}, 1)
    assert first.fields["models"] == {"0": digest(model(0).tobytes())}
    assert first.absent == {f"lab-{n}": f"lab-{n}: {NOT_IN_BUFFER}" for n in (5, 6)}
    assert [set(trained(opened(number)).values()) for number in (2, 3)] == [{1}, {2}]
    late = opened(4)
    assert (trained(late), world.now) == ({1: 3, 2: 3, 3: 3, 4: 3, 5: 0, 6: 0}, 4)
    assert late.fields["models"] == {str(v): digest(model(v).tobytes()) for v in (0, 3)}
    assert late.absent == {}
    assert world.begun[-4:] == [(f"lab-{n}", 3) for n in (1, 2, 3, 4)]
    opened(5)
    assert [site for site, version in world.begun if version == 4] == [f"lab-{n}" for n in range(1, 7)]


def test_a_larger_buffer_waits_for_more(schedule):
    world, opened = schedule(1, 2, 3, 4, 5, 6, buffer=4)
    assert set(trained(opened(1))) == {1, 2, 3, 4}
    assert world.now == 4


def test_of_any_model_there_are_several_or_none(schedule):
    world, opened = schedule(1, 1, 1, 1, 2.5, 4.5)
    sizes = []
    for number in range(1, 20):
        versions = list(trained(opened(number)).values())
        sizes += [versions.count(version) for version in set(versions)]
    assert min(sizes) == 2
    assert {site for site, _ in world.begun} == {f"lab-{n}" for n in range(1, 7)}


def test_the_last_of_a_model_is_kept_company(schedule):
    """Were all four others summed, lab-5 would be alone with its model, and never in a sum."""
    world, opened = schedule(1, 1, 1, 1, 9)
    first = opened(1)
    assert (set(trained(first)), world.now) == ({1, 2, 3}, 1)
    for number in range(2, 30):
        opening = opened(number)
        if "lab-5" in opening.fields["trained"]:
            break
    assert trained(opening)[5] == trained(opening)[4] == 0


def test_where_keeping_company_would_leave_too_few_the_slow_site_begins_anew(schedule):
    _, opened = schedule(1, 1, 1, 1, away=[("lab-4", 1), ("lab-4", 3)], survivors=3)
    assert set(trained(opened(1))) == {1, 2, 3}
    assert trained(opened(2)) == {1: 1, 2: 1, 3: 1, 4: 1}  # it was away when the others began
    third = opened(3)
    assert set(trained(third)) == {1, 2, 3}
    assert third.absent == {"lab-4": "lab-4: not connected"}


def test_a_site_whose_company_is_lost_begins_anew(schedule):
    _, opened = schedule(1, 1, 1, 2, 2, away=[("lab-5", 2), ("lab-5", 3)], together=2)
    assert set(trained(opened(1))) == {1, 2, 3}  # 4 and 5 train on
    assert set(trained(opened(2))) == {1, 2, 3}
    assert set(trained(opened(3))) == {1, 2, 3}  # 4 waits for 5, which is away
    members = ("lab-1", "lab-2", "lab-3", "lab-4")  # 5 is in no setup for a while
    assert trained(opened(4, members)) in ({1: 3, 2: 3, 3: 3}, {1: 3, 2: 3, 3: 3, 4: 3})
    assert trained(opened(5, members))[4] >= 3


def test_rather_than_nobody_those_that_wait_for_company_begin_anew(schedule):
    away = [(lab, 2) for lab in ("lab-1", "lab-2", "lab-7")]
    world, opened = schedule(1, 1, 1, 1, 1, 1, 1, 3, 3, survivors=6, together=3, buffer=6, away=away)
    assert trained(opened(1)) == dict.fromkeys((1, 2, 3, 4, 5, 6), 0)  # 7 keeps 8 and 9 company
    # four begin on model 1, and 8 and 9 finish without 7: only with them there are six
    assert trained(opened(2)) == dict.fromkeys((3, 4, 5, 6, 8, 9), 1)
    assert (("lab-8", 1) in world.begun, world.now) == (True, 3 + 3)


def test_a_model_of_which_too_few_answered_is_left_out_of_the_sum(schedule):
    _, opened = schedule(1, 1, 1, 1, 3.5, 3.5)
    for number in (1, 2, 3, 4):
        opening = opened(number)
    everybody = [f"lab-{n}" for n in range(1, 7)]
    assert opening.broken(everybody) == {}
    broken = opening.broken(everybody[:5])
    assert set(broken) == {"lab-5"}
    assert "too few are left that trained on its model, the one after round 0" in broken["lab-5"]
