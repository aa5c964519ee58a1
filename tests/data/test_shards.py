import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.data.shards import shard_indices, take
from fedsci.data.table import RawTable
from fedsci.errors import DataError, InputError

unit = st.floats(0, 1)
labels = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=200).map(
    lambda values: np.array(values, dtype=object)
)


@given(labels, st.integers(1, 20), unit, unit, st.integers(0, 2**64))
def test_every_row_is_in_exactly_one_shard_and_none_is_empty(labels, of, skew, uneven, seed):
    if len(labels) < of:
        with pytest.raises(DataError, match=f"{len(labels)} rows cannot fill {of} labs"):
            shard_indices(labels, of=of, skew=skew, uneven=uneven, seed=seed)
        return
    shards = shard_indices(labels, of=of, skew=skew, uneven=uneven, seed=seed)
    assert len(shards) == of
    assert min(map(len, shards)) >= 1
    assert sorted(np.concatenate(shards).tolist()) == list(range(len(labels)))


def test_sizes_follow_the_ramp():
    even = shard_indices(np.zeros(1000), of=5, skew=0, uneven=0)
    assert [len(shard) for shard in even] == [200] * 5
    ramp = shard_indices(np.zeros(1000), of=5, skew=0, uneven=0.5)
    assert sorted(len(shard) for shard in ramp) == [100, 150, 200, 250, 300]


def mixing(skew):
    """Return the mean over labs of the share of the lab's commonest class, of ten."""
    digits = np.tile(np.arange(10), 100)
    shards = shard_indices(digits, of=10, skew=skew, uneven=0)
    return np.mean([np.bincount(digits[shard]).max() / len(shard) for shard in shards])


def test_skew_separates_the_classes():
    assert mixing(0.0) < 0.25
    assert 0.4 < mixing(0.5) < 0.75
    assert mixing(1.0) == 1.0


@pytest.mark.parametrize("as_label", [float, str])
def test_numeric_targets_are_sorted_by_value_even_as_text(as_label):
    labels = np.array([as_label(value) for value in range(100)], dtype=object)
    for shard in shard_indices(labels, of=4, skew=1, uneven=0):
        assert max(shard) - min(shard) == 24


def test_the_split_is_pinned():
    """Worked by hand from the raw stream of PCG64(7), which numpy keeps fixed across releases.

    Its first 3 numbers order the ramp as [0 2 1]: sizes [2 6 4]. The next 12 order the rows as
    [3 0 9 8 1 7 10 6 11 5 4 2]. Half of each size comes from the first six, sorted by label:
    [3] [0 9 1] [7 8]; the rest from the others: [10] [6 11 5] [4 2].
    """
    shards = shard_indices(np.arange(12) % 3, of=3, skew=0.5, uneven=0.5, seed=7)
    assert [shard.tolist() for shard in shards] == [[3, 10], [0, 1, 5, 6, 9, 11], [2, 4, 7, 8]]


def test_another_seed_is_another_split():
    first, second = (shard_indices(np.zeros(50), of=2, skew=0, uneven=0, seed=seed) for seed in (0, 1))
    assert first[0].tolist() != second[0].tolist()


@pytest.mark.parametrize("wrong", [{"skew": 1.1}, {"skew": float("nan")}, {"uneven": -0.1}, {"of": 0}, {"seed": -1}])
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(InputError):
        shard_indices(np.zeros(10), **({"of": 2, "skew": 0, "uneven": 0} | wrong))


def test_taken_rows_keep_their_ids_and_lines():
    raw = RawTable.from_columns({"x": np.arange(5), "im": np.zeros((5, 2, 2))}, lines=np.arange(10, 15))
    some = take(raw, np.array([1, 4]))
    assert some.columns["x"].tolist() == [1, 4]
    assert some.columns["im"].shape == (2, 2, 2)
    assert (some.row_ids.tolist(), some.row_label(1)) == ([1, 4], "line 14")
