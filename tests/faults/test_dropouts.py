"""Seventeen masked labs: five may crash in the middle of a round, a sixth ends the run with nothing revealed."""

import pytest

from fedsci.site.round import Contributor
from fedsci.site.service import SiteService

ROUND = 2


@pytest.fixture
def study(study):
    """Seventeen labs with shards of a built-in data set, a linear model, updates masked."""
    study = type(study)(study.folder, labs=17)
    for lab in study.labs:
        study.sites[lab]["policy"]["unmasked_updates"] = False
    study.write()
    return study


@pytest.fixture
def asked(monkeypatch):
    """What labs are asked: lab, action, slot."""
    seen = []
    handle = SiteService.handle

    def record(self, request):
        seen.append((self.site.site, request.action, request.fields.get("slot")))
        return handle(self, request)

    monkeypatch.setattr(SiteService, "handle", record)
    return seen


@pytest.fixture
def crash(monkeypatch):
    def arrange(labs):
        whole = Contributor.contribution

        def contribution(self, model, number, **rest):
            if self.name in labs and number == ROUND:
                raise MemoryError
            return whole(self, model, number, **rest)

        monkeypatch.setattr(Contributor, "contribution", contribution)

    return arrange


@pytest.mark.slow
def test_five_of_seventeen_may_crash(fedsci, study, crash, asked):
    gone = ["lab-1", "lab-17", "lab-4", "lab-5", "lab-9"]
    crash(gone)
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert (outcome.code, outcome.err) == (0, "")
    summary = fedsci.summary(outcome)
    assert (summary["status"], summary["rounds_completed"]) == ("completed", 3)
    about = summary["secure_aggregation"]
    assert (about["enabled"], about["min_survivors"]) == (True, 12)
    assert about["dropped"] == [[lab, ROUND] for lab in gone]
    assert [line["sites"] for line in fedsci.rounds(outcome.folder)] == [17, 12, 17]
    assert {slot for _, action, slot in asked if action == "votes"} == {ROUND - 1}


@pytest.mark.slow
def test_a_sixth_ends_the_run_with_nothing_revealed(fedsci, study, crash, asked):
    gone = ["lab-1", "lab-12", "lab-17", "lab-4", "lab-5", "lab-9"]
    crash(gone)
    outcome = fedsci("run", "study.yaml")
    assert outcome.code == 5
    assert "round 2: only 11 of 17 sites finished, 12 are needed" in outcome.error_line
    summary = fedsci.summary(outcome)
    assert (summary["status"], summary["rounds_completed"]) == ("aborted", ROUND - 1)
    shown = [(action, slot) for _, action, slot in asked if action in ("unmask", "votes")]
    assert {action for action, _ in shown} == {"unmask"}
    assert {slot for _, slot in shown} == {0}
    assert {lab for lab, action, _ in asked if action == "finish"} == set(study.labs)
