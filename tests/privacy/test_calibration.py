import time

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from fedsci.errors import InputError
from fedsci.privacy.accounting import epsilon
from fedsci.privacy.calibration import (
    calibrate_noise_multiplier,
    charged_plan,
    epsilon_of,
    gaussian_delta,
)
from fedsci.privacy.events import GaussianEvent, PoissonGaussianEvent

USUAL = {"delta": 1e-5, "steps": 60, "dimension": 650}


@pytest.mark.slow
@settings(deadline=None, max_examples=12)
@given(
    st.floats(0.2, 10),
    st.sampled_from([1.0, 0.5, 0.1, 0.02]),
    st.integers(1, 300),
    st.sampled_from([1e-4, 1e-6]),
    st.integers(1, 10**6),
)
def test_the_noise_suffices_and_the_next_smaller_does_not(target, rate, steps, delta, dimension):
    study = {"delta": delta, "sample_rate": rate, "steps": steps, "dimension": dimension}
    try:
        noise = calibrate_noise_multiplier(epsilon=target, **study)
    except InputError as refused:
        if "would raise the sensitivity" in refused.message:
            reject()
        raise
    assert float(f"{noise:.3e}") == noise
    assert epsilon_of(noise_multiplier=noise, **study) <= target
    below = noise * (1 - 1.01e-3) if f"{noise:.3e}".startswith("1.000") else float(f"{noise * (1 - 5e-5):.3e}")
    if below == noise:
        below = noise * 0.999
    assert epsilon_of(noise_multiplier=below, **study) > target


@pytest.mark.slow
@settings(deadline=None, max_examples=10)
@given(st.floats(0.3, 8), st.floats(1.1, 3), st.integers(1, 100))
def test_a_stricter_study_needs_more_noise(target, more, steps):
    study = {"delta": 1e-5, "sample_rate": 1.0, "dimension": 100}
    base = calibrate_noise_multiplier(epsilon=target, steps=steps, **study)
    assert calibrate_noise_multiplier(epsilon=target * more, steps=steps, **study) <= base
    assert calibrate_noise_multiplier(epsilon=target, steps=2 * steps, **study) >= base
    assert calibrate_noise_multiplier(epsilon=target, steps=steps, **study | {"delta": 1e-6}) >= base


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "rate", "noise"), [(1, 1.0, 28.91), (3, 1.0, 10.78), (1, 0.1, 3.158), (8, 0.1, 0.8337)]
)
def test_known_settings(target, rate, noise):
    # From an independent bisection on the same accountant; the analytic Gaussian gives 28.91 and 10.78 too.
    found = calibrate_noise_multiplier(epsilon=target, sample_rate=rate, **USUAL)
    assert found == pytest.approx(noise, rel=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1.0, 0.1])
def test_calibration_is_quick(rate):
    epsilon_of(noise_multiplier=1.0, sample_rate=rate, **USUAL)  # dp_accounting is slow to import
    start = time.process_time()
    calibrate_noise_multiplier(epsilon=2.345, sample_rate=rate, **USUAL)
    assert time.process_time() - start < 4


def test_everything_the_mechanism_costs_is_charged():
    plan = charged_plan(noise_multiplier=1.0, sample_rate=1.0, steps=5, dimension=10**8)
    assert plan.events[0].event.noise_multiplier < 1 - 3e-4
    assert plan.events[0].count == 5
    whole = epsilon_of(noise_multiplier=1.0, delta=1e-5, sample_rate=1.0, steps=5, dimension=10**8)
    assert whole > epsilon(charged_plan(noise_multiplier=1.0, sample_rate=1.0, steps=5, dimension=1), delta=1e-5)


def test_the_event_says_whether_records_were_sampled():
    sampled, everyone = (
        charged_plan(noise_multiplier=1.0, sample_rate=rate, steps=1, dimension=1).events[0].event
        for rate in (0.5, 1.0)
    )
    assert isinstance(sampled, PoissonGaussianEvent)
    assert isinstance(everyone, GaussianEvent)


def test_next_to_no_noise_proves_nothing():
    value = epsilon_of(noise_multiplier=0.1, delta=1e-5, sample_rate=1.0, steps=1, dimension=10)
    assert value == float("inf")


def test_the_exact_delta_of_a_gaussian():
    # Balle and Wang 2018, theorem 8, by hand at epsilon 0: 2 Phi(1 / 2 z) - 1.
    assert gaussian_delta(1.0, 0.0) == pytest.approx(0.3829249225480263, rel=1e-12)
    assert gaussian_delta(1.0, 1.0) == pytest.approx(0.12693673750664395, rel=1e-12)


GOOD = {"epsilon": 1.0, "delta": 1e-5, "sample_rate": 1.0, "steps": 3, "dimension": 10}


@pytest.mark.parametrize(
    "wrong",
    [
        *({"epsilon": value} for value in (0.0, -1.0, float("nan"), float("inf"))),
        *({"delta": value} for value in (0.0, 1.0, -1e-5, float("nan"))),
        *({"sample_rate": value} for value in (0.0, 1.01, -1.0, float("nan"))),
        *({"steps": value} for value in (0, -1, 1.5, True)),
        {"dimension": -1},
    ],
)
def test_settings_without_meaning_are_refused(wrong):
    with pytest.raises(InputError):
        calibrate_noise_multiplier(**GOOD | wrong)


def test_an_epsilon_out_of_reach_is_refused():
    with pytest.raises(InputError):
        calibrate_noise_multiplier(**GOOD | {"epsilon": 1e-7, "dimension": 10**8})
