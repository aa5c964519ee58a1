"""How far local training goes: the gradients that its steps add up to."""


def step_mass(steps: int, momentum: float) -> float:
    """Return the sum of the coefficients with which a round's gradients enter a site's update.

    Local training is ``v = momentum * v + g; w = w - rate * v`` from v = 0, so gradient j of tau enters
    ``(1 - rho^(tau - j)) / (1 - rho)`` times, and all together ``(tau - rho (1 - rho^tau) / (1 - rho)) / (1 - rho)``
    (Wang et al. 2020, section 3: the L1 norm of a_i). Without momentum it is the number of steps.

    >>> step_mass(3, 0.0), step_mass(2, 0.5)
    (3.0, 2.5)
    """
    return (steps - momentum * (1 - momentum**steps) / (1 - momentum)) / (1 - momentum)
