"""Whole masked studies of buffers, in virtual time: the sum is exact, and nobody can be told apart by a model."""

import numpy as np
import pytest

from fedsci.coordinator.buffers import Buffers
from fedsci.errors import ConfigError, InputError
from fedsci.strategies import BUILDERS
from fedsci.transport.messages import Request

POLICY = {"strategies": sorted(BUILDERS)}
#: Ten labs, of which seven must finish; the last two train for two to three rounds of the others.
SLOW = {"every_lab": {"records_per_s": 10}, "labs": {"lab-9": {"records_per_s": 4}, "lab-10": {"records_per_s": 4}}}
RECIPE = "name: fedbuff\nsees: sum\noptions: {buffer: 8, together: 2}\n"


class Dead(RuntimeError):
    """The lab's process is gone."""


@pytest.fixture
def buffers(conduct, tmp_path):
    """Run such a study."""

    def run(*, rounds: int = 4, text: str = RECIPE, weather=SLOW, labs: int = 10, **changes):
        (tmp_path / "mine.yaml").write_text(text)
        training = {"rounds": rounds, "batch_size": 4, "learning_rate": 0.5}
        policy = POLICY | changes.pop("policy", {})
        return conduct(
            strategy="mine.yaml", policy=policy, labs=labs, weather=weather, **{"training": training} | changes
        )

    return run


def trained(result) -> dict[int, dict[str, int]]:
    """What each round's request said of its sites."""
    return {
        step.request.fields["round"]: step.request.fields["trained"]
        for step in result.steps
        if step.action == "train" and step.request.fields["round"] > 0
    }


@pytest.mark.slow
def test_a_masked_study_is_the_one_in_the_clear_and_slow_labs_are_in_it_with_what_they_made_of_old_models(buffers):
    masked, plain = buffers(rounds=6), buffers(rounds=6, masked=False)
    assert masked.error is None
    assert plain.error is None
    assert trained(masked) == trained(plain)
    assert trained(masked)[1] == {f"lab-{n}": 0 for n in range(1, 9)}
    late = [(number, said["lab-9"]) for number, said in trained(masked).items() if "lab-9" in said]
    assert late[0] == (3, 0)
    assert len(late) == 2
    assert masked.progress.model == pytest.approx(plain.progress.model, abs=1e-4)
    assert np.abs(masked.progress.model).max() > 0.1
    counts = [result.survivors for result in masked.rounds]
    assert counts == [len(said) for said in trained(masked).values()]
    assert masked.rounds[0].dropped == ("lab-10", "lab-9")


@pytest.mark.slow
def test_all_sites_of_a_buffer_are_told_the_same_and_it_is_bound(buffers):
    seen = {}

    def before(service, request: Request) -> Request:
        if request.action == "train":
            told = {key: value for key, value in request.fields.items() if not key.startswith("setup")}
            seen.setdefault(request.fields["round"], []).append(told)
        return request

    assert buffers(rounds=4, before=before).error is None
    for told in seen.values():
        assert len(told) >= 8
        assert all(one == told[0] for one in told)


@pytest.mark.slow
def test_a_lab_that_is_told_otherwise_cancels_nobodys_masks(buffers):
    """A site with another description, even one that is true of itself, is not in the sum, and the sum is exact."""

    def before(service, request: Request) -> Request:
        fields = request.fields
        if service.site.site != "lab-2" or request.action != "train" or fields["round"] != 3:
            return request
        trained = dict.fromkeys(fields["trained"], fields["trained"]["lab-2"])
        models = {version: fields["models"][version] for version in {str(trained["lab-2"]), "2"}}
        return Request(action="train", fields={**fields, "trained": trained, "models": models}, vector=request.vector)

    result = buffers(rounds=4, before=before)
    assert result.error is None
    assert ("lab-2", 3) in result.progress.dropped
    assert "took part in another round" in result.progress.reasons["lab-2", 3]


