"""Waiting until every site has agreed to a study, before anybody charges anything for it."""

import time
from collections.abc import Callable, Mapping

from fedsci.config.plan import Plan
from fedsci.errors import ConnectionFailed, InputError, PolicyRefused, SiteFailed
from fedsci.names import SiteId
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Reply, Request

PENDING = "waits for its operator's approval"
_PASSING = ("silent", "transport")  # the site, or the way to it, is away for now


def await_permission(
    link: SiteLink,
    plan: Plan,
    *,
    patience_s: float,
    tell: Callable[[Mapping[SiteId, str]], None],
    pause: Callable[[float], None],
    poll_s: float = 2.0,
) -> None:
    """Return when every site would let the study in; sites that have not decided are asked again.

    Args:
        link: to the sites, all discovered.
        plan: what they are asked for.
        patience_s: how long to wait for decisions.
        tell: told for whom the study waits, whenever that changes.
        pause: waits so many seconds; may raise to end the wait.
        poll_s: how often to ask.

    Raises:
        SiteFailed: a site refused; its own exit code says why.
        PolicyRefused: a site did not decide in time.
        ConnectionFailed: a site was away for all that time.
    """
    deadline = time.monotonic() + patience_s
    fields = {"plan": plan.to_bytes().decode()}
    waiting: dict[SiteId, str] = dict.fromkeys(plan.sites, "")
    shown: dict[SiteId, str] = {}
    while True:
        replies = link.ask({site: Request(action="propose", fields=fields) for site in waiting})
        waiting = {}
        for site, reply in replies.items():
            if isinstance(reply, SiteFailed):
                if reply.site_code not in _PASSING:
                    raise reply
                waiting[site] = "does not answer"
            elif _approval(site, reply) == "pending":
                waiting[site] = PENDING
        if waiting != shown:
            tell(waiting)
            shown = dict(waiting)
        if not waiting:
            return
        if time.monotonic() >= deadline:
            names = ", ".join(waiting)
            if set(waiting.values()) == {PENDING}:
                raise PolicyRefused(f"{names} did not decide within {patience_s:g} s", hint="submit the study again")
            raise ConnectionFailed(f"{names} did not answer within {patience_s:g} s", hint="is the site running?")
        pause(poll_s)


def _approval(site: SiteId, reply: Reply) -> str:
    said = reply.fields.get("approval")
    if said not in ("given", "pending"):
        raise InputError(
            f"{site} answered with facts that make no sense", hint="are all sites on the same version of fedsci?"
        )
    return str(said)
