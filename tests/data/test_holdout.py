import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fedsci.data.holdout import record_keys, split_holdout
from fedsci.data.table import RawTable
from fedsci.errors import DataError, InputError

ids = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=20, max_size=60, unique=True)


def sides(row_ids, fraction=0.4, seed=7, site="lab-01"):
    train, holdout = split_holdout(np.array(row_ids, dtype=np.int64), fraction=fraction, seed=seed, site=site)
    assert (train ^ holdout).all()
    return dict(zip(row_ids, holdout.tolist(), strict=True))


@given(ids, st.data())
def test_removing_one_record_moves_no_other(row_ids, data):
    gone = data.draw(st.sampled_from(row_ids))
    try:
        before, after = sides(row_ids), sides([row for row in row_ids if row != gone])
    except DataError:
        assume(False)
    before.pop(gone)
    assert before == after


def test_a_shuffled_split_of_fixed_size_would_move_others():
    def shuffled(rows):
        order = np.random.default_rng(7).permutation(len(rows))
        return {rows[i]: place < len(rows) // 4 for place, i in enumerate(order)}

    before, after = shuffled(list(range(100))), shuffled(list(range(99)))
    assert any(before[row] != after[row] for row in after)


def test_the_fraction_is_the_chance_of_holdout():
    held = sum(sides(range(20_000), fraction=0.25).values())
    # Five standard deviations of a binomial: a right scale fails once in two million, 0.27 nearly always.
    assert abs(held - 5000) < 5 * np.sqrt(20_000 * 0.25 * 0.75)
    wrong = sum(sides(range(20_000), fraction=0.27).values())
    assert abs(wrong - 5000) > 5 * np.sqrt(20_000 * 0.25 * 0.75)


def test_seed_and_site_each_change_the_split():
    rows = range(100)
    assert sides(rows) == sides(rows)
    assert sides(rows) != sides(rows, seed=8)
    assert sides(rows) != sides(rows, site="lab-02")


def test_a_growing_fraction_only_moves_records_into_holdout():
    small, large = sides(range(200), fraction=0.2), sides(range(200), fraction=0.6)
    assert all(large[row] for row in small if small[row])


def test_without_holdout_every_row_trains():
    assert not any(sides(range(3), fraction=0.0).values())


def test_a_side_without_rows_is_refused():
    with pytest.raises(DataError, match=r"lab-01: a holdout of 0\.01 of 2 rows leaves none for holdout"):
        sides(range(2), fraction=0.01)
    with pytest.raises(DataError, match=r"leaves none for training"):
        sides(range(2), fraction=0.9999)
    with pytest.raises(DataError, match="leaves none for training"):
        sides([], fraction=0.0)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(InputError, match="out of range"):
        sides(range(9), fraction=fraction)


def keys(records):
    columns = {"x": np.array([x for x, _ in records]), "y": np.array([y for _, y in records])}
    return sorted(record_keys(RawTable.from_columns(columns)).tolist())


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), min_size=2, max_size=30), st.data())
def test_removing_a_record_from_anywhere_removes_one_key_and_changes_no_other(records, data):
    gone = data.draw(st.integers(0, len(records) - 1))
    before, after = keys(records), keys(records[:gone] + records[gone + 1 :])
    assert len(set(before)) == len(before)
    assert len(set(before) - set(after)) == 1
    assert set(after) <= set(before)


def test_a_key_does_not_depend_on_what_a_study_uses_of_a_record():
    columns = {"x": np.array([1.0, 2.0]), "y": np.array(["a", "b"], dtype=object), "z": np.ones((2, 3))}
    first = record_keys(RawTable.from_columns(columns))
    assert set(first) == set(record_keys(RawTable.from_columns(dict(reversed(columns.items())))))
    assert set(first).isdisjoint(record_keys(RawTable.from_columns({"x": columns["x"], "z": columns["z"]})))


def test_who_lacks_the_secret_cannot_tell_a_records_side():
    rows = np.arange(400)
    _, public = split_holdout(rows, fraction=0.5, seed=1, site="lab-01")
    _, first = split_holdout(rows, fraction=0.5, seed=1, site="lab-01", secret=bytes(32))
    _, second = split_holdout(rows, fraction=0.5, seed=1, site="lab-01", secret=bytes(31) + b"1")
    for other in (public, second):
        assert 120 < (first == other).sum() < 280  # 200 +- 10 by chance
