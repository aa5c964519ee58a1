"""What the site's operator was asked, and decided: one file a plan, in the state folder.

A decision is for one plan, by its digest: a study that differs in a single number is another plan. An approval names
the permit that was signed with it, and lets one run in, once, until it expires; it never lets in what the policy's
limits forbid. One whose permit lacks its second signature is still a question.
"""

import contextlib
import fcntl
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fedsci.config.plan import Plan
from fedsci.config.plan_checks import plan_from_bytes
from fedsci.config.site import Policy
from fedsci.errors import InputError, PolicyRefused
from fedsci.identity.files import replace_private

APPROVAL_HOURS = 72.0
MOST_PENDING = 100
_PENDING_S = 30 * 24 * 3600.0
_WAITING = ("pending", "signed")
_HINT = "for a simulated lab set policy.approval: auto"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A plan that somebody wants to run here, and what the operator said to it.

    Attributes:
        digest: the plan's.
        study: its name.
        plan: the canonical bytes, as text.
        state: ``pending``, ``signed`` (a second signature is missing), ``approved``, ``refused`` or ``used``.
        since: when it came to this state, UTC seconds.
        until: when an approval expires or, where it waits again, has expired, UTC seconds; else 0.
        who: who decided.
        reason: of a refusal; the coordinator sees it.
        run: the run that an approval was used for.
        permit, nonce: digest and nonce of the permit that was signed with the decision.
        second: who signs it beside the site; empty where nobody has to.
    """

    digest: str
    study: str
    plan: str
    state: str
    since: float
    until: float = 0.0
    who: str = ""
    reason: str = ""
    run: str = ""
    permit: str = ""
    nonce: str = ""
    second: str = ""

    @property
    def waits(self) -> bool:
        """Whether it waits for somebody's word."""
        return self.state in _WAITING

    @property
    def expired(self) -> bool:
        """Whether it was signed, and nothing came of it in time: it waits again."""
        return self.state == "pending" and self.until > 0

    def opened(self, policy: Policy | None) -> Plan:
        """Return the plan; a strategy's module is imported only if the policy names it."""
        return plan_from_bytes(self.plan.encode(), modules=policy.strategies if policy is not None else ())


