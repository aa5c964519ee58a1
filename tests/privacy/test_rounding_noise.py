import math
from collections import Counter

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

from fedsci.errors import InputError
from fedsci.privacy import rounding_noise
from fedsci.privacy.calibration import calibrate_charged_noise
from fedsci.privacy.discrete_gaussian import poisson_summation_error
from fedsci.privacy.rounding_noise import charged_noise_multiplier, grid_step, release_distance, round_and_noise

STUDY = {"clipping_norm": 1.0, "dimension": 650, "deviation": 8.0, "sites": 10}


@pytest.fixture(autouse=True)
def _high_precision():
    with mpmath.workdps(70):
        yield


def discrete_gaussian(centre, deviation, reach=40):
    """Exact probabilities, as a dictionary."""
    middle = int(mpmath.floor(centre))
    span = range(middle - int(reach * deviation), middle + int(reach * deviation) + 1)
    weights = {k: mpmath.exp(-((k - centre) ** 2) / (2 * mpf(deviation) ** 2)) for k in span}
    total = mpmath.fsum(weights.values())
    return {k: weight / total for k, weight in weights.items()}


def distance(one, two):
    return mpmath.fsum(abs(one.get(k, 0) - two.get(k, 0)) for k in one.keys() | two.keys()) / 2


def weights_of(tables, table):
    """What a table draws from, read back from its slots and leftovers."""
    slots = tables.slots.reshape(-1, 1 << tables.table_bits)[: tables.leftover[table], table]
    whole, before, weights = Counter(slots.tolist()), 0, {}
    for i, total in enumerate(tables.rest[table]):
        k = tables.first + i
        weights[k] = (whole[k] << (128 - tables.slot_bits)) + total - before
        before = total
    assert sum(weights.values()) == 2**128
    return weights


class TestProof:
    """The claims of the module's docstring, in high precision."""

    @pytest.mark.parametrize("centre", [0, 1, 77_777, 131_072, 262_143])
    def test_the_tables_draw_the_promised_distribution(self, centre):
        """Every probability of an output with this 18-bit centre, from the tables' integers themselves."""
        tables = rounding_noise._tables(2.5)
        drawn = Counter()
        for step, fine in weights_of(tables.fine, centre & 511).items():
            t = (centre >> 9) + step
            for k, whole in weights_of(tables.whole, t & 511).items():
                drawn[(t >> 9) + k] += fine * whole
        exact = discrete_gaussian(mpf(centre) / 2**18, 2.5)
        got = {k: mpf(weight) / mpf(2) ** 256 for k, weight in drawn.items()}
        assert distance(got, exact) < release_distance(dimension=1, deviation=2.5, sites=1)
        assert distance(got, exact) < 1e-32
        assert distance(got, discrete_gaussian(mpf(centre) / 2**18, mpf("2.500001"))) > 1e-8
        assert distance(got, discrete_gaussian(mpf(centre + 1) / 2**18, 2.5)) > 1e-7

    def test_sites_sum_to_a_discrete_gaussian(self):
        deviation, centres = mpf(2), [mpf("0.3"), mpf("-1.71")]
        one, two = (discrete_gaussian(c, deviation, reach=25) for c in centres)
        total = Counter()
        for j, p in one.items():
            for k, q in two.items():
                total[j + k] += p * q
        exact = discrete_gaussian(sum(centres), deviation * mpmath.sqrt(2), reach=25)
        error = mpf(poisson_summation_error(float(deviation) / math.sqrt(2)))
        assert distance(total, exact) <= 2 * error / (1 - error)
        assert error < mpf("1.5e-17")  # 2 exp(-pi^2 s^2)

    @pytest.mark.parametrize("order", [mpf("1.5"), 2, 8, 64])
    @pytest.mark.parametrize("shift", [mpf("0.01"), mpf("0.37"), mpf("1.5")])
    def test_the_renyi_divergence_is_the_gaussians(self, order, shift):
        deviation = mpf("1.5")
        one, two = discrete_gaussian(shift, deviation, 120), discrete_gaussian(mpf(0), deviation, 120)
        divergence = mpmath.log(mpmath.fsum(one[k] ** order * two[k] ** (1 - order) for k in one.keys() & two.keys()))
        gaussian = order * shift**2 / (2 * deviation**2)
        error = mpf(poisson_summation_error(1.5))
        assert abs(divergence / (order - 1) - gaussian) <= 2 * order / (order - 1) * error * (1 + 2 * error)

    @pytest.mark.slow
    def test_a_rounded_continuous_gaussian_is_discrete(self):
        """The bridge to PLD: Gaussian of deviation sqrt(S^2 - r^2), then a discrete one of deviation r."""
        wide, rounding, centre = mpf(3), mpf("1.75"), mpf("0.4")
        narrow = mpmath.sqrt(wide**2 - rounding**2)
        mpmath.mp.dps = 30

        def near(y):
            return range(int(y) - 21, int(y) + 22)

        def density(y, k):
            normaliser = mpmath.fsum(mpmath.exp(-((j - y) ** 2) / (2 * rounding**2)) for j in near(y))
            return mpmath.npdf(y, centre, narrow) * mpmath.exp(-((k - y) ** 2) / (2 * rounding**2)) / normaliser

        exact = discrete_gaussian(centre, wide)
        for k in (0, 3):
            got = mpmath.quad(lambda y, k=k: density(y, k), mpmath.linspace(-26, 26, 14))
            assert abs(got / exact[k] - 1) < mpf("5e-26") + 3 * poisson_summation_error(1.75)


