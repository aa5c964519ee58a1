import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from fedsci.errors import InputError, RoundAborted
from fedsci.privacy.clipping import clip_rows
from fedsci.strategies import ServerOptimiser, build_strategy
from fedsci.strategies.base import WeightedSum
from fedsci.strategies.one_exchange import LONGEST, ColumnShape, Records, StudyShape
from fedsci.strategies.one_shot_ridge import LOGITS, build


def study_of(inputs, task="regression", classes=(), model="linear"):
    columns = (ColumnShape(name="x", kind="array", start=0, width=inputs),)
    return StudyShape(task=task, model=model, columns=columns, classes=classes, gaps="refuse")


def ridge_of(study, **options):
    return build(optimiser=ServerOptimiser(), **options).for_study(study)


def records_of(features, target):
    features = np.asarray(features, np.float32)
    return Records(features=features, target=np.asarray(target), missing=np.zeros((len(features), 1), np.bool_))


def solved(strategy, vector, *, weight=1.0, noise=0.0, size=1):
    state = strategy.start(np.zeros(size, np.float32))
    return strategy.apply(state, WeightedSum(vector=vector.astype(np.float32), weight=weight, noise=noise)).model


def test_one_record_by_hand():
    # x = (1/2, 1), t = -1, b = sqrt(2): (1/4, 1/2, 1, -sqrt(2) / 2, -sqrt(2)), of squared norm 1/16 + 1/4 + 1 + 1/2 + 2
    strategy = ridge_of(study_of(1))
    assert strategy.numbers == 5
    wanted = np.array([0.25, 0.5, 1, -(2**0.5) / 2, -(2**0.5)]) / math.sqrt(61 / 16) * LONGEST
    assert strategy.statistics(records_of([[0.5]], np.float32([-1]))) == pytest.approx(wanted[None])


def test_two_points_by_hand():
    # x = -1 -> t = -1/2 and x = 1 -> t = 1/2, equally long rows: G is a multiple of the unit matrix and slope is 1/2
    strategy = ridge_of(study_of(1), ridge=1e-9)
    rows = strategy.statistics(records_of([[-1], [1]], np.float32([-0.5, 0.5])))
    assert solved(strategy, rows.mean(axis=0), size=2) == pytest.approx([0.5, 0], abs=1e-6)
    # noise above all eigenvalues: they are raised to noise * sqrt(2)
    raised = solved(strategy, rows.mean(axis=0), noise=10.0, size=2)
    largest = np.linalg.eigvalsh([[rows.mean(axis=0)[0], 0], [0, rows.mean(axis=0)[2]]]).max()
    assert raised == pytest.approx([0.5 * largest / (10 * 2**0.5), 0], rel=1e-5)


def test_it_is_weighted_ridge_regression():
    rng = np.random.default_rng(3)
    x, t = rng.uniform(-1, 1, (40, 4)).astype(np.float32), rng.uniform(-1, 1, 40).astype(np.float32)
    strategy = ridge_of(study_of(4), ridge=0.01)
    rows = strategy.statistics(records_of(x, t))
    ours = solved(strategy, 40 * rows.mean(axis=0), weight=40.0, size=5)
    whole = np.hstack([x, np.ones((40, 1))])
    tri = [np.outer(r, r)[np.triu_indices(5)] for r in whole]
    weights = LONGEST / np.sqrt([(p @ p) + 5 * v * v * (r @ r) for p, r, v in zip(tri, whole, t, strict=True)])
    theirs = Ridge(alpha=0.01 * 40, fit_intercept=False).fit(whole, t, sample_weight=weights)
    assert ours == pytest.approx(theirs.coef_, abs=1e-5)


