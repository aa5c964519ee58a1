"""How long sites take, where that is known: what buffers and steps by speed rest on."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

from fedsci.config.plan import Plan
from fedsci.errors import InputError
from fedsci.names import SiteId
from fedsci.transport.link import SiteLink


@runtime_checkable
class Clock(Protocol):
    """A link that keeps time. So far one: that of simulations with weather, whose time is virtual."""

    def finished(self, sites: Collection[SiteId], *, count: int, round_number: int) -> tuple[SiteId, ...]:
        """Wait until ``count`` of these sites have finished what they began, and return all that have by then.

        Sites that cannot be reached in this round are neither waited for nor returned. Where fewer than ``count`` are
        left, all of them are waited for.
        """
        ...

    def records_per_s(self, site: SiteId) -> float | None:
        """Return how many records go through a local step in a second at this site; None: no time is reckoned."""
        ...

    def line_s(self, site: SiteId) -> float:
        """Return the least time that a round's model and update took on this site's line; 0 before the first round."""
        ...


def require_clock(link: SiteLink, plan: Plan) -> None:
    """Pass if the link keeps time, or the plan does not need it; before any site is asked for anything.

    Raises:
        InputError: it does not.
    """
    if not isinstance(link, Clock):
        refuse_without_clock(plan)


def refuse_without_clock(plan: Plan) -> None:
    """Pass if the plan works where nobody knows how long sites take.

    Raises:
        InputError: it does not.
    """
    if plan.needs_clock is not None:
        raise InputError(
            f"{plan.needs_clock}, and nothing here knows how long they take",
            hint="give the simulation's labs a weather: fedsci run STUDY --weather FILE (or: --weather uneven)",
        )


def steps_by_speed(plan: Plan, records: Mapping[str, Sequence[int]], clock: Clock) -> dict[SiteId, int]:
    """Return every site's local steps in the next round, so that all finish at about the same time; at least one.

    That is when the slowest has taken one step, since it is waited for anyway, or when the first has taken all of its
    own, if that is later. With the plan's most steps ``q_i``, ``t_i`` seconds a step and ``l_i`` seconds on its line,
    site i takes ``floor((T - l_i) / t_i)`` steps and at most ``q_i``, where ``T = max(max_j (l_j + t_j), min_j (l_j +
    q_j t_j))``. A site whose computing takes no time takes all of its steps.

    Li et al. 2023, FedCompass (arXiv 2309.14675), assigns steps in the same spirit, as replies come in.
    """
    most = {site: plan.local_steps(records[site][0]) for site in plan.sites}
    seconds = {
        site: min(plan.training.batch_size, records[site][0]) / speed
        for site in plan.sites
        if (speed := clock.records_per_s(site)) is not None
    }
    if not seconds:
        return most
    lines = {site: clock.line_s(site) for site in seconds}
    soonest = min(lines[site] + most[site] * seconds[site] for site in seconds)
    time = max(soonest, *(lines[site] + seconds[site] for site in seconds))
    fitting = {site: int((time - lines[site]) / seconds[site] * (1 + 1e-9)) for site in seconds}
    return {site: max(1, min(most[site], fitting.get(site, most[site]))) for site in plan.sites}