class Approvals:
    """The operator's decisions, safe to use from the daemon and from commands at once.

    Args:
        state: the site's state folder.
        clock: UTC seconds.
    """

    def __init__(self, state: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = state / "approvals", clock

    def ask(self, plan: Plan) -> str:
        """Return ``given`` if the plan is approved, else note that it waits and return ``pending``.

        Raises:
            PolicyRefused: the operator refused it, or too many plans wait already.
        """
        with self._locked():
            asked = self._read(plan.digest)
            if asked is not None and asked.state == "refused":
                raise _refused(asked)
            if asked is not None and asked.state == "approved":
                return "given"
            if asked is None or not asked.waits:
                if len([one for one in self._all() if one.waits]) >= MOST_PENDING:
                    message = f"{MOST_PENDING} studies wait for the operator already"
                    raise PolicyRefused(message, public=message)
                now = self._clock()
                self._write(
                    Asked(
                        digest=plan.digest,
                        study=plan.study.study,
                        plan=plan.to_bytes().decode(),
                        state="pending",
                        since=now,
                    )
                )
        return "pending"

    def given(self, plan: Plan, *, site: str) -> Asked:
        """Return the approval that lets the plan in.

        Raises:
            PolicyRefused: there is none, it was used or has expired, or the operator refused the plan.
        """
        asked = self._read(plan.digest)
        if asked is not None and asked.state == "refused":
            raise _refused(asked)
        if asked is not None and asked.state == "signed":
            message = f"the permit lacks the signature of its second signer, {asked.second}"
            hint = f"{asked.second} signs: fedsci site approve SITE_FILE STUDY --key FILE"
            raise PolicyRefused(f"{site}: {message}", hint=hint, public=message)
        if asked is None or asked.state != "approved":
            if plan.study.safety_critical:
                message, hint = "a safety-critical study needs the operator's approval and a second signature", ""
            else:
                message, hint = "every study needs the operator's approval (policy.approval: manual)", _HINT
            raise PolicyRefused(f"{site}: {message}", hint=hint, public=message)
        return asked

    def use(self, plan: Plan, run: str, *, site: str) -> None:
        """Use the plan's approval up, durably, for this run.

        Raises:
            PolicyRefused: as :meth:`given`.
        """
        with self._locked():
            self._write(replace(self.given(plan, site=site), state="used", since=self._clock(), run=run))

    def asked(self) -> list[Asked]:
        """Return everything asked and decided that still counts, the oldest first."""
        return sorted(self._all(), key=lambda asked: asked.since)  # files are replaced whole: no lock, nothing written

    def find(self, text: str) -> Asked:
        """Return the plan with this digest, or its first digits, or the study's name.

        Raises:
            InputError: there is none, or several.
        """
        wanted = text.removeprefix("sha256:")
        found = [one for one in self.asked() if one.state != "used"]
        found = [one for one in found if wanted == one.study or (len(wanted) >= 6 and _short(one).startswith(wanted))]
        if len(found) > 1:
            found = [one for one in found if one.waits] or found
        if not found:
            raise InputError(f"no study {text!r} waits here", hint="fedsci site pending SITE_FILE lists them")
        if len(found) > 1:
            digests = ", ".join(_short(one)[:12] for one in found)
            raise InputError(f"{len(found)} plans are called {text!r}", hint=f"name one by its digest: {digests}")
        return found[0]

    def approve(
        self, digest: str, *, who: str, permit: str, nonce: str, second: str = "", hours: float = APPROVAL_HOURS
    ) -> Asked:
        """Let one run of the plan in by this permit, within so many hours, once ``second`` has signed, too.

        Returns:
            The decision.
        """
        now, state = self._clock(), "signed" if second else "approved"
        about: dict[str, object] = {"permit": permit, "nonce": nonce, "second": second}
        return self._decide(digest, state=state, since=now, until=now + hours * 3600, who=who, reason="", **about)

    def countersign(self, asked: Asked) -> Asked:
        """Note that the second signer has signed; return the decision.

        Raises:
            InputError: meanwhile there was another decision.
        """
        with self._locked():
            if self._read(asked.digest) != asked:
                raise InputError(f"{asked.study}: the decision was changed meanwhile", hint="look at it again")
            signed = replace(asked, state="approved")
            self._write(signed)
            return signed

    def refuse(self, digest: str, *, who: str, reason: str) -> Asked:
        """Refuse the plan; the coordinator is told the reason. Return the decision."""
        return self._decide(digest, state="refused", since=self._clock(), until=0.0, who=who, reason=reason)

    def _decide(self, digest: str, **values: object) -> Asked:
        with self._locked():
            asked = self._read(digest)
            if asked is None:
                raise InputError(f"no plan {digest} waits here", hint="fedsci site pending SITE_FILE lists them")
            decided = replace(asked, **values)  # type: ignore[arg-type]
            self._write(decided)
            return decided

    def _read(self, digest: str) -> Asked | None:
        """Return what is known of a plan; an approval that has expired is a question again."""
        path = self._path(digest)
        try:
            asked = Asked(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, RecursionError):
            raise PolicyRefused(
                f"cannot read {path}, so nothing is approved",
                hint="remove the file; the study then asks again",
                public="the operator's decision cannot be read",
            ) from None
        now = self._clock()
        if asked.state == "pending" and now > asked.since + _PENDING_S:
            return None
        if asked.state in ("approved", "signed") and (now >= asked.until or not asked.permit):
            return replace(asked, state="pending", permit="", nonce="", second="")
        return asked

    def _all(self) -> list[Asked]:
        found = [self._read("sha256:" + path.stem) for path in sorted(self._folder.glob("*.json"))]
        return [asked for asked in found if asked is not None]

    def _write(self, asked: Asked) -> None:
        replace_private(self._path(asked.digest), json.dumps(asdict(asked)).encode())

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest.removeprefix('sha256:')}.json"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with (self._folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _refused(asked: Asked) -> PolicyRefused:
    message = "the operator refused this study" + (f": {asked.reason}" if asked.reason else "")
    return PolicyRefused(message, public=message)


def _short(asked: Asked) -> str:
    return asked.digest.removeprefix("sha256:")
