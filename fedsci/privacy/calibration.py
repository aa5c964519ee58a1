"""The least noise that keeps a study within its epsilon, and the epsilon of a given noise.

:func:`calibrate_noise_multiplier` and :func:`epsilon_of` are for the mechanism of
:mod:`fedsci.privacy.local_noise`, everything it costs included: rounding to the grid and the distance of its
noise from exact. For that of :mod:`fedsci.privacy.rounding_noise` take :func:`calibrate_charged_noise`, then
``rounding_noise.grid_step``. Neighbouring relation: add or remove one record.
"""

import math
from collections.abc import Callable
from typing import Final

from fedsci.errors import InputError
from fedsci.privacy import accounting, local_noise
from fedsci.privacy.accounting import gaussian_delta
from fedsci.privacy.events import Composition, GaussianEvent, Plan, PoissonGaussianEvent
from fedsci.privacy.poisson import check_sample_rate

_DIGITS: Final = 9000  # numbers of 4 significant digits in a decade
_DECADES: Final = range(-3, 6)
_LARGEST_EXPONENT: Final = 700


def gaussian_plan(*, noise_multiplier: float, sample_rate: float, steps: int) -> Plan:
    """Return ``steps`` Gaussian releases with this noise, each over a Poisson sample if the rate is below 1.

    Raises:
        InputError: if a parameter is out of range.
    """
    _check_steps(steps)
    check_sample_rate(sample_rate)
    event = (
        GaussianEvent(noise_multiplier=noise_multiplier)
        if sample_rate == 1
        else PoissonGaussianEvent(sample_rate=sample_rate, noise_multiplier=noise_multiplier)
    )
    return Plan(events=(Composition(event=event, count=steps),))


def charged_plan(*, noise_multiplier: float, sample_rate: float, steps: int, dimension: int) -> Plan:
    """Return the events to charge for ``steps`` releases of :func:`fedsci.privacy.local_noise.noisy_sum`.

    Raises:
        InputError: if a parameter is out of range.
    """
    noise = local_noise.charged_noise_multiplier(dimension, noise_multiplier)
    return gaussian_plan(noise_multiplier=noise, sample_rate=sample_rate, steps=steps)


def epsilon_with_distance(plan: Plan, *, delta: float, distance: float) -> float:
    """Return the PLD epsilon at ``delta`` of releases that are together within ``distance`` of the plan's.

    A mechanism within total variation t of one with (epsilon, delta) has (epsilon, delta + t (1 + e^epsilon)),
    for adding or removing one record. Infinite where nothing can be proven: no noise to speak of, or a delta
    that ``distance`` uses up.

    Raises:
        InputError: if ``delta`` is not in (0, 1).
    """
    # Nearly always a billionth of delta pays for the distance; where it does not, half may.
    for share in (1e-9, 0.5):
        value = accounting.epsilon(plan, delta=delta * (1 - share))
        if value < _LARGEST_EXPONENT and distance * (1 + math.exp(value)) <= delta * share:
            return value
    return math.inf


def epsilon_of(*, noise_multiplier: float, delta: float, sample_rate: float, steps: int, dimension: int) -> float:
    """Return the PLD epsilon of ``steps`` local releases at ``delta``, adding or removing one record.

    Infinite where nothing can be proven: see :func:`epsilon_with_distance`.

    Raises:
        InputError: if a parameter is out of range.
    """
    accounting.check_delta(delta)
    plan = charged_plan(noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps, dimension=dimension)
    return epsilon_with_distance(plan, delta=delta, distance=steps * local_noise.release_distance(dimension))


def calibrate_noise_multiplier(
    *, epsilon: float, delta: float, sample_rate: float, steps: int, dimension: int
) -> float:
    """Return the smallest noise multiplier, to 4 significant digits, that stays within ``epsilon``.

    Epsilon is by PLD, for adding or removing one record, over all ``steps`` local releases together.

    Args:
        epsilon: above 0.
        delta: in (0, 1).
        sample_rate: each record's probability of taking part in a step, in (0, 1].
        steps: how many releases there will be, at least 1.
        dimension: how many values each release holds.

    Raises:
        InputError: if a parameter is out of range, or no noise multiplier below 10^5 suffices.
    """

    def spent(noise_multiplier: float) -> float:
        return epsilon_of(
            noise_multiplier=noise_multiplier, delta=delta, sample_rate=sample_rate, steps=steps, dimension=dimension
        )

    return _calibrate(spent, epsilon=epsilon, delta=delta, sample_rate=sample_rate, steps=steps)


