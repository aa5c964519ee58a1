"""How a study gets its permit: from the operator, with a second signer where it is safety-critical, or by the policy.

The site's process makes one itself under ``policy.approval: auto``; every permit then passes the same comparison, and
is used up before anything is charged.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedsci.audit.statement import add_signature, digest_of
from fedsci.config.plan import Plan
from fedsci.config.site import Site
from fedsci.errors import InputError, PolicyRefused
from fedsci.names import Digest
from fedsci.secagg import SigningKey
from fedsci.site.approvals import APPROVAL_HOURS, Approvals, Asked
from fedsci.site.dataset import content_digest
from fedsci.site.keystore import Keystore
from fedsci.site.ledger import Ledger, open_ledger
from fedsci.site.permit import (
    AUTO_HOURS,
    RUN_DAYS,
    Held,
    Permit,
    PermitRefused,
    commit_content,
    make_permit,
    permit_in,
    sign_permit,
    terms_of,
)
from fedsci.site.permit_check import check_held, check_permit, second_signers, signatories
from fedsci.site.permits import Permits
from fedsci.site.record import record_digest


@dataclass(frozen=True, kw_only=True)
class Given:
    """A permit that fits a study.

    Attributes:
        permit: what was signed.
        envelope: with its signatures.
    """

    permit: Permit
    envelope: bytes

    @property
    def digest(self) -> Digest:
        """The digest of what was signed."""
        return digest_of(self.permit.to_json())


@dataclass(frozen=True, kw_only=True)
class Signed:
    """What a person's signature came to.

    Attributes:
        asked: the plan, and how it stands now.
        permit: what was signed.
        digest: the permit's.
        file: where it lies.
    """

    asked: Asked
    permit: Permit
    digest: Digest
    file: Path


class Permitting:
    """A site's permits, for its process and for its operator's commands.

    Args:
        site: the site's file.
        state: its state folder.
        clock: UTC seconds.
    """

    def __init__(self, site: Site, state: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.site, self._state, self._clock = site, state, clock
        self.approvals, self.permits, self._keystore = Approvals(state, clock=clock), Permits(state), Keystore(state)

    @property
    def now(self) -> float:
        """UTC seconds."""
        return self._clock()

    def needs_word(self, plan: Plan) -> bool:
        """Return whether a person must permit the plan here: safety-critical studies are never let in without."""
        return self.site.policy is None or self.site.policy.approval != "auto" or plan.study.safety_critical

    def find(self, plan: Plan, *, ledger: Ledger, content: Callable[[], Digest]) -> Given:
        """Return the permit that lets the plan start now, every field of it compared; it is not used up yet.

        Args:
            plan: what is asked; it passed the policy.
            ledger: the site's.
            content: the digest of what the data set holds; called last.

        Raises:
            PolicyRefused: nobody permitted it, or PermitRefused: the permit is another's.
            BudgetRefused: the ledger cannot be trusted.
        """
        if self.needs_word(plan):
            asked = self.approvals.given(plan, site=self.site.site)
            envelope, nonce = self.permits.read(asked.permit), asked.nonce
        else:
            held = self._held(plan, ledger.head(), content)
            made = make_permit(
                terms_of(plan, self.site, self._keystore), held, now=self.now, second=None, start_hours=AUTO_HOURS
            )
            envelope, nonce = sign_permit(made, [self._keystore.signing_key()]), made.nonce
        permit = self._check(plan, envelope, nonce=nonce, starts=True)
        self._check_held(permit, plan, ledger, content)
        return Given(permit=permit, envelope=envelope)

    def use(self, given: Given, plan: Plan, run: str) -> None:
        """Use the permit, and the word that it came from, up for this run; durable on return.

        Raises:
            PolicyRefused: it was used before, or the operator has thought otherwise meanwhile.
        """
        self.permits.use(given.permit, run)
        if self.needs_word(plan):
            self.approvals.use(plan, run, site=self.site.site)

    def find_again(self, plan: Plan, run: str, envelope: bytes, *, ledger: Ledger, content: Digest) -> Permit:
        """Return the permit of a run that goes on in a new process, compared as when it began.

        Raises:
            PermitRefused: it does not fit any more.
            BudgetRefused: the ledger cannot be trusted.
        """
        permit = self._check(plan, envelope, nonce=permit_in(envelope).nonce, starts=False)
        self.permits.check_used(permit, run)
        self._check_held(permit, plan, ledger, lambda: content)
        return permit

    def preview(self, plan: Plan) -> Permit:
        """Return what would be signed now; where several may sign beside the site, it names them all.

        Raises:
            InputError: the data set or its file is not there, or nobody may sign beside the site.
            VerificationFailed: the ledger is damaged.
        """
        several = len(second_signers(self.site.policy)) > 1 and plan.study.safety_critical
        second = " or ".join(second_signers(self.site.policy)) if several else self._second(plan, None)
        return self._make(plan, hours=APPROVAL_HOURS, days=RUN_DAYS, second=second)

    def sign(
        self,
        asked: Asked,
        *,
        who: str,
        hours: float = APPROVAL_HOURS,
        days: float = RUN_DAYS,
        second: str | None = None,
    ) -> Signed:
        """Sign a permit with the site's key, for a start within ``hours`` and ``days`` of computing after that.

        Where the study is safety-critical it lets nothing in before ``second`` has signed, too: by default the only one
        who may.

        Raises:
            InputError, VerificationFailed: as :meth:`preview`.
        """
        plan = asked.opened(self.site.policy)
        second = self._second(plan, second)
        permit = self._make(plan, hours=hours, days=days, second=second)
        digest, file = self.permits.keep(sign_permit(permit, [self._keystore.signing_key()]))
        decided = self.approvals.approve(
            asked.digest, who=who, hours=hours, permit=digest, nonce=permit.nonce, second=second or ""
        )
        return Signed(asked=decided, permit=permit, digest=digest, file=file)

    def countersign(self, asked: Asked, key: SigningKey) -> Signed:
        """Add the second signature, with the key of whom the permit names.

        Raises:
            InputError: the site has not signed yet, or needs no second signature.
            PolicyRefused: the key is not that person's, or is the site's own; the permit does not fit any more.
        """
        plan = asked.opened(self.site.policy)
        if not plan.study.safety_critical:
            raise InputError(
                f"{asked.study} is not safety-critical: the site signs alone", hint="approve it without --key"
            )
        if asked.state != "signed":
            done = asked.state == "approved"
            late = f"the permit for {asked.study} has expired" if asked.expired else None
            raise InputError(
                f"{asked.study} has both signatures already"
                if done
                else late or f"the site has not signed {asked.study} yet",
                hint="" if done else f"first: fedsci site approve SITE_FILE {asked.digest[7:19]}",
            )
        if key.public == self._keystore.signing_key().public:
            raise PolicyRefused(
                "this is the site's own key, and one key is one signer", hint="name the second person's with --key"
            )
        known = second_signers(self.site.policy).get(asked.second)
        if key.public != known:
            raise PolicyRefused(
                f"this key ({key.public.hex()[:16]}…) is not {asked.second}'s",
                hint="policy.second_signers in the site file names the keys",
            )
        envelope = add_signature(self.permits.read(asked.permit), key)
        permit = self._check(plan, envelope, nonce=asked.nonce, starts=True)
        digest, file = self.permits.keep(envelope)
        return Signed(asked=self.approvals.countersign(asked), permit=permit, digest=digest, file=file)

    def signed(self, asked: Asked) -> Permit:
        """Return the permit that waits for its second signature."""
        return permit_in(self.permits.read(asked.permit))

    def _check(self, plan: Plan, envelope: bytes, *, nonce: str, starts: bool) -> Permit:
        terms = terms_of(plan, self.site, self._keystore)
        who = signatories(self.site, self._keystore)
        with self._own():
            return check_permit(envelope, terms, who=who, nonce=nonce, now=self.now, starts=starts)

    def _check_held(self, permit: Permit, plan: Plan, ledger: Ledger, content: Callable[[], Digest]) -> None:
        def committed() -> str:
            return commit_content(content(), self._keystore)

        record = record_digest(self.site, plan.study.dataset, self._keystore)
        with self._own():
            check_held(permit, ledger, record=record, content=committed)

    @contextlib.contextmanager
    def _own(self) -> Iterator[None]:
        """Let a refusal say here, not to others, whose it is."""
        try:
            yield
        except PermitRefused as error:
            error.message = f"{self.site.site}: {error.message}"
            raise

    def _make(self, plan: Plan, *, hours: float, days: float, second: str | None) -> Permit:
        dataset = plan.study.dataset
        if dataset not in self.site.datasets:
            raise InputError(
                f"{self.site.site} holds no data set called {dataset!r}",
                hint=f"it holds {', '.join(self.site.datasets)}",
            )
        seen = open_ledger(self.site, self._state).inspect()
        if seen.problem is not None:
            raise seen.problem
        held = self._held(
            plan,
            (seen.books.sequence, seen.books.head),
            lambda: content_digest(self.site, self.site.datasets[dataset]),
        )
        terms = terms_of(plan, self.site, self._keystore)
        return make_permit(terms, held, now=self.now, second=second, start_hours=hours, run_days=days)

    def _held(self, plan: Plan, head: tuple[int, str], content: Callable[[], Digest]) -> Held:
        return Held(
            record=record_digest(self.site, plan.study.dataset, self._keystore),
            content=commit_content(content(), self._keystore),
            ledger_entries=head[0],
            ledger_head=head[1],
        )

    def _second(self, plan: Plan, name: str | None) -> str | None:
        """Return who signs beside the site; None where nobody has to."""
        known = second_signers(self.site.policy)
        if not plan.study.safety_critical:
            if name is not None:
                raise InputError(f"{plan.study.study} is not safety-critical: the site signs alone")
            return None
        if name is None and len(known) == 1:
            (name,) = known
        if name is None or name not in known:
            listed = f"policy.second_signers in the site file names {', '.join(known) or 'nobody'}"
            raise InputError(
                "the study is safety-critical and needs a second signer" if name is None else f"{name} may not sign",
                hint=f"{listed}; name one with --second" if known else f"{listed}; see fedsci site signer --help",
            )
        return name
