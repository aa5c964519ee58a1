import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import GaussianAccountant, PRVAccountant, RDPAccountant

from fedsci.errors import InputError
from fedsci.privacy.accounting import delta, epsilon, gaussian_delta, rdp_curve
from fedsci.privacy.events import Composition, GaussianEvent, LaplaceEvent, Plan, PoissonGaussianEvent

# Opacus warns that its own accountants are loose or experimental; that is what is being compared.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:opacus")

DELTA = 1e-5


def gaussian(noise, count=1):
    return Composition(event=GaussianEvent(noise_multiplier=noise), count=count)


def sampled(rate, noise, count):
    return Composition(event=PoissonGaussianEvent(sample_rate=rate, noise_multiplier=noise), count=count)


def laplace(noise, count=1):
    return Composition(event=LaplaceEvent(noise_multiplier=noise), count=count)


def plan(*parts):
    return Plan(events=parts)


def opacus(accountant, *history):
    accountant.history = list(history)
    return accountant


CASES = [(0.1, 1.0, 60), (0.05, 1.0, 600), (0.01, 5.0, 1000), (0.2, 3.0, 300), (0.5, 4.0, 30)]


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "noise", "steps"), CASES)
def test_pld_agrees_with_opacus_prv(rate, noise, steps):
    ours = epsilon(plan(sampled(rate, noise, steps)), delta=DELTA)
    theirs = opacus(PRVAccountant(), (noise, rate, steps)).get_epsilon(DELTA, eps_error=0.01)
    # PRV reports an upper bound at most eps_error too high; ours is at most 1 % too high.
    assert theirs - 0.02 <= ours <= theirs * 1.01


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # Opacus takes log(1 - rate)
@pytest.mark.parametrize(("noise", "steps"), [(10.78, 60), (28.91, 60), (3.0, 1), (0.8, 4)])
def test_unsampled_gaussians_agree_with_opacus(noise, steps):
    """PRV to its own error of 0.01, RDP from above and within 20 %: it loses that much in the conversion."""
    ours = epsilon(plan(gaussian(noise, steps)), delta=DELTA)
    theirs = opacus(PRVAccountant(), (noise, 1.0, steps)).get_epsilon(DELTA, eps_error=0.01)
    assert theirs - 0.02 <= ours <= theirs * 1.01
    loose = opacus(RDPAccountant(), (noise, 1.0, steps)).get_epsilon(DELTA)
    assert ours <= loose <= 1.2 * ours


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_a_mixed_plan_agrees_with_opacus():
    mixed = plan(gaussian(12.0, 20), sampled(0.1, 1.5, 60), sampled(0.02, 0.9, 200))
    history = [(12.0, 1.0, 20), (1.5, 0.1, 60), (0.9, 0.02, 200)]
    ours = epsilon(mixed, delta=DELTA)
    theirs = opacus(PRVAccountant(), *history).get_epsilon(DELTA, eps_error=0.01)
    assert theirs - 0.02 <= ours <= theirs * 1.01
    assert ours <= opacus(RDPAccountant(), *history).get_epsilon(DELTA)
    # forgetting any part would be seen
    for left_out in range(3):
        fewer = Plan(events=tuple(part for i, part in enumerate(mixed.events) if i != left_out))
        assert epsilon(fewer, delta=DELTA) < theirs - 0.02


@pytest.mark.parametrize("delta", [1e-5, 1e-9, 1e-12, 1e-14])
def test_pld_stays_an_upper_bound_for_tiny_deltas(delta):
    """Curves are composed by Fourier transforms, whose errors could pass for probability; far below, it is infinite."""
    from mpmath import exp, mpf, ncdf

    for noises, count in (((10.0, 10.1), 30), ((5.0, 5.1, 5.2), 10)):
        value = epsilon(plan(*(gaussian(noise, count) for noise in noises)), delta=delta)
        z, e = 1 / mpf(sum(count / noise**2 for noise in noises)) ** 0.5, mpf(value)  # the one Gaussian they make
        assert ncdf(1 / (2 * z) - e * z) - exp(e) * ncdf(-1 / (2 * z) - e * z) <= delta
    assert epsilon(plan(gaussian(10.0, 30), sampled(0.5, 10.1, 30)), delta=1e-18) == math.inf