def calibrate_charged_noise(*, epsilon: float, delta: float, sample_rate: float, steps: int, distance: float) -> float:
    """Return the smallest noise multiplier, to 4 significant digits, of a Gaussian event within ``epsilon``.

    For mechanisms that find out from it how much noise to draw. Arguments as in
    :func:`calibrate_noise_multiplier`, but for ``distance``: how far, in total variation, one release is
    from a post-processed Gaussian one.

    Raises:
        InputError: if a parameter is out of range, or no noise multiplier below 10^5 suffices.
    """

    def spent(noise_multiplier: float) -> float:
        plan = gaussian_plan(noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps)
        return epsilon_with_distance(plan, delta=delta, distance=steps * distance)

    return _calibrate(spent, epsilon=epsilon, delta=delta, sample_rate=sample_rate, steps=steps)


def _calibrate(
    spent: Callable[[float], float], *, epsilon: float, delta: float, sample_rate: float, steps: int
) -> float:
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise InputError(f"epsilon {epsilon!r} is not a positive number")
    accounting.check_delta(delta)
    check_sample_rate(sample_rate)
    _check_steps(steps)
    return _smallest_enough(
        lambda noise_multiplier: math.log(max(spent(noise_multiplier), 1e-12) / epsilon),
        _central_limit_noise(epsilon, delta, sample_rate, steps),
    )


def _smallest_enough(excess: Callable[[float], float], guess: float) -> float:
    """Return the smallest number of 4 significant digits where the decreasing ``excess`` is at most zero."""
    low = high = min(max(_index(guess), _index(10.0 ** _DECADES[0])), _index(10.0 ** _DECADES[-1]))
    above = below = excess(_number(low))
    reach = 4
    while above <= 0:
        high, below = low, above
        low = high - reach
        if low < _index(10.0 ** _DECADES[0]):
            return _number(high)
        above, reach = excess(_number(low)), reach * 8
    while below > 0:
        low, above = high, below
        high = low + reach
        if high > _index(10.0 ** _DECADES[-1]):
            raise InputError("no usable noise multiplier reaches this epsilon", hint="raise epsilon or delta")
        below, reach = excess(_number(high)), reach * 8
    halve = False
    while high - low > 1:
        # Regula falsi, and a bisection every other time so that it cannot stall.
        share = 0.5 if halve or not math.isfinite(above) else above / (above - below)
        middle = min(max(low + round(share * (high - low)), low + 1), high - 1)
        value = excess(_number(middle))
        if value > 0:
            low, above = middle, value
        else:
            high, below = middle, value
        halve = not halve and high - low > 8
    return _number(high)


def _index(number: float) -> int:
    """Return the position of the nearest 4-digit number, counted from 1.000."""
    decade = math.floor(math.log10(number))
    return _DIGITS * decade + round(number / 10.0**decade * 1000) - 1000


def _number(index: int) -> float:
    decade, digits = divmod(index, _DIGITS)
    return float(f"{digits + 1000}e{decade - 3}")


def _central_limit_noise(epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """Return a first guess: exact for a sample rate of 1, a central limit below it. Never reported."""
    low, high = 1e-3, 1e6
    for _ in range(60):
        middle = math.sqrt(low * high)
        if gaussian_delta(middle, epsilon) > delta:
            low = middle
        else:
            high = middle
    per_step = 1 / (high * math.sqrt(steps))
    if sample_rate == 1:
        return 1 / per_step
    # Bu, Dong, Long and Su, 2020: mu = q sqrt(T (exp(1 / z^2) - 1)).
    return 1 / math.sqrt(math.log1p((per_step / sample_rate) ** 2))


def _check_steps(steps: int) -> None:
    if type(steps) is not int or steps < 1:
        raise InputError(f"a study needs at least one step, not {steps!r}")
