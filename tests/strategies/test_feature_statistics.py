import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.config.study import Study
from fedsci.config.study_shape import shape_of
from fedsci.data.table import RawTable, encode
from fedsci.errors import InputError
from fedsci.privacy.clipping import clip_rows
from fedsci.strategies import ServerOptimiser
from fedsci.strategies.base import WeightedSum
from fedsci.strategies.feature_statistics import BINS, build, norm_bound, read_statistics
from fedsci.strategies.one_exchange import LONGEST, Records
from fedsci.training.schema import schema_of

FEATURES = {
    "age": {"min": 0, "max": 100},
    "image": {"shape": [2], "min": 0, "max": 1},
    "sex": {"categories": ["f", "m"], "unseen": "refuse"},
    "cp": {"categories": [1, 2]},
}
BINARY = {"kind": "binary", "target": "y"}
REGRESSION = {"kind": "regression", "target": "y", "min": -8, "max": 8}


def study_of(task=BINARY, missing="impute", features=FEATURES):
    return Study.model_validate(
        {
            "study": "s",
            "dataset": "d",
            "task": task,
            "features": features,
            "missing": missing,
            "model": {"name": "linear"},
            "strategy": "feature_statistics",
            "privacy": {"mechanism": "none"},
        }
    )


def objects(*values):
    found = np.empty(len(values), object)
    found[:] = values
    return found


RAW = {
    "age": np.array([0.0, 100.0, np.nan, 75.0]),
    "image": np.array([[0.0, 1.0], [1.0, np.nan], [0.5, 0.5], [1.0, 0.0]]),
    "sex": objects("f", "m", None, "f"),
    "cp": np.array([1.0, 3.0, 2.0, np.nan]),
    "y": np.array([0, 1, 1, 0]),
}


def records_of(study, raw=RAW):
    table = encode(RawTable.from_columns(raw), schema_of(study), "t")
    gaps = table.gaps if table.gaps is not None else np.zeros((table.rows, len(study.features)), np.bool_)
    return Records(features=table.features, target=table.target, missing=gaps)


def vectors_of(study, raw=RAW):
    return build(optimiser=ServerOptimiser()).for_study(shape_of(study)).statistics(records_of(study, raw))


def test_records_by_hand():
    study = study_of()
    rows = vectors_of(study) * norm_bound(shape_of(study))
    # age: v, v^2 - 1/2, gap; image: v, v, squares, gap; sex: f, m, gap; cp: 1, 2, other, gap; y: 0, 1
    wanted = [
        [-1, 0.5, 0, -1, 1, 0.5, 0.5, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0],
        [1, 0.5, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 1],
        [0, 0, 1, 0, 0, -0.5, -0.5, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1],
        [0.5, -0.25, 0, 1, -1, 0.5, 0.5, 0, 1, 0, 0, 0, 0, 0, 1, 1, 0],
    ]
    assert rows == pytest.approx(np.array(wanted), abs=1e-9)
    # one number of age and two of the image, two categorical features, the target
    assert norm_bound(shape_of(study)) == pytest.approx(math.sqrt(3 * 1.25 + 2 + 1) / LONGEST)


def test_what_is_read_is_what_the_records_say():
    study = study_of()
    found = read_statistics(vectors_of(study).mean(axis=0), records=4, study=shape_of(study))
    assert found.records == pytest.approx(4)
    age, image = found.numeric["age"], found.numeric["image"]
    assert age.mean == pytest.approx([175 / 3])
    assert age.deviation == pytest.approx([np.std([0, 100, 75])])
    assert age.missing == pytest.approx(0.25)
    assert image.mean == pytest.approx([0.5, 0.5])  # the row with a gap in one number is left out of both
    assert image.deviation == pytest.approx([np.std([0, 0.5, 1])] * 2)
    assert found.categorical["sex"].shares == pytest.approx({"f": 0.5, "m": 0.25})
    assert found.categorical["sex"].other is None
    assert found.categorical["sex"].missing == pytest.approx(0.25)
    assert found.categorical["cp"].shares == pytest.approx({"1": 0.25, "2": 0.25})
    assert found.categorical["cp"].other == pytest.approx(0.25)
    assert found.target == pytest.approx([2, 2])
    assert found.edges is None


def test_how_narrow_a_column_may_be_within_its_bounds():
    rng, study = np.random.default_rng(2), study_of(features={"a": {"min": 0, "max": 1}}, missing="refuse")
    for deviation, right in ((1e-3, True), (1e-5, False)):
        raw = {"a": 0.6 + deviation * rng.standard_normal(500), "y": np.zeros(500, np.int64)}
        mean = vectors_of(study, raw).mean(axis=0).astype(np.float32)
        found = read_statistics(mean, records=500, study=shape_of(study)).numeric["a"]
        assert found.mean == pytest.approx([raw["a"].mean()], abs=1e-6)
        assert (abs(found.deviation[0] / raw["a"].std() - 1) < 0.01) == right


def test_a_regression_target_has_sixteen_bins():
    study = study_of(REGRESSION, features={"a": {"min": 0, "max": 1}}, missing="refuse")
    y = np.array([-8, -7.5, -7, 0, 7.99, 8, 100])  # bins of width 1: what is outside is clipped
    vectors = vectors_of(study, {"a": np.zeros(7), "y": y})
    found = read_statistics(vectors.mean(axis=0), records=7, study=shape_of(study))
    wanted = np.zeros(BINS)
    wanted[[0, 1, 8, 15]] = 2, 1, 1, 3
    assert found.target == pytest.approx(wanted, abs=1e-9)
    assert found.edges == pytest.approx(np.arange(-8, 9))
    assert found.numeric["a"].missing == 0


