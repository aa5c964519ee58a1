"""A canary adds its clipped gradient to one coordinate, and nothing where the coin kept it out."""

import numpy as np

from fedsci.names import site_id
from fedsci.redteam.canaries import MOST_COLUMNS, Canaries, columns_of, plant

SITES = (site_id("lab-1"), site_id("lab-2"))


def test_a_canary_adds_at_most_the_clipping_norm_on_its_coordinate():
    canaries = Canaries(
        columns=np.array([4, 1, 2]), signs=np.array([1.0, -1.0, 1.0]), present=np.array([True, True, False])
    )
    assert canaries.planted == 2
    total = canaries.sum_of(np.array([0, 1]), size=6, clipping_norm=0.5)
    np.testing.assert_allclose(total, [0, -0.5, 0, 0, 0.5, 0], rtol=2e-5)
    assert np.abs(total).max() <= 0.5


def test_a_canary_that_comes_twice_counts_twice():
    canaries = Canaries(columns=np.array([3]), signs=np.array([1.0]), present=np.array([True]))
    assert canaries.sum_of(np.array([0, 0]), size=5, clipping_norm=1.0)[3] > 1.9


def test_in_a_sum_every_coordinate_has_one_canary_of_one_site():
    dealt = plant(SITES, np.arange(100), np.random.default_rng(1), each=False)
    columns = np.concatenate([one.columns for one in dealt.values()])
    assert sorted(columns) == list(range(100))


def test_of_a_wide_sum_some_coordinates_are_looked_at():
    rng = np.random.default_rng(1)
    assert columns_of(100, rng, most=10**6).tolist() == list(range(100))
    chosen = columns_of(10**6, rng, most=10**6)
    assert len(np.unique(chosen)) == MOST_COLUMNS
    assert len(columns_of(10**6, rng, most=50)) == 50
