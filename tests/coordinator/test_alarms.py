"""A study in which a lab lies: what the coordinator does, and that a process that goes on does the same."""

import numpy as np
import pytest

from fedsci.config.masking import grid_for
from fedsci.coordinator.blame import NAMED
from fedsci.coordinator.checkpoint import Checkpoint
from fedsci.coordinator.progress import Suspended
from fedsci.errors import RoundAborted
from fedsci.site.service import SiteService
from fedsci.transport.link import SiteLink

POLICY = {"mechanisms": ["distributed", "local", "none"], "exact_evaluation": False}
STUDY = {
    "labs": 5,
    "policy": POLICY,
    "strategy": "dp_fedsgd",
    "privacy": {"mechanism": "distributed", "epsilon": 4.0, "delta": 1e-5, "colluding_sites": 1},
    "training": {"rounds": 10, "sample_rate": 1.0, "learning_rate": 0.2},
}
FIRST_ROUND = 2


@pytest.fixture
def lie(monkeypatch):
    """Let labs send the most that the ring takes."""
    send = SiteService._send

    def spoil(*labs, first=1):
        def spoilt(self, upload, contribution, metrics, fields):
            asked = upload.request
            if self.site.site in labs and asked.action == "train" and asked.fields["round"] >= first:
                bound = grid_for(self._active(upload.request.fields["run"]).plan).site_bound
                largest = bound if contribution.dtype.kind == "i" else 1e6
                contribution = np.full_like(contribution, largest)
            return send(self, upload, contribution, metrics, fields)

        monkeypatch.setattr(SiteService, "_send", spoilt)

    return spoil


def facts(result):
    blame = result.progress.blame
    return blame.named, [(one.number, sorted(one.cohort), one.alarm) for one in blame.trials]


@pytest.mark.slow
def test_a_process_that_goes_on_leaves_out_the_same_labs_and_finds_the_same_one(conduct, lie):
    lie("lab-3")
    calm = conduct(**STUDY)
    assert calm.error is None
    named, trials = facts(calm)
    assert named == ("lab-3",)
    assert calm.progress.abandoned == [number for number, _, alarm in trials if alarm]
    # between rounds, after two alarms and after a sum without one
    cuts = [(FIRST_ROUND + 2 * 2, "before"), (FIRST_ROUND + 2 * 4, "before"), (FIRST_ROUND + 2 * 6, "before")]
    again = conduct(**STUDY, dies=cuts)
    assert again.error is None
    # the round that was asked for is given up; whom it left out is left out in the next
    assert facts(again)[0] == ("lab-3",)
    assert {tuple(cohort) for _, cohort, alarm in facts(again)[1] if alarm} >= {
        tuple(cohort) for _, cohort, alarm in trials if alarm
    }
    assert len(again.progress.abandoned) == len(calm.progress.abandoned) + 3
    assert {line.number for line in again.rounds} == {*range(1, 11)}
    said = [one["round"] for one in again.progress.alarms]
    assert said == sorted(set(said))
    assert set(said) <= set(again.progress.abandoned)


@pytest.mark.slow
def test_an_alarm_is_shown_where_the_process_ends_before_anybody_witnessed_it(conduct, lie, monkeypatch):
    lie("lab-3")
    ask, save, seen, struck = SiteLink.ask, Checkpoint.save, [], []

    def note(keep, progress):
        seen[:] = progress.abandoned
        save(keep, progress)

    def end(link, requests):
        if seen and not struck and next(iter(requests.values())).action == "witness":
            struck.append(1)
            raise Suspended
        return ask(link, requests)

    monkeypatch.setattr(Checkpoint, "save", note)
    monkeypatch.setattr(SiteLink, "ask", end)
    result = conduct(**STUDY | {"audit_log": {"enabled": True}})
    assert struck == [1]
    assert result.error is None
    assert [line.number for line in result.rounds] == list(range(1, 11))
    assert [line.number for line in result.rounds if line.norm is not None and line.norm.alarm] == [
        one["round"] for one in result.progress.alarms
    ]


@pytest.mark.slow
def test_what_an_applied_round_said_of_liars_is_kept_with_its_state(conduct, lie, monkeypatch):
    """The process ends after the state is on disk and before progress is."""
    lie("lab-3")
    calm = conduct(**STUDY)
    save, struck = Checkpoint.save, []

    def end(keep, progress):
        if not struck and progress.alarms and progress.pending is not None:
            struck.append(progress.pending.number)
            raise Suspended
        save(keep, progress)

    monkeypatch.setattr(Checkpoint, "save", end)
    result = conduct(**STUDY)
    assert len(struck) == 1
    assert facts(result) == facts(calm)
    assert result.progress.reasons == calm.progress.reasons
    assert result.progress.levels != []


@pytest.mark.slow
def test_who_is_named_is_asked_for_nothing_any_more(conduct, lie):
    lie("lab-1")
    result = conduct(**STUDY)
    last = max(one.number for one in result.progress.blame.trials)
    late = [step for step in result.steps if step.site == "lab-1" and step.request.fields.get("round", 0) > last]
    assert [step.action for step in late] == []
    assert not [step for step in result.steps if step.site == "lab-1" and step.action == "evaluate"]
    assert all(
        result.progress.reasons["lab-1", number] == NAMED for site, number in result.progress.dropped if number > last
    )
    assert "lab-1" in result.progress.settled