@pytest.mark.slow
def test_a_lab_that_was_given_another_model_sends_nothing(buffers):
    def before(service, request: Request) -> Request:
        if service.site.site == "lab-2" and request.action == "begin" and request.fields["version"] == 1:
            return Request(action="begin", fields=request.fields, vector=request.vector + np.float32(1))
        return request

    result = buffers(rounds=4, before=before)
    assert result.error is None
    assert result.progress.reasons["lab-2", 2].endswith("the model that this site trained on is not so")
    assert ("lab-2", 3) not in result.progress.dropped


@pytest.mark.slow
def test_a_lab_that_dies_with_its_contribution_is_missing_once(buffers):
    def dies(service, request, reply):
        if service.site.site == "lab-2" and request.action == "train" and request.fields["round"] == 3:
            raise Dead
        return reply

    results = [buffers(after=dies, masked=way) for way in (True, False)]
    assert results[0].error is None
    assert [number for lab, number in results[0].progress.dropped if lab == "lab-2"] == [3]
    assert results[0].progress.model == pytest.approx(results[1].progress.model, abs=1e-4)


def late_and_dead(service, request, reply):
    """The first buffer with the slow labs' contributions is that of round 3; one of the two dies."""
    if service.site.site == "lab-10" and request.action == "train" and request.fields["round"] == 3:
        raise Dead
    return reply


@pytest.mark.slow
@pytest.mark.parametrize("masked", [True, False])
def test_who_is_left_alone_with_a_model_is_left_out(buffers, masked):
    result = buffers(after=late_and_dead, masked=masked)
    assert result.error is None
    assert "too few are left that trained on its model" in result.progress.reasons["lab-9", 3]
    assert result.progress.rounds_completed == 4


@pytest.mark.slow
def test_who_is_left_alone_with_a_model_is_opened_by_nobody(buffers, monkeypatch):
    """A coordinator that asks for it all the same gets no share of anybody."""
    monkeypatch.setattr(Buffers, "_broken", lambda *_: {})
    result = buffers(after=late_and_dead)
    assert result.error is not None
    assert result.progress.rounds_completed == 2
    replies = result.said("unmask", slot=2)
    assert len(replies) == 9
    for reply in replies.values():
        assert "only 1 of the buffer's sites trained on the model after round 0" in reply.error["message"]


@pytest.mark.slow
def test_busy_labs_join_the_setup_of_the_next_batch(buffers):
    result = buffers(rounds=40)
    assert result.error is None
    assert result.progress.rounds_completed == 40
    assert any("lab-9" in said for number, said in trained(result).items() if number > 32)


@pytest.mark.slow
def test_private_contributions_are_charged_as_they_are_made(buffers):
    privacy = {"mechanism": "local", "epsilon": 4.0, "delta": 1.0e-5}
    result = buffers(privacy=privacy, policy={"mechanisms": ["local"]}, evaluation={"baselines": [], "holdout": 0.25})
    assert result.error is None
    made = {lab: len({version for said in trained(result).values() if (version := said.get(lab)) is not None})
            for lab in result.progress.sites}  # fmt: skip
    for lab, said in result.progress.privacy.items():
        assert made[lab] <= said["rounds_charged"] <= made[lab] + 1  # one may still wait
    assert result.progress.privacy["lab-9"]["rounds_charged"] < result.progress.privacy["lab-1"]["rounds_charged"]


def test_without_a_clock_nobody_is_asked_for_anything(buffers):
    result = buffers(weather=None)
    assert isinstance(result.error, InputError)
    assert "nothing here knows how long they take" in result.error.message
    assert not result.steps or {step.action for step in result.steps} == {"hello"}


def test_a_lab_that_wants_larger_sums_refuses_and_says_why(buffers):
    result = buffers(policy={"min_cohort": 4})
    assert "the sum over those that trained on one model may stand for only 2 sites" in result.error.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{buffer: 6}", "a buffer of 6 is not between min_survivors, 7, and the 10 sites"),
        ("{buffer: 11}", "a buffer of 11 is not between"),
        ("{together: 1}", "may show its update to a coordinator that cheats"),
        ("{together: 8}", "8 sites of a buffer must have one model, and it may hold 7"),
    ],
)
def test_buffers_that_cannot_be_are_refused(buffers, text, words):
    with pytest.raises(ConfigError, match=words):
        buffers(text=f"name: fedbuff\nsees: sum\noptions: {text}\n")
