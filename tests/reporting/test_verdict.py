"""What the report says about joining follows from the numbers, also when they speak against it."""

import doctest
import itertools

import pytest

from fedsci.reporting import page, plots, run_folder, running, verdict
from fedsci.reporting.verdict import Measure, Scores, Worth, judge, judge_lab, measure_named

ACCURACY = measure_named("accuracy")
RMSE = measure_named("rmse")


def scores(joint: float | None, alone: float | None, alone_no_dp: float | None) -> Scores:
    return Scores(joint=joint, alone=alone, alone_no_dp=alone_no_dp)


@pytest.mark.parametrize("module", [verdict, page, plots, run_folder, running])
def test_the_examples_in_the_docs_hold(module: object) -> None:
    results = doctest.testmod(module)  # type: ignore[arg-type]
    assert results.failed == 0
    assert results.attempted > 0


@pytest.mark.parametrize(
    ("measure", "joint", "rival", "worth"),
    [
        (ACCURACY, 0.90, 0.89, Worth.AS_WELL),
        (ACCURACY, 0.89, 0.90, Worth.AS_WELL),
        (ACCURACY, 0.9001, 0.89, Worth.YES),
        (ACCURACY, 0.89, 0.9001, Worth.NO),
        (RMSE, 9.8, 10.0, Worth.AS_WELL),
        (RMSE, 10.2, 10.0, Worth.AS_WELL),
        (RMSE, 9.79, 10.0, Worth.YES),
        (RMSE, 10.21, 10.0, Worth.NO),
        (RMSE, 0.0, 0.0, Worth.AS_WELL),
        (RMSE, 0.1, 0.0, Worth.NO),
        (RMSE, float("nan"), 1.0, Worth.UNKNOWN),
        (RMSE, 1.0, float("inf"), Worth.UNKNOWN),
        (RMSE, None, 1.0, Worth.UNKNOWN),
    ],
)
def test_close_counts_as_well(measure: Measure, joint: float, rival: float, worth: Worth) -> None:
    assert measure.compare(joint, rival) is worth


@pytest.mark.parametrize(
    ("alone", "alone_no_dp", "worth", "headline"),
    [
        (0.7, 0.75, Worth.YES, "Yes, joining pays."),
        (0.7, 0.80, Worth.YES, "Yes if the model is to leave the lab; inside, it makes little difference."),
        (0.7, 0.90, Worth.AS_WELL, "Yes if the model is to leave the lab, no if it stays inside."),
        (0.8, 0.80, Worth.AS_WELL, "It makes little difference."),
        (0.8, 0.90, Worth.NO, "No, a lab alone does better if its model stays inside."),
        (0.9, 0.95, Worth.NO, "No, a lab alone does better."),
        (0.9, 0.70, Worth.NO, "No, a lab alone does better."),
    ],
)
def test_the_headline_weighs_both_ways_of_being_alone(
    alone: float, alone_no_dp: float, worth: Worth, headline: str
) -> None:
    found = judge(ACCURACY, scores(0.8, alone, alone_no_dp), private=True)
    assert (found.worth, found.headline) == (worth, headline)


def test_alone_without_privacy_is_never_called_releasable() -> None:
    for alone, alone_no_dp in itertools.product((None, 0.7, 0.8, 0.9), (0.7, 0.8, 0.9)):
        found = judge(ACCURACY, scores(0.8, alone, alone_no_dp), private=True)
        assert "never releases it" in found.sentences[-1]


def test_no_headline_says_yes_when_every_lab_does_better_alone() -> None:
    for measure, joint, alone in ((ACCURACY, 0.8, 0.9), (RMSE, 10.0, 9.0)):
        for rivals in (scores(joint, alone, alone), scores(joint, alone, None), scores(joint, None, alone)):
            found = judge(measure, rivals, private=True)
            assert found.worth is Worth.NO
            assert found.headline.startswith("No")
            assert any("alone is better" in sentence for sentence in found.sentences)


def test_without_privacy_the_rival_without_privacy_decides() -> None:
    found = judge(ACCURACY, scores(0.8, 0.6, 0.9), private=False)
    assert found.worth is Worth.NO
    assert "same privacy" not in " ".join(found.sentences)