class TestCharge:
    @settings(deadline=None)
    @given(st.floats(0.05, 20), st.floats(1e-3, 1e3), st.integers(0, 10**5), st.floats(4, 64), st.integers(1, 50))
    def test_the_grid_step_buys_exactly_the_noise(self, noise_multiplier, clipping_norm, dimension, deviation, sites):
        study = {"clipping_norm": clipping_norm, "dimension": dimension, "deviation": deviation, "sites": sites}
        try:
            gamma = grid_step(noise_multiplier=noise_multiplier, **study)
        except InputError:
            return
        charged = charged_noise_multiplier(gamma=gamma, **study)
        assert noise_multiplier * (1 - 1e-15) <= charged <= noise_multiplier * (1 + 1e-14)
        # The noise in the sum, in units of C, is larger by what rounding and truncation cost.
        assert deviation * math.sqrt(sites) * gamma / clipping_norm >= noise_multiplier

    def test_known_numbers(self):
        gamma = grid_step(noise_multiplier=1.0, **STUDY)
        assert gamma == pytest.approx(1 / math.sqrt(640 - 1.75**2), rel=1e-4)
        assert 8 * math.sqrt(10) * gamma == pytest.approx(1.0024, abs=1e-4)

    def test_colluding_sites_do_not_count(self):
        gamma = grid_step(noise_multiplier=1.0, **STUDY)
        assert charged_noise_multiplier(gamma=gamma, **STUDY | {"sites": 8}) == pytest.approx(0.894, abs=1e-3)

    def test_a_release_is_close_to_its_mechanism(self):
        assert 0 < release_distance(dimension=10**7, deviation=8.0, sites=17) < 1e-18
        assert release_distance(dimension=1, deviation=8.0, sites=17) > 1e-27

    def test_from_epsilon_to_grid_step(self):
        per_step = release_distance(dimension=650, deviation=8.0, sites=10)
        noise = calibrate_charged_noise(epsilon=3, delta=1e-5, sample_rate=1, steps=60, distance=per_step)
        assert noise == pytest.approx(10.78, abs=0.01)
        assert charged_noise_multiplier(gamma=grid_step(noise_multiplier=noise, **STUDY), **STUDY) >= noise * (
            1 - 1e-15
        )

    def test_a_grid_too_coarse_for_the_dimension_is_refused(self):
        for noise in (20.0, 1e6):
            with pytest.raises(InputError, match="sensitivity"):
                grid_step(noise_multiplier=noise, **STUDY | {"dimension": 10**8})
        with pytest.raises(InputError, match="sensitivity"):
            charged_noise_multiplier(gamma=1.0, **STUDY | {"dimension": 10**8})

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.floats(-1e4, 1e4), st.floats(-1, 1)), min_size=1, max_size=40))
    def test_truncated_neighbours_stay_within_the_charged_sensitivity(self, pairs):
        one = np.array([a for a, _ in pairs])
        two = one + np.array([b for _, b in pairs])
        moved = np.linalg.norm(np.trunc(one * 2**18) - np.trunc(two * 2**18))
        assert moved <= (np.linalg.norm(one - two) * 2**18 + 1.125 * math.sqrt(len(pairs))) * (1 + 1e-12)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"noise_multiplier": 0.0},
            {"noise_multiplier": math.nan},
            {"clipping_norm": 0.0},
            {"dimension": -1},
            {"dimension": 1.5},
            {"deviation": 2.0},
            {"deviation": math.nan},
            {"sites": 0},
            {"sites": 1.5},
        ],
    )
    def test_settings_without_meaning_are_refused(self, wrong):
        with pytest.raises(InputError):
            grid_step(**{"noise_multiplier": 1.0} | STUDY | wrong)