@pytest.mark.parametrize(("rate", "noise", "steps"), CASES)
def test_pld_is_below_opacus_rdp(rate, noise, steps):
    ours = epsilon(plan(sampled(rate, noise, steps)), delta=DELTA)
    assert ours <= opacus(RDPAccountant(), (noise, rate, steps)).get_epsilon(DELTA)


@pytest.mark.parametrize(("rate", "noise", "steps"), [*CASES, (1.0, 20.0, 60)])
def test_the_renyi_curve_is_that_of_opacus(rate, noise, steps):
    from opacus.accountants.analysis.rdp import compute_rdp

    orders = [2, 4, 8, 20, 64]
    theirs = compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=orders)
    assert rdp_curve(plan(sampled(rate, noise, steps)), orders) == pytest.approx(theirs, rel=1e-9)


def test_the_closed_form_is_that_of_dp_accounting():
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    theirs = RdpAccountant([3, 7]).compose(dp_accounting.GaussianDpEvent(2.5), 11).rdp
    assert rdp_curve(plan(gaussian(2.5, 11)), [3, 7]) == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("noise", [0.5, 1.0, 5.0, 20.0])
def test_a_gaussian_costs_what_balle_and_wang_say(noise):
    value = epsilon(plan(gaussian(noise)), delta=DELTA)
    assert gaussian_delta(noise, value) <= DELTA
    assert gaussian_delta(noise, value * 0.995) > DELTA


def test_sampling_everyone_is_a_plain_gaussian():
    assert epsilon(plan(sampled(1.0, 2.0, 9)), delta=DELTA) == epsilon(plan(gaussian(2.0, 9)), delta=DELTA)
    assert rdp_curve(plan(sampled(1.0, 2.0, 9)), [5]) == rdp_curve(plan(gaussian(2.0, 9)), [5])


def test_laplace_costs_at_most_the_inverse_of_its_scale():
    assert epsilon(plan(laplace(2.0)), delta=1e-9) == pytest.approx(0.5, abs=2e-3)
    assert epsilon(plan(laplace(2.0, 4)), delta=1e-9) <= 2.0 + 1e-2


def test_events_of_different_kinds_compose():
    mixed = plan(gaussian(4.0, 5), sampled(0.1, 1.5, 20), laplace(10.0))
    parts = [epsilon(plan(part), delta=DELTA / 3) for part in mixed.events]
    assert max(parts) < epsilon(mixed, delta=DELTA) < sum(parts)


def test_order_and_grouping_do_not_matter():
    one = plan(gaussian(3.0, 2), laplace(5.0), gaussian(3.0, 2))
    two = plan(laplace(5.0), gaussian(3.0, 4))
    assert epsilon(one, delta=DELTA) == epsilon(two, delta=DELTA)


def test_nothing_costs_nothing():
    assert epsilon(plan(), delta=DELTA) == 0
    assert rdp_curve(plan(), [2, 3]).tolist() == [0, 0]


@pytest.mark.parametrize("event", [gaussian(0.0), sampled(0.1, 0.0, 2), laplace(0.0)])
def test_no_noise_costs_everything(event):
    assert epsilon(plan(gaussian(5.0), event), delta=DELTA) == math.inf
    assert np.isinf(rdp_curve(plan(gaussian(5.0), event), [2])).all()


@pytest.mark.slow
def test_an_enormous_epsilon_is_found_quickly():
    # Balle and Wang: (1 / z^2) / 2 + 4.27 / z and a little.
    assert epsilon(plan(gaussian(0.01)), delta=DELTA) == pytest.approx(5424, rel=2e-3)
    assert epsilon(plan(sampled(0.5, 0.01, 10)), delta=DELTA) > 5000


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(st.floats(0.7, 20), st.floats(0.01, 1), st.integers(1, 200), st.floats(1.05, 2))
def test_less_noise_more_steps_and_larger_samples_cost_more(noise, rate, steps, more):
    base = epsilon(plan(sampled(rate, noise, steps)), delta=DELTA)
    slack = 1e-9 + base * 0.01  # the grid rounds up by as much
    assert epsilon(plan(sampled(rate, noise / more, steps)), delta=DELTA) >= base - slack
    assert epsilon(plan(sampled(min(1.0, rate * more), noise, steps)), delta=DELTA) >= base - slack
    assert epsilon(plan(sampled(rate, noise, math.ceil(steps * more))), delta=DELTA) >= base - slack
    assert epsilon(plan(sampled(rate, noise, steps)), delta=DELTA / more) >= base - slack


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan, 2.0])
def test_a_delta_that_is_no_probability_is_refused(delta):
    with pytest.raises(InputError, match="delta"):
        epsilon(plan(gaussian(1.0)), delta=delta)


