"""What a plan means for secure aggregation: terms, ring and grid, derived alike by every site and the coordinator."""

import hashlib

from fedsci.config.plan import Plan
from fedsci.errors import ConfigError, ProtocolError
from fedsci.secagg import Cohort, Quantisation, Roster, Setup, Terms, default_terms, plan_quantisation
from fedsci.secagg.profiles import PROFILES, require_profile


def terms_for(plan: Plan) -> Terms:
    """Return threshold, tolerated corrupt sites and min_survivors of the plan's cohort.

    Raises:
        ConfigError: the cohort is too small, ``min_survivors`` is below the threshold that keeps a cheating
            coordinator from opening a single update, or shared noise is to hold against more colluding sites than
            the masks do.
    """
    sites, chosen, smallest = len(plan.sites), plan.min_survivors, plan.smallest_sum
    try:
        usual = default_terms(sites)
        terms = Terms(threshold=usual.threshold, corrupt=min(usual.corrupt, smallest - 2), min_survivors=chosen)
        terms.check(sites)
    except ProtocolError as error:
        least = f"{2 * sites // 3 + 1} of {sites}" if sites > 2 else "3"
        raise ConfigError(
            f"secure aggregation is not possible with {sites} sites and min_survivors {chosen}: {error.message}",
            hint=f"at least {least} sites must finish; secure_aggregation.enabled: false only where policies allow it",
        ) from None
    colluding = plan.study.privacy.colluding_sites
    if plan.study.privacy.mechanism == "distributed" and colluding > terms.corrupt:
        raise ConfigError(
            f"privacy.colluding_sites is {colluding}, but masks hide single sites from at most {terms.corrupt} "
            f"colluding sites of {sites}: more could open one site's sum, with its own share of noise alone",
            hint=f"privacy.colluding_sites: {terms.corrupt} or fewer, more sites, or privacy.mechanism: local",
        )
    return terms


def grid_for(plan: Plan) -> Quantisation:
    """Return the grid on which contributions are summed: the finest that cannot overflow the ring."""
    chosen = plan.study.secure_aggregation
    return plan_quantisation(bound=chosen.bound, sites=len(plan.sites), ring_bits=chosen.ring_bits)


def check_profile(plan: Plan, roster: Roster) -> None:
    """Pass if the consortium is of the crypto profile that the plan asks for, if it asks for one.

    Raises:
        ProtocolError: ``wrong-profile``.
    """
    wanted = plan.study.secure_aggregation.crypto_profile
    if wanted is not None:
        require_profile(roster.profile, PROFILES[wanted], "the consortium's roster")


def setup_for(plan: Plan, roster: Roster, *, run: str, batch: int) -> Setup:
    """Return what the sites of a run must agree on before a batch of slots.

    Raises:
        ProtocolError: the roster lacks a site of the plan, or is stricter than the plan, or is of another crypto
            profile than the plan asks for (``wrong-profile``).
    """
    check_profile(plan, roster)
    by_name = {site.name: site.index for site in roster.sites}
    absent = [name for name in plan.sites if name not in by_name]
    if absent:
        raise ProtocolError(f"{absent[0]} is not in the roster", rule="unknown-site")
    grid = grid_for(plan)
    cohort = Cohort(
        members=tuple(sorted(by_name[name] for name in plan.sites)),
        terms=terms_for(plan),
        ring_bits=grid.ring.bits,
        site_bound=grid.site_bound,
        sum_bound=grid.site_bound * len(plan.sites),
        plan_digest=bytes.fromhex(plan.digest.removeprefix("sha256:")),
    )
    return Setup(roster=roster, cohort=cohort, run=hashlib.sha256(f"fedsci run|{run}".encode()).digest(), batch=batch)


def lying_witnesses(plan: Plan) -> int:
    """Return how many sites may lie as witnesses of the plan's log: as many as may collude against its masks.

    Without masks nobody's secrecy rests on the log, and a plain majority witnesses it.
    """
    return terms_for(plan).corrupt if plan.study.secure_aggregation.enabled else 0
