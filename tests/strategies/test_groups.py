import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.errors import InputError
from fedsci.strategies.base import Survivor, WeightedSum
from fedsci.strategies.groups import Groups

counts, seeds, sites = st.integers(3, 8), st.integers(0, 99), st.integers(3, 40)


def sizes(groups: Groups, sites: int) -> np.ndarray:
    return np.bincount([groups.of(position) for position in range(sites)], minlength=groups.count)


@given(counts, seeds, sites)
def test_sizes_differ_by_one_at_most(count, seed, sites):
    found = sizes(Groups(count=count, seed=seed), sites)
    assert found.sum() == sites
    assert found.max() - found.min() <= 1


@given(counts, seeds, sites, st.integers(0, 5))
def test_the_worst_that_missing_sites_can_do_is_what_is_said(count, seed, sites, missing):
    groups = Groups(count=count, seed=seed)
    assert sizes(groups, sites).min() - missing == groups.smallest(sites=sites, survivors=sites - missing)


def test_the_assignment_is_fixed_by_the_plan():
    # written down once: sites of other versions and platforms must find the same
    assert [Groups(count=3, seed=1).of(position) for position in range(9)] == [2, 1, 0, 0, 1, 2, 0, 2, 1]
    assert [Groups(count=3, seed=2).of(position) for position in range(9)] != [
        Groups(count=3, seed=1).of(position) for position in range(9)
    ]


def test_a_sum_of_blocks_is_the_groups_means_and_nothing_below():
    groups, rng = Groups(count=3, seed=4), np.random.default_rng(1)
    updates = rng.normal(size=(8, 5)).astype(np.float32)
    weights = rng.uniform(0.05, 0.2, 8)
    there = [position for position in range(8) if position != 2]
    total = WeightedSum(
        vector=sum(np.float32(weights[p]) * groups.blocks(updates[p], p) for p in there),
        weight=float(weights[there].sum()),
        survivors=tuple(Survivor(position=p, weight=float(weights[p]), steps=1) for p in there),
    )
    members = [[p for p in there if groups.of(p) == group] for group in range(3)]
    expected = [np.average(updates[m], axis=0, weights=weights[m]) for m in members]
    assert groups.means(total) == pytest.approx(np.array(expected), rel=1e-4, abs=1e-5)
    assert total.vector.shape == (15,)


def test_a_group_without_survivors_has_no_mean():
    groups = Groups(count=3, seed=0)
    total = WeightedSum(
        vector=groups.blocks(np.ones(2, np.float32), 1),
        weight=1.0,
        survivors=(Survivor(position=1, weight=1.0, steps=1),),
    )
    assert groups.means(total).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("count", [-1, 0, 1, 2])
def test_of_two_groups_nobody_knows_the_bad_one(count):
    with pytest.raises(InputError, match="too few: a majority needs 3"):
        Groups(count=count, seed=0)
