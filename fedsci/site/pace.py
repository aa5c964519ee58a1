"""How many local steps a site takes in a round: what the plan says, or fewer where the plan lets the round say so."""

from fedsci.config.plan import Plan
from fedsci.errors import PolicyRefused
from fedsci.transport.messages import Request


def steps_in(request: Request, plan: Plan, site: str, *, records: int) -> int:
    """Return this site's steps in the round: at least one, and never more than the plan lets it take.

    All sites are told the same steps of all, and what they are told is bound into their masks.

    Args:
        request: to train.
        plan: the study's plan.
        site: this one.
        records: its public count of training records.

    Raises:
        PolicyRefused: the request says steps where the plan does not let it, or steps that cannot be.
    """
    said, most = request.fields.get("steps"), plan.local_steps(records)
    if not plan.by_speed:
        if said is not None:
            raise _unfit("the round says how many steps to take, and the plan does not let it")
        return most
    if not isinstance(said, dict) or sorted(said) != sorted(plan.sites):
        raise _unfit("the round does not say how many steps each site takes")
    if not all(type(steps) is int and steps >= 1 for steps in said.values()) or said[site] > most:
        raise _unfit(f"a site takes 1 step or more, this one {most} at most: training.local_epochs")
    steps: int = said[site]
    return steps


def _unfit(message: str) -> PolicyRefused:
    return PolicyRefused(message, public=message)