@pytest.mark.parametrize("orders", [[], [1.0], [0.5, 2], [math.inf], [math.nan]])
def test_orders_without_meaning_are_refused(orders):
    with pytest.raises(InputError, match="order"):
        rdp_curve(plan(gaussian(1.0)), orders)


class TestTraps:
    """Mistakes seen in real code, as numbers."""

    def test_a_fresh_accountant_each_round_reports_3_44_for_11_02(self):
        def by_rdp(steps):
            return opacus(RDPAccountant(), (1.0, 0.1, steps)).get_epsilon(DELTA)

        assert (by_rdp(10), by_rdp(200)) == (pytest.approx(3.44, abs=0.01), pytest.approx(11.02, abs=0.01))
        one_round = epsilon(plan(sampled(0.1, 1.0, 10)), delta=DELTA)
        whole = epsilon(plan(*[sampled(0.1, 1.0, 10)] * 20), delta=DELTA)
        assert whole == epsilon(plan(sampled(0.1, 1.0, 200)), delta=DELTA)
        assert whole > 3 * one_round
        assert 9.5 < whole <= 11.02

    def test_a_known_batch_order_costs_37_6_where_poisson_costs_8_3(self):
        assert epsilon(plan(sampled(0.05, 1.0, 600)), delta=DELTA) == pytest.approx(8.3, abs=0.05)
        assert epsilon(plan(gaussian(1.0, 30)), delta=DELTA) == pytest.approx(37.6, abs=0.1)

    def test_one_epsilon_for_all_sites_hides_the_smallest_sites_larger_rate(self):
        large, small = (epsilon(plan(sampled(64 / records, 1.0, 100)), delta=DELTA) for records in (6400, 640))
        assert small > 3 * large

    def test_the_central_limit_accountant_is_too_low(self):
        truth = epsilon(plan(sampled(0.01, 0.6, 1000)), delta=DELTA)
        assert opacus(GaussianAccountant(), (0.6, 0.01, 1000)).get_epsilon(DELTA) < 0.9 * truth


@pytest.mark.parametrize("part", [gaussian(2.0, 20), sampled(0.1, 2.0, 20), laplace(3.0, 5)])
def test_delta_at_epsilon_undoes_epsilon_at_delta(part):
    value = epsilon(plan(part), delta=DELTA)
    assert delta(plan(part), epsilon=0.0) > delta(plan(part), epsilon=value / 2) > DELTA
    assert delta(plan(part), epsilon=value * 0.99) > DELTA >= delta(plan(part), epsilon=value * 1.01)


def test_delta_of_gaussians_is_that_of_one_with_less_noise():
    assert delta(plan(gaussian(6.0, 9)), epsilon=0.7) == pytest.approx(gaussian_delta(2.0, 0.7), rel=1e-12)


def test_delta_where_nothing_or_everything_is_released():
    assert delta(plan(), epsilon=1.0) == 0.0
    assert delta(plan(gaussian(0.0)), epsilon=5.0) == 1.0
    with pytest.raises(InputError):
        delta(plan(), epsilon=-1.0)


@given(st.lists(st.tuples(st.floats(2.0, 50.0), st.integers(1, 20)), min_size=2, max_size=4))
@settings(max_examples=10, deadline=None)
def test_gaussians_of_different_noise_cost_what_one_of_their_precision_costs(parts):
    precision = sum(count / noise**2 for noise, count in parts)
    together = epsilon(plan(*(gaussian(noise, count) for noise, count in parts)), delta=DELTA)
    assert together == pytest.approx(epsilon(plan(gaussian(precision**-0.5)), delta=DELTA), rel=1e-9)
    assert epsilon(plan(gaussian(0.0), *(gaussian(noise) for noise, _ in parts)), delta=DELTA) == math.inf
