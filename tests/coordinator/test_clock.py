"""Steps by speed, and plans that need to know how long sites take."""

import pytest

from fedsci.coordinator.clock import Clock, refuse_without_clock, require_clock, steps_by_speed
from fedsci.errors import InputError
from fedsci.transport.link import SiteLink

NONE = {"mechanism": "none", "epsilon": None}


class Speeds:
    """A clock that knows nothing but speeds."""

    def __init__(self, lines=None, **speeds) -> None:
        self.speeds = {name.replace("_", "-"): speed for name, speed in speeds.items()}
        self.lines = lines or {}

    def line_s(self, site):
        return self.lines.get(site, 0.0)

    def records_per_s(self, site):
        return self.speeds[site]

    def finished(self, sites, *, count, round_number):
        pytest.fail("steps by speed wait for everybody: nobody asks who has finished")


@pytest.fixture
def plan(make_plan):
    """Three sites; as many steps as a site has batches of 10, times two."""
    training = {"pace": "by_speed", "local_epochs": 2, "batch_size": 10}
    return make_plan(strategy="fednova", training=training, privacy=NONE)


def records(*counts: int):
    return {f"lab-{number}": [count, 10] for number, count in enumerate(counts, start=1)}


def test_all_compute_for_as_long_as_the_first_to_finish_takes_for_all_of_its_steps(plan):
    # 20 steps in 2 s; in that time the others take 10 and 3
    clock = Speeds(lab_1=100, lab_2=50, lab_3=15)
    assert isinstance(clock, Clock)
    assert steps_by_speed(plan, records(100, 100, 100), clock) == {"lab-1": 20, "lab-2": 10, "lab-3": 3}


def test_nobody_takes_less_than_one_step_or_more_than_all_of_its_own(plan):
    # lab-3 takes 1 s for a step, and would take 20 for all; the others have the time for 10 and 5, and lab-2 has but 4
    clock = Speeds(lab_1=100, lab_2=50, lab_3=10)
    assert steps_by_speed(plan, records(100, 20, 100), clock) == {"lab-1": 10, "lab-2": 4, "lab-3": 1}


def test_small_sites_have_small_steps(plan):
    # lab-3's only batch is of 4 records: both of its steps are done in 0.4 s
    clock = Speeds(lab_1=100, lab_2=50, lab_3=20)
    assert steps_by_speed(plan, records(100, 100, 4), clock) == {"lab-1": 4, "lab-2": 2, "lab-3": 2}


def test_a_slow_line_gives_the_others_time_to_compute(plan):
    # lab-1 has taken all of its 20 steps after 2 s; until then lab-2 has 1.5 s to compute, and lab-3 has 1 s
    clock = Speeds({"lab-2": 0.5, "lab-3": 1.0}, lab_1=100, lab_2=50, lab_3=100)
    assert steps_by_speed(plan, records(100, 100, 100), clock) == {"lab-1": 20, "lab-2": 7, "lab-3": 10}
    # now lab-1 has only 8, and lab-3 with one step, after 1.1 s, is the last
    assert steps_by_speed(plan, records(40, 100, 100), clock) == {"lab-1": 8, "lab-2": 3, "lab-3": 1}


def test_a_site_whose_computing_takes_no_time_sets_no_pace(plan):
    clock = Speeds(lab_1=None, lab_2=100, lab_3=50)
    assert steps_by_speed(plan, records(100, 100, 100), clock) == {"lab-1": 20, "lab-2": 20, "lab-3": 10}
    assert set(steps_by_speed(plan, records(100, 100, 100), Speeds(lab_1=None, lab_2=None, lab_3=None)).values()) == {
        20
    }


def test_where_nobody_keeps_time_such_plans_are_refused_before_any_site_is_asked(plan, make_plan):
    link = SiteLink(grid=None)
    buffers = make_plan(strategy="fedbuff", privacy=NONE)
    for needy, words in ((plan, "training.pace: by_speed gives each site"), (buffers, "fedbuff sums whoever")):
        with pytest.raises(InputError, match=words) as refused:
            require_clock(link, needy)
        assert "--weather" in refused.value.hint
        with pytest.raises(InputError, match="nothing here knows how long"):
            refuse_without_clock(needy)
    require_clock(link, make_plan())