def test_nothing_to_compare_gives_no_answer() -> None:
    for missing in (scores(None, 0.7, 0.8), scores(0.8, None, None), scores(0.8, float("nan"), 0.7)):
        assert judge(ACCURACY, missing, private=True).worth is Worth.UNKNOWN


def test_a_lab_better_off_alone_without_privacy_is_told() -> None:
    assert judge_lab(ACCURACY, scores(0.8, 0.7, 0.9), private=True) == (
        Worth.YES,
        "better alone without privacy",
    )
    assert judge_lab(ACCURACY, scores(0.8, 0.9, 0.7), private=True) == (Worth.NO, "")
    assert judge_lab(ACCURACY, scores(None, 0.9, 0.7), private=True) == (Worth.UNKNOWN, "")
    assert judge_lab(ACCURACY, scores(0.8, 0.6, 0.9), private=False) == (Worth.NO, "")


@pytest.mark.parametrize("joint", [0.99, 0.5, None])
@pytest.mark.parametrize("alone", [0.1, 0.95, None])
def test_noised_metrics_answer_nothing_however_clear_they_look(joint: float | None, alone: float | None) -> None:
    found = judge(ACCURACY, scores(joint, alone, alone), private=True, noised=True)
    assert (found.worth, found.headline) == (Worth.UNKNOWN, "The numbers cannot say.")
    assert "Whether joining pays cannot be answered from this run." in found.sentences


def with_personal(joint, alone, personal, errors=()):
    return Scores(joint=joint, alone=alone, alone_no_dp=None, personalised=personal, errors=dict(errors))


@pytest.mark.parametrize(
    ("joint", "alone", "personal", "worth", "headline"),
    [
        (27.0, 18.9, 17.0, Worth.YES, "Yes, if each lab adapts the joint model to its own records."),
        (27.0, 18.9, 19.0, Worth.AS_WELL, "No as it is; adapted by each lab it does as well as staying alone."),
        (27.0, 18.9, 22.0, Worth.NO, "No, a lab alone does better."),
        (18.9, 18.9, 17.0, Worth.YES, "Yes, if each lab adapts the joint model to its own records."),
        (17.0, 18.9, 22.0, Worth.YES, "Yes, joining pays."),
        (27.0, 18.9, None, Worth.NO, "No, a lab alone does better."),
        (27.0, 18.9, float("nan"), Worth.NO, "No, a lab alone does better."),
    ],
)
def test_where_the_joint_model_hurts_and_its_adaptation_helps_the_words_say_which(
    joint, alone, personal, worth, headline
):
    scores = with_personal(joint, alone, personal)
    found = judge(RMSE, scores, private=False)
    assert (found.worth, found.headline) == (worth, headline)
    words = " ".join(found.sentences)
    assert ("Adapted by each lab" in words) == (personal is not None and personal == personal)
    lab, remark = judge_lab(RMSE, scores, private=False)
    assert (lab, bool(remark)) == (worth, headline.startswith(("Yes, if", "No as")))


def test_a_gap_that_chance_may_explain_is_a_tie_and_one_beyond_is_not():
    near, far = (with_personal(0.85, 0.80, None, {"joint": error, "alone": error}) for error in (0.02, 0.015))
    found = judge(ACCURACY, near, private=False)
    assert found.worth is Worth.AS_WELL
    assert "0.850 ± 0.039" in found.sentences[0]
    assert "within what chance may do" in found.sentences[1]
    assert judge(ACCURACY, far, private=False).worth is Worth.YES
    assert judge_lab(ACCURACY, near, private=False)[0] is Worth.AS_WELL
    one_sided = with_personal(0.85, 0.80, None, {"joint": 0.5})
    assert judge(ACCURACY, one_sided, private=False).worth is Worth.YES


def test_an_adapted_model_is_compared_with_alone_without_privacy_only():
    scores = Scores(joint=0.8, alone=0.5, alone_no_dp=None, personalised=0.9)
    found = judge(ACCURACY, scores, private=True)
    assert found.headline == "Yes, joining pays."
    assert "is not known here" in found.sentences[-1]
    known = Scores(joint=0.8, alone=0.5, alone_no_dp=0.95, personalised=0.9)
    assert (
        judge(ACCURACY, known, private=True).headline == "Yes if the model is to leave the lab, no if it stays inside."
    )
    assert "it stays inside its lab" in judge(ACCURACY, known, private=True).sentences[-1]