class TestRounding:
    def test_outputs_are_whole_and_near(self, keystream):
        values = np.array([-1000.25, -3.0, 0.0, 0.4, 77.7, 5000.0, 1e6])
        drawn = round_and_noise(values, gamma=0.5, deviation=8.0, keystream=keystream)
        assert drawn.dtype == np.int64
        assert (np.abs(drawn - values / 0.5) < 13.5 * 8).all()

    def test_small_and_large_centres_go_the_same_way(self, seeded):
        """32-bit and 64-bit arithmetic draw the same noise for the same randomness and fraction."""
        values = np.linspace(0, 30, 5000)
        narrow = round_and_noise(values, gamma=1.0, deviation=8.0, keystream=seeded("x"))
        wide = round_and_noise(values + 2**20, gamma=1.0, deviation=8.0, keystream=seeded("x"))
        assert np.array_equal(narrow, wide - 2**20)

    def test_chunks_are_joined(self, keystream):
        values = np.arange(2 * (1 << 16) + 5) / 100
        drawn = round_and_noise(values, gamma=1.0, deviation=4.0, keystream=keystream)
        assert (np.abs(drawn - values) < 13.5 * 4).all()
        assert np.std(drawn - values) == pytest.approx(4.0, rel=0.01)

    def test_the_output_can_be_given(self, seeded):
        values, out = np.ones(100), np.zeros(100, dtype=np.int64)
        drawn = round_and_noise(values, gamma=1.0, deviation=8.0, keystream=seeded("x"), out=out)
        assert drawn is out
        assert np.array_equal(out, round_and_noise(values, gamma=1.0, deviation=8.0, keystream=seeded("x")))

    @pytest.mark.slow
    def test_wide_noise_uses_wider_tables(self, keystream):
        drawn = round_and_noise(np.zeros(20_000), gamma=1.0, deviation=64.0, keystream=keystream)
        assert np.std(drawn) == pytest.approx(64, rel=0.03)

    def test_nothing_in_nothing_out(self, keystream):
        assert round_and_noise(np.zeros(0), gamma=1.0, deviation=8.0, keystream=keystream).shape == (0,)

    @pytest.mark.parametrize("damage", [np.nan, np.inf, -np.inf, 1.5e308, -1.5e308, 2.0**32])
    def test_a_damaged_sum_is_refused_without_showing_it(self, damage, keystream):
        values = np.array([0.0, damage])
        with pytest.raises(InputError) as caught:
            round_and_noise(values, gamma=1.0, deviation=8.0, keystream=keystream)
        assert "1.5e" not in caught.value.message

    def test_the_largest_centre_is_rounded(self, keystream):
        values = np.array([-1.0, 1.0]) * (rounding_noise.LARGEST_CENTRE - 1) * 0.3
        drawn = round_and_noise(values, gamma=0.3, deviation=64.0, keystream=keystream)
        assert (np.abs(drawn - values / 0.3) < 13.5 * 64).all()

    @pytest.mark.parametrize("wrong", [{"gamma": 0.0}, {"gamma": math.nan}, {"gamma": 1e-300}, {"deviation": 65.0}])
    def test_wrong_parameters_are_refused(self, wrong, keystream):
        with pytest.raises(InputError):
            round_and_noise(np.zeros(2), **{"gamma": 1.0, "deviation": 8.0, "keystream": keystream} | wrong)

    @pytest.mark.parametrize("values", [np.zeros((2, 2)), np.zeros(2, dtype=np.float32)])
    def test_only_float64_vectors_are_taken(self, values, keystream):
        with pytest.raises(InputError, match="float64 vector"):
            round_and_noise(values, gamma=1.0, deviation=8.0, keystream=keystream)

    @pytest.mark.parametrize("out", [np.zeros(3, dtype=np.int64), np.zeros(2, dtype=np.int32)])
    def test_the_output_must_fit(self, out, keystream):
        with pytest.raises(InputError, match="output"):
            round_and_noise(np.zeros(2), gamma=1.0, deviation=8.0, keystream=keystream, out=out)
