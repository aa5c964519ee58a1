"""Who was trained on: found without privacy, and not beyond what epsilon allows with it."""

import numpy as np
import pytest
from scipy import stats

from fedsci.config.shipped import shipped
from fedsci.config.study_file import load_study
from fedsci.redteam.membership import Outcome, Shadows, membership, outcome, protected
from fedsci.redteam.scores import Measured

LABS = "sites=[../../sites/lab-01.yaml, ../../sites/lab-02.yaml, ../../sites/lab-04.yaml, ../../sites/lab-06.yaml]"
SMALL = [LABS, "secure_aggregation={min_survivors: 3}", "privacy.colluding_sites=1"]


def digits(*overrides):
    return load_study(shipped("examples") / "digits" / "study.yaml", overrides=[*SMALL, *overrides])


def made_up(shift, *, models=40, records=300, seed=1):
    """Confidences that are normal, and higher by ``shift`` deviations where the record was in."""
    rng = np.random.default_rng(seed)
    member = rng.random((models, records)) < 0.5
    level, spread = rng.normal(size=records), rng.uniform(0.5, 2, records)
    confidence = level + spread * (rng.normal(size=member.shape) + shift * member)
    return Shadows(confidence=confidence, member=member, groups=np.arange(records))


@pytest.fixture(scope="module")
def found():
    heard = []
    rows = membership(digits(), seed=1, models=12, few=100, told=heard.append)
    assert len(heard) == 4 * 12
    return {row.key: row for row in rows}


def test_the_attack_works_on_the_same_study_without_privacy(found):
    control = found["membership-few-control"]
    assert control.verdict == "control"
    assert control.measured["auc"]["low"] > 0.65


def test_noise_takes_most_of_it_away(found):
    private, control = found["membership-few"], found["membership-few-control"]
    assert private.verdict == "holds"
    assert private.measured["auc"]["high"] < control.measured["auc"]["low"] - 0.05
    assert list(found) == ["membership", "membership-control", "membership-few", "membership-few-control"]


def test_a_finding_has_a_plot_on_log_axes_and_numbers_that_json_takes(found):
    plot = found["membership"].plot
    assert "log10" in plot.x
    assert "log10" in plot.y
    assert [curve.name for curve in plot.curves] == [
        "the study",
        "without privacy",
        "most that epsilon 3 allows",
        "a coin",
    ]
    assert all(np.isfinite(curve.points).all() and np.max(curve.points) <= 1e-9 for curve in plot.curves)


def test_ratios_of_normal_confidences_reach_the_best_there_is():
    for shift in (0.0, 1.0):
        made = made_up(shift)
        reached = outcome(made.ratios(), made.member)
        best = stats.norm.cdf(shift / np.sqrt(2))
        assert reached.area.low - 0.02 < best < reached.area.high + 0.03
        assert not reached.area.low < best + 0.1 < reached.area.high  # a wrong value is outside


def test_models_that_remember_nothing_give_nobody_away():
    """Also with few shadow models: the attacked one is not among them."""
    made = made_up(0.0, models=8)
    area = outcome(made.ratios(), made.member).area
    assert 0.47 < area.value < 0.53


def test_records_of_one_person_are_judged_together():
    apart = made_up(0.5, records=400)
    pairs = Shadows(
        confidence=apart.confidence.copy(), member=apart.member[:, ::2], groups=np.repeat(np.arange(200), 2)
    )
    pairs.confidence[:, 1::2] += 0.5 * (apart.member[:, ::2].astype(float) - apart.member[:, 1::2])
    ratios = pairs.ratios()
    assert ratios.shape == (40, 200)
    single = outcome(apart.ratios(), apart.member).area
    assert outcome(ratios, pairs.member).area.low > single.high


def test_a_record_that_was_never_out_says_nothing():
    made = made_up(3.0, models=6, records=20)
    made.member[:, 0] = True
    assert (made.ratios()[:, 0] == 0).all()


def reached(area, at):
    return Outcome(
        area=Measured(value=area, low=area - 0.01, high=area + 0.01),
        at={rate: Measured(value=v, low=0.9 * v, high=1.1 * v) for rate, v in at.items()},
        line=((-2.0, -1.5), (0.0, 0.0)),
        decisions=1000,
    )


@pytest.mark.parametrize(
    ("private", "control", "verdict"),
    [
        (reached(0.53, {0.01: 0.013}), reached(0.79, {0.01: 0.16}), "holds"),
        (reached(0.79, {0.01: 0.16}), reached(0.79, {0.01: 0.16}), "broken"),  # the noise was forgotten
        (reached(0.51, {0.01: 0.3}), reached(0.51, {0.01: 0.01}), "broken"),
        (reached(0.51, {0.01: 0.011}), reached(0.52, {0.01: 0.012}), "not measured"),
    ],
)
def test_a_verdict_is_what_epsilon_allows_and_the_control_shows(private, control, verdict):
    row = protected("membership", digits().plan, private, control, attack="an attack")
    assert row.verdict == verdict
    bounds = row.measured["bounds_at_fpr_0.01"]
    assert bounds["epsilon_delta"] == pytest.approx(np.exp(3) * 0.01 + 1e-5)
    assert 0.01 < bounds["noise"] < bounds["epsilon_delta"]
    if verdict == "not measured":
        assert "without protection" in row.result


def test_a_larger_epsilon_allows_more():
    row = {
        epsilon: protected(
            "m",
            digits(f"privacy.epsilon={epsilon}").plan,
            reached(0.7, {0.01: 0.08}),
            reached(0.8, {0.01: 0.2}),
            attack="",
        )
        for epsilon in (1, 5)
    }
    assert row[1].verdict == "broken"
    assert row[5].verdict == "holds"


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["privacy.unit=site", "strategy=fedavg", "training.rounds=2"], "whole labs"),
        (["strategy=feature_statistics", "training.rounds=1"], "no model"),
    ],
)
def test_a_study_that_it_does_not_fit_says_so(overrides, reason):
    (row,) = membership(digits(*overrides), seed=1)
    assert row.verdict == "not measured"
    assert reason in row.result


def test_without_privacy_nothing_is_claimed():
    rows = membership(digits("privacy.mechanism=none", "training.rounds=30"), seed=1, models=12, few=80)
    assert [row.verdict for row in rows if row.key == "membership-few"] == ["not protected"]
    assert not any(row.verdict == "holds" for row in rows)
