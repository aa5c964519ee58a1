"""Waiting until every site has agreed to a study and is in no other, before anybody charges anything for it."""

import time
from collections.abc import Callable, Iterable, Mapping

from fedsci.config.plan import Plan
from fedsci.coordinator.turns import Claim, Turns
from fedsci.errors import ConnectionFailed, InputError, PolicyRefused, SiteFailed
from fedsci.names import SiteId
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Reply, Request

PENDING = "waits for its operator's approval"
SILENT = "does not answer"
_PASSING = ("silent", "transport")  # the site, or the way to it, is away for now
_LONGEST_POLL_S = 15.0
_LOOK_S = 0.2


def await_turn(
    link: SiteLink,
    plan: Plan,
    claim: Claim,
    turns: Turns,
    *,
    patience_s: float,
    tell: Callable[[Mapping[SiteId, str]], None],
    pause: Callable[[float], None],
) -> None:
    """Return when every site would let the study in and is in no other; until it gives them back, they are its own.

    Who had to wait for a site asks all of them again: approvals expire, and are for one run.

    Args:
        link: to the sites, all discovered.
        plan: what they are asked for.
        claim: the study, as the others see it.
        turns: who runs, and who is next.
        patience_s: how long to wait for decisions; not for sites to be free.
        tell: told for whom the study waits, and why.
        pause: waits so many seconds; may raise to end the wait.

    Raises:
        FedsciError: as :func:`await_permission` does.
    """
    while True:
        await_permission(link, plan, busy=lambda: turns.busy(claim), patience_s=patience_s, tell=tell, pause=pause)
        fresh = True
        while not turns.take(claim):
            fresh, away = False, turns.away(claim)
            tell(turns.busy(claim) | away)
            if away:
                break
            pause(_LOOK_S)
        else:
            if fresh or not _undecided(link, plan, plan.sites):
                tell({})
                return
        turns.give_back(claim)


def await_permission(
    link: SiteLink,
    plan: Plan,
    *,
    patience_s: float,
    tell: Callable[[Mapping[SiteId, str]], None],
    pause: Callable[[float], None],
    busy: Callable[[], Mapping[SiteId, str]] = dict,
    poll_s: float = 2.0,
) -> None:
    """Return when every site would let the study in; sites that have not decided are asked again.

    Args:
        link: to the sites, all discovered.
        plan: what they are asked for.
        patience_s: how long to wait for decisions.
        tell: told for whom the study waits, and why.
        pause: waits so many seconds; may raise to end the wait.
        busy: which sites are in another study, and in which; they may be silent for as long as that takes.
        poll_s: how soon to ask again; later less and less often.

    Raises:
        SiteFailed: a site refused; its own exit code says why.
        PolicyRefused: a site did not decide in time.
        ConnectionFailed: a site was away for all that time.
    """
    deadline = time.monotonic() + patience_s
    waiting: Iterable[SiteId] = plan.sites
    elsewhere = busy()
    tell(elsewhere)
    while True:
        undecided = _undecided(link, plan, waiting)
        blamed = {site: why for site, why in undecided.items() if why == PENDING or site not in elsewhere}
        elsewhere = busy()
        tell({**elsewhere, **blamed})
        if not undecided:
            return
        if blamed and time.monotonic() >= deadline:
            names = ", ".join(blamed)
            if set(blamed.values()) == {PENDING}:
                raise PolicyRefused(f"{names} did not decide within {patience_s:g} s", hint="submit the study again")
            raise ConnectionFailed(f"{names} did not answer within {patience_s:g} s", hint="is the site running?")
        waiting = undecided
        pause(poll_s)
        poll_s = min(1.3 * poll_s, _LONGEST_POLL_S)


def _undecided(link: SiteLink, plan: Plan, sites: Iterable[SiteId]) -> dict[SiteId, str]:
    """Ask sites, and return why some of them have not agreed.

    Raises:
        SiteFailed: a site refused.
    """
    fields = {"plan": plan.to_bytes().decode()}
    why = {}
    for site, reply in link.ask({site: Request(action="propose", fields=fields) for site in sites}).items():
        if isinstance(reply, SiteFailed):
            if reply.site_code not in _PASSING:
                raise reply
            why[site] = SILENT
        elif _approval(site, reply) == "pending":
            why[site] = PENDING
    return why


def _approval(site: SiteId, reply: Reply) -> str:
    said = reply.fields.get("approval")
    if said not in ("given", "pending"):
        raise InputError(
            f"{site} answered with facts that make no sense", hint="are all sites on the same version of fedsci?"
        )
    return str(said)