def test_a_binary_and_a_two_class_study_agree():
    rng = np.random.default_rng(5)
    x, y = rng.uniform(-1, 1, (60, 3)), rng.integers(0, 2, 60)
    binary = ridge_of(study_of(3, "binary"))
    classes = ridge_of(study_of(3, "multiclass", ("a", "b")))
    one = solved(binary, binary.statistics(records_of(x, y)).mean(axis=0), size=4) / LOGITS["binary"]
    two = solved(classes, classes.statistics(records_of(x, y)).mean(axis=0), size=8) / LOGITS["multiclass"]
    weights, biases = two[:6].reshape(2, 3), two[6:]
    # one-hot less 1/2 has twice the squared norm, so weights differ a little: the direction is the same
    assert weights[0] == pytest.approx(-weights[1], abs=1e-6)
    assert biases[0] == pytest.approx(-biases[1], abs=1e-6)
    cosine = (weights[1] @ one[:3]) / np.linalg.norm(weights[1]) / np.linalg.norm(one[:3])
    assert cosine > 0.99


@given(st.integers(1, 12), st.sampled_from(["binary", "multiclass", "regression"]), st.integers(0, 2**32 - 1))
def test_no_record_is_clipped_and_each_uses_the_whole_norm(inputs, task, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (9, inputs)) * rng.choice([0, 1e-6, 1], (9, 1))
    target = rng.uniform(-1, 1, 9).astype(np.float32) if task == "regression" else rng.integers(0, 2, 9)
    classes = ("a", "b", "c") if task == "multiclass" else ()
    strategy = ridge_of(study_of(inputs, task, classes))
    rows = strategy.statistics(records_of(x, target))
    assert rows.shape == (9, strategy.numbers) == (9, strategy.width(1))
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.full(9, LONGEST), rel=1e-12)
    assert (clip_rows(rows, 1.0) == rows).all()
    for chosen in ([0], [8, 3], [2, 4, 6, 8]):
        assert (strategy.statistics(records_of(x[chosen], target[chosen])) == rows[chosen]).all()


def test_a_damaged_record_counts_as_zeros():
    strategy = ridge_of(study_of(2))
    rows = strategy.statistics(records_of([[np.nan, 0], [0, 1]], np.float32([0, 1])))
    assert not clip_rows(rows, 1.0)[0].any()
    assert clip_rows(rows, 1.0)[1].any()


def test_noise_never_makes_it_explode():
    rng = np.random.default_rng(1)
    strategy = ridge_of(study_of(30))
    rows = strategy.statistics(records_of(rng.uniform(-1, 1, (50, 30)), rng.uniform(-1, 1, 50).astype(np.float32)))
    noise = 0.05
    vector = rows.mean(axis=0) + rng.normal(0, noise, strategy.numbers)
    floored = np.linalg.norm(solved(strategy, vector, noise=noise, size=31))
    wrong = np.linalg.norm(solved(strategy, vector, noise=0.0, size=31))
    assert floored < 3
    assert wrong > 100 * floored


def test_a_model_that_is_not_finite_is_none():
    strategy = ridge_of(study_of(1), ridge=1e-300)  # no more than float32 can hold of 1 / ridge
    vector = np.zeros(strategy.numbers)
    vector[-1] = 1
    with pytest.raises(RoundAborted, match="what one_shot_ridge makes of the sum holds NaN or infinity"):
        solved(strategy, vector, size=2)


def test_the_weight_of_the_sum_is_that_of_its_noise():
    strategy = ridge_of(study_of(2))
    vector = strategy.statistics(records_of([[0.5, 1], [1, -1]], np.float32([1, -1]))).mean(axis=0)
    assert solved(strategy, 8 * vector, weight=8.0, noise=0.4, size=3) == pytest.approx(
        solved(strategy, vector, noise=0.05, size=3), rel=1e-5
    )


def test_another_model_is_refused():
    with pytest.raises(InputError, match="solves for a linear model, and the study's is mlp"):
        ridge_of(study_of(2, model="mlp"))


@pytest.mark.parametrize("ridge", [0.0, -1.0, math.inf, math.nan])
def test_a_ridge_that_is_not_positive_is_refused(ridge):
    with pytest.raises(InputError, match="one_shot_ridge: ridge is"):
        build_strategy("one_shot_ridge", optimiser=ServerOptimiser(), options={"ridge": ridge})


def test_no_records_have_no_vectors():
    assert ridge_of(study_of(2)).statistics(records_of(np.zeros((0, 2)), np.zeros(0, np.float32))).shape == (0, 9)