def test_dropped_rows_are_in_no_sum_and_their_gaps_are_not_known():
    raw = {"a": np.array([0.0, np.nan, 1.0, 1.0]), "y": np.array([0, 1, 1, 1])}
    study = study_of(missing="drop", features={"a": {"min": 0, "max": 1}})
    found = read_statistics(vectors_of(study, raw).sum(axis=0) / 4, records=4, study=shape_of(study))
    assert found.records == pytest.approx(3)
    assert found.numeric["a"].mean == pytest.approx([2 / 3])
    assert found.numeric["a"].missing is None


def test_a_row_without_a_target_is_not_counted():
    raw = {"a": np.array([0.0, 1.0, np.nan]), "y": np.array([0.0, 1.0, np.nan])}
    study = study_of(features={"a": {"min": 0, "max": 1}})
    found = read_statistics(vectors_of(study, raw).sum(axis=0) / 3, records=3, study=shape_of(study))
    assert found.records == pytest.approx(2)
    assert found.numeric["a"].missing == pytest.approx(0)


@given(st.integers(0, 2**32 - 1), st.sampled_from([BINARY, REGRESSION]), st.sampled_from(["impute", "drop", "refuse"]))
def test_no_record_is_ever_clipped(seed, task, missing):
    rng, n = np.random.default_rng(seed), 12
    gap = np.zeros((n, 4), np.bool_) if missing == "refuse" else rng.random((n, 4)) < 0.3
    gap[0] = False
    age = np.where(gap[:, 0], np.nan, rng.choice([0, 100, 50, -1e9, 1e9, 33.3], n))
    image = np.where(gap[:, 1, None], np.nan, rng.choice([0, 1, 0.1], (n, 2)))
    sex = objects(*(None if g else str(v) for g, v in zip(gap[:, 2], rng.choice(["f", "m"], n), strict=True)))
    cp = np.where(gap[:, 3], np.nan, rng.integers(0, 4, n))
    y = rng.uniform(-9, 9, n) if task is REGRESSION else rng.integers(0, 2, n)
    study = study_of(task, missing)
    rows = vectors_of(study, {"age": age, "image": image, "sex": sex, "cp": cp, "y": y})
    assert (np.linalg.norm(rows, axis=1) <= LONGEST * (1 + 1e-12)).all()
    assert (clip_rows(rows, 1.0) == rows).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from([BINARY, REGRESSION]))
def test_a_record_is_the_same_whoever_else_is_there(seed, task):
    rng, n = np.random.default_rng(seed), 11
    columns = {"a": {"min": -1, "max": 1}, "b": {"min": 0, "max": 3}}
    y = rng.uniform(-9, 9, n) if task is REGRESSION else rng.integers(0, 2, n)
    raw = {"a": rng.uniform(-2, 2, n), "b": np.where(rng.random(n) < 0.4, np.nan, rng.uniform(0, 3, n)), "y": y}
    study = study_of(task, features=columns)
    whole, kept = vectors_of(study, raw), rng.permutation(n)[:4]
    assert (vectors_of(study, {name: column[kept] for name, column in raw.items()}) == whole[kept]).all()


def test_the_bound_is_reached():
    study = study_of(missing="refuse")
    raw = {
        "age": np.array([100.0]),
        "image": np.array([[0.0, 1.0]]),
        "sex": objects("f"),
        "cp": np.array([9]),
        "y": [1],
    }
    rows = vectors_of(study, raw | {"y": np.array([1])})
    assert np.linalg.norm(rows) == pytest.approx(LONGEST)


def test_the_result_is_the_mean_vector():
    strategy = build(optimiser=ServerOptimiser()).for_study(shape_of(study_of()))
    state = strategy.start(np.zeros(3, np.float32))
    vector = np.arange(strategy.numbers, dtype=np.float32)
    assert strategy.apply(state, WeightedSum(vector=4 * vector, weight=4.0)).model == pytest.approx(vector)
    assert not strategy.makes_model


def test_what_noise_made_impossible_is_shown_at_the_nearest_possible():
    study = study_of()
    rows = vectors_of(study)
    rng = np.random.default_rng(1)
    found = read_statistics(rng.normal(0, 1, rows.shape[1]), records=4, study=shape_of(study))
    assert (found.target >= 0).all()
    for each in found.categorical.values():
        assert all(0 <= share <= 1 for share in [*each.shares.values(), each.missing])
    for each in found.numeric.values():
        assert np.isnan(each.mean).all() or (each.deviation >= 0).all()
    # nothing else is changed: a count below zero takes nothing from the others
    bound, sums = norm_bound(shape_of(study)), np.zeros(rows.shape[1])
    sums[-2:] = -3, 5
    found = read_statistics(sums / bound / 4, records=4, study=shape_of(study))
    assert found.target.tolist() == pytest.approx([0, 5])


def test_where_nearly_all_have_a_gap_there_is_no_mean():
    study = study_of(features={"a": {"min": 0, "max": 1}})
    raw = {"a": np.full(3, np.nan), "y": np.array([0, 1, 1])}
    found = read_statistics(vectors_of(study, raw).mean(axis=0), records=3, study=shape_of(study))
    assert found.numeric["a"].missing == pytest.approx(1)
    assert np.isnan(found.numeric["a"].mean).all()


@pytest.mark.parametrize(
    ("size", "records", "message"), [(16, 4, "holds no statistics of 17"), (17, 0, "of 0"), (17, math.inf, "of inf")]
)
def test_what_cannot_be_read_is_refused(size, records, message):
    with pytest.raises(InputError, match=message):
        read_statistics(np.zeros(size), records=records, study=shape_of(study_of()))