@pytest.mark.slow
def test_the_model_stays_as_it_was_in_a_round_that_is_given_up(conduct, lie):
    honest = conduct(**STUDY | {"training": STUDY["training"] | {"rounds": 1}})
    lie("lab-2")
    result = conduct(**STUDY | {"training": STUDY["training"] | {"rounds": 1}})
    assert (honest.progress.rounds_completed, result.progress.rounds_completed) == (1, 0)
    assert result.progress.abandoned == [1]
    assert not np.array_equal(honest.progress.model, result.progress.model)
    assert isinstance(result.error, RoundAborted)  # else the model that the study began with would pass for its result
    assert "no round was applied" in result.error.message


@pytest.mark.slow
def test_a_round_in_which_too_few_are_left_beside_those_left_out_ends_nothing(conduct, lie):
    """A lab that is left out for a trial could have taken part: its being away does not end the study."""
    lie("lab-5")
    result = conduct(
        **STUDY | {"labs": 7, "training": STUDY["training"] | {"rounds": 14}},
        before=lambda service, request: _away(service, request, lab="lab-7", rounds=(2,)),
    )
    assert result.error is None
    assert result.progress.blame.named == ("lab-5",)
    assert 2 in result.progress.abandoned
    assert 2 not in [one["round"] for one in result.progress.alarms]


@pytest.mark.slow
def test_a_lab_that_lies_and_then_stays_away_ends_nothing(conduct, lie):
    """Where one may be left out, every round that leaves out another has too few: in between, everybody is asked."""
    lie("lab-5")
    result = conduct(**STUDY, before=lambda service, request: _away(service, request, lab="lab-5", rounds=range(2, 11)))
    assert result.error is None
    assert [one["round"] for one in result.progress.alarms] == [1]
    assert result.progress.rounds_completed >= 4
    assert result.progress.blame.named == ()


def _away(service, request, *, lab, rounds):
    if service.site.site == lab and request.action == "train" and request.fields["round"] in rounds:
        raise RuntimeError("away")
    return request


@pytest.mark.slow
def test_exact_metrics_are_not_asked_of_two_cohorts_on_one_model(conduct, lie):
    lie("lab-3")
    result = conduct(**STUDY | {"policy": POLICY | {"exact_evaluation": True}})
    alarms = [one["round"] for one in result.progress.alarms]
    asked = {step.request.fields.get("round") for step in result.steps if step.request.fields.get("evaluate")} - {None}
    assert asked.isdisjoint({number + 1 for number in alarms})
    assert len(asked) > 1


@pytest.mark.slow
@pytest.mark.parametrize("first", [3, 2])
def test_after_an_alarm_in_the_last_round_its_model_is_not_measured_over_another_cohort(conduct, lie, first):
    """Of the two sums' difference nothing would be hidden."""
    lie("lab-3", first=first)
    result = conduct(
        **STUDY
        | {
            "policy": POLICY | {"exact_evaluation": True, "show_own_metrics": True},
            "training": STUDY["training"] | {"rounds": 3 if first == 3 else 2},
            "evaluation": {"baselines": ["local"]},
        },
        before=lambda service, request: _away(service, request, lab="lab-5", rounds=(first,)),
    )
    assert result.error is None
    assert result.progress.abandoned == [first]
    measured = [step.request for step in result.steps if step.request.fields.get("evaluate") and step.site == "lab-1"]
    models = [one.vector.tobytes() for one in measured if one.vector is not None]
    assert len(models) == len(set(models)) > 0
    assert "evaluate" not in result.exchanges
    assert result.progress.federated.pooled() is not None
    assert "local" in result.progress.alone


@pytest.mark.slow
def test_buffers_alarm_and_leave_out_nobody(conduct, lie):
    lie("lab-2", first=4)
    result = conduct(
        **STUDY
        | {
            "labs": 6,
            "strategy": "fedbuff",
            "policy": POLICY | {"strategies": ["fedbuff"]},
            "privacy": {"mechanism": "local", "epsilon": 4.0, "delta": 1e-5},
            "training": {"rounds": 6, "sample_rate": 0.5, "learning_rate": 0.1},
        },
        weather={},
    )
    assert result.error is None
    assert result.progress.blame is None
    assert result.progress.abandoned == [one["round"] for one in result.progress.alarms if one["level"] == "alarm"]
    assert result.progress.abandoned
    assert min(result.progress.abandoned) >= 4


def test_without_privacy_an_alarm_ends_the_study(conduct, lie):
    lie("lab-4")
    result = conduct(
        labs=5,
        masked=False,
        policy=POLICY | {"strategies": ["feature_statistics"]},
        strategy="feature_statistics",
        training={"rounds": 1},
    )
    assert isinstance(result.error, RoundAborted)
    assert "lab-4" in result.error.message
    assert result.progress.blame is None
    assert result.progress.abandoned == [1]


@pytest.mark.slow
def test_labs_that_were_left_out_while_the_next_batch_was_set_up_are_in_it(conduct, lie):
    lie("lab-5", first=25)
    result = conduct(**STUDY | {"training": STUDY["training"] | {"rounds": 36}})
    assert result.error is None
    assert result.progress.blame.named == ("lab-5",)
    assert {number for _, number in result.progress.dropped if number > 26}
    last = [step.site for step in result.steps if step.action == "train" and step.request.fields["round"] == 36]
    assert sorted(last) == ["lab-1", "lab-2", "lab-3", "lab-4"]
    assert not [one for one in result.progress.dropped if one[1] == 36 and one[0] != "lab-5"]
