"""Whom a run left out and named is what its own log says: ``fedsci verify`` does the search over."""

from dataclasses import replace

import pytest

from fedsci.coordinator.alarms import Alarms
from fedsci.coordinator.blame import LEFT_OUT, NAMED
from fedsci.coordinator.norm_check import ABOVE, Norm, NormCheck
from fedsci.coordinator.progress import Progress
from fedsci.errors import VerificationFailed
from fedsci.reporting.verify_blame import check_blame

LOUD = Norm(value=9.0, bound=None, alarm=ABOVE, warning=None, level=9.0)
QUIET = replace(LOUD, alarm=None, level=1.0)


class Search:
    """A search as a coordinator does it, without a study: ``restarts`` and ``short`` are rounds without a sum."""

    def __init__(self, plan, liars, rounds, *, restarts=(), short=()):
        check = NormCheck(plan=plan, cost=None, parameters=0, weights={}, records={})
        self.plan, self.rounds, self.sums, self.norms = plan, rounds, {}, {}
        alarms = Alarms(plan=plan, progress=Progress(), check=check)
        for number in range(1, rounds + 1):
            out = alarms.left_out()
            if number in restarts:
                continue
            if number in short and alarms.tried(out):
                alarms.fell_short()
                continue
            there = [site for site in plan.sites if site not in out]
            self.norms[number] = LOUD if liars.intersection(there) else QUIET
            self.sums[number] = {"round": number, "survivors": there, "dropped": dict(out)}
            alarms.heed(number, there, self.norms[number], out)
        blame = alarms.progress.blame
        self.summary = {"alarms": alarms.progress.alarms, "blame": None}
        if blame is not None:
            verdict = "found" if blame.named and not blame.alarmed else "not found"
            who = {"verdict": verdict, "suspects": list(blame.suspects), "alone": list(blame.alone)}
            self.summary["blame"] = who | blame.to_json()

    def check(self, **changes):
        summary = self.summary | changes
        check_blame(self.plan, self.sums, self.norms, rounds=self.rounds, summary=summary)


@pytest.fixture
def search(make_plan):
    return lambda liars, rounds=32, labs=17, **how: Search(make_plan(sites=labs), {*liars}, rounds, **how)


def refused(made, field, **changes):
    with pytest.raises(VerificationFailed) as error:
        made.check(**changes)
    assert error.value.field == field, error.value
    return error.value


@pytest.mark.parametrize("liars", [[], ["lab-2"], ["lab-2", "lab-7"]])
def test_an_honest_search_is_what_its_sums_say(search, liars):
    made = search(liars)
    assert liars == ([] if made.summary["blame"] is None else made.summary["blame"]["named"])
    made.check()


@pytest.mark.parametrize("restarts", [(1,), (3,), (2, 3, 5)])
@pytest.mark.parametrize("short", [(), (4,), (4, 6)])
def test_rounds_without_a_sum_are_taken_for_restarts_or_for_short_of_labs_as_it_fits(search, restarts, short):
    search(["lab-2"], restarts=restarts, short=short).check()


def test_a_lab_that_no_alarm_speaks_of_is_not_left_out(search):
    made = search([])
    for body in made.sums.values():
        body |= {"survivors": [f"lab-{n}" for n in range(1, 17)], "dropped": {"lab-17": f"lab-17: {NAMED}"}}
    assert "round 1 left out lab-17" in refused(made, "dropped").message
    for body in made.sums.values():
        body["dropped"] = {"lab-17": f"lab-17: {LEFT_OUT}"}
    assert refused(made, "dropped").file.startswith("audit/statements/")
    for body in made.sums.values():
        body["dropped"] = {"lab-17": "lab-17: was late"}
    made.check()


def test_another_than_the_search_needs_is_not_left_out(search):
    made = search(["lab-2"])
    body = next(one for one in made.sums.values() if one["dropped"])
    site = next(one for one in made.plan.sites if one not in body["dropped"])
    honest = dict(body["dropped"])
    body["dropped"] = {site: f"{site}: {LEFT_OUT}", **dict(list(honest.items())[1:])}
    refused(made, "dropped")
    body["dropped"] = {one: f"{one}: was late" for one in honest}
    refused(made, "dropped")
    body["dropped"] = {one: f"{one}: {NAMED}" for one in honest}
    assert NAMED in refused(made, "dropped").message


def test_who_was_named_is_left_out_until_the_end(search):
    made = search(["lab-2"])
    last = made.sums[32]
    assert last["dropped"] == {"lab-2": f"lab-2: {NAMED}"}
    last |= {"survivors": list(made.plan.sites), "dropped": {}}
    refused(made, "dropped")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("named", ["lab-4"]),
        ("named", []),
        ("verdict", "not found"),
        ("suspects", ["lab-4"]),
        ("alone", ["lab-4"]),
        ("rounds", []),
        ("spare", 3),
    ],
)
def test_the_outcome_is_that_of_the_search(search, key, value):
    made = search(["lab-2"])
    refused(made, f"blame.{key}", blame=made.summary["blame"] | {key: value})


def test_an_outcome_is_not_left_out_nor_made_up(search):
    made = search(["lab-2"])
    refused(made, "blame.named", blame=None)
    refused(search([]), "blame", blame=made.summary["blame"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("norm", 1e9),
        ("bound", 1e9),
        ("least", 1.0),
        ("kind", "below-noise"),
        ("level", "warning"),
        ("sites", ["lab-4"]),
    ],
)
def test_alarms_are_those_of_the_logged_sums(search, key, value):
    made = search(["lab-2"])
    first, *others = made.summary["alarms"]
    refused(made, f"alarms: round 1: {key}", alarms=[first | {key: value}, *others])


def test_alarms_and_warnings_are_not_left_out_nor_made_up(search):
    made = search(["lab-2"])
    first, *others = made.summary["alarms"]
    refused(made, "alarms", alarms=[])
    refused(made, "alarms", alarms=others)
    refused(made, "alarms", alarms=[first, first, *others])
    warning = first | {"round": 32, "kind": "unlike-earlier", "level": "warning"}
    refused(made, "alarms", alarms=[first, *others, warning])


def test_a_study_does_not_go_on_where_nobody_can_be_found(search):
    """Two liars where one lab may be left out: the study ends, and no round comes after it."""
    made = search([], labs=4)
    made.norms = dict.fromkeys(made.norms, LOUD)
    with pytest.raises(VerificationFailed):
        made.check()
