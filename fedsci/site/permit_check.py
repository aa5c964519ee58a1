"""What is asked, compared with what a site permitted, field by field, before any data is touched.

Every difference has a refusal of its own, which names the field; what is permitted and what is asked are public.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from fedsci.audit.statement import open_statement
from fedsci.config.plan import Plan
from fedsci.config.site import Policy, Site
from fedsci.errors import VerificationFailed
from fedsci.site.keystore import Keystore
from fedsci.site.ledger import Ledger
from fedsci.site.permit import KIND, Permit, PermitRefused, Terms, first_sent, permit_in, seconds_of, vector_digest
from fedsci.strategies.base import Vector

_WORDS = {
    "site": "another site's permit",
    "study": "a permit for another study",
    "plan": "a permit for another plan",
    "rounds": "another number of rounds",
    "initial_model": "another initial model",
    "fedsci": "another version of fedsci than runs here; restart the site after an update",
    "software": "other software than runs here; restart the site after an update",
    "epsilon": "another ceiling",
    "delta": "another ceiling",
    "min_cohort": "another smallest sum",
    "coordinator": "a permit for another consortium",
    "safety_critical": "another number of signers",
}
_AGAIN = "the operator looks again: fedsci site pending SITE_FILE"


@dataclass(frozen=True, kw_only=True)
class Signatories:
    """Who must have signed.

    Attributes:
        site: the site's public key.
        second: the public keys of those who may sign beside it, by name.
    """

    site: bytes
    second: Mapping[str, bytes]


def signatories(site: Site, keystore: Keystore) -> Signatories:
    """Return who must sign this site's permits."""
    return Signatories(site=keystore.signing_key().public, second=second_signers(site.policy))


def second_signers(policy: Policy | None) -> dict[str, bytes]:
    """Return the public keys of those who may sign beside the site."""
    return {name: bytes.fromhex(key) for name, key in policy.second_signers.items()} if policy is not None else {}


def check_permit(content: bytes, terms: Terms, *, who: Signatories, nonce: str, now: float, starts: bool) -> Permit:
    """Return the permit, if it is signed by all who must and every field but those of data and ledger is as asked.

    Args:
        content: the envelope.
        terms: what is asked.
        who: who must have signed.
        nonce: of the permit that was decided on.
        now: UTC seconds.
        starts: whether the study is about to start; one that was let in is over only when the permit ends.

    Raises:
        PermitRefused: names the first field that does not fit.
    """
    _check_signed(content, who.site, terms.site)
    permit = permit_in(content)
    for one in fields(Terms):
        allowed, asked = getattr(permit, one.name), getattr(terms, one.name)
        if allowed != asked:
            what = f"permitted is {_short(allowed)}, asked is {_short(asked)} ({_WORDS[one.name]})"
            raise PermitRefused(one.name, f"permit: {one.name}: {what}", hint=_AGAIN)
    _check_signers(content, permit, who)
    if permit.nonce != nonce:
        raise PermitRefused("nonce", "permit: nonce: this is not the permit that was decided on", hint=_AGAIN)
    _check_time(permit, now=now, starts=starts)
    return permit


def check_held(permit: Permit, ledger: Ledger, *, record: str | None, content: Callable[[], str]) -> None:
    """Pass if the site's ledger goes on from where it was, and its data set is the one that was permitted.

    Args:
        permit: as :func:`check_permit` returned it.
        ledger: the site's.
        record: digest of the data set's record now.
        content: returns what the data set holds now, as a permit says it; called last, since it reads the data.

    Raises:
        PermitRefused: names the field.
        BudgetRefused: the ledger cannot be trusted.
    """
    number = ledger.number_of(permit.ledger_head)
    if number is None:
        raise PermitRefused(
            "ledger_head",
            "permit: ledger_head: the site's ledger lacks the entry it was signed at",
            hint=_AGAIN,
        )
    if number != permit.ledger_entries:
        what = f"the entry it was signed at is number {number}, not {permit.ledger_entries}"
        raise PermitRefused("ledger_entries", f"permit: ledger_entries: {what}", hint=_AGAIN)
    if permit.record != record:
        what = f"permitted is {_short(permit.record)}, the data set's is {_short(record)}"
        raise PermitRefused("record", f"permit: record: {what}", hint=_AGAIN)
    if permit.content != content():
        raise PermitRefused(
            "content", "permit: content: the data set is not what it was when the permit was signed", hint=_AGAIN
        )


def check_round(permit: Permit, *, now: float, number: int | None = None) -> None:
    """Pass if the permit still lets the site compute, in this round if there is one.

    Raises:
        PermitRefused: ``rounds`` or ``not_after``.
    """
    if number is not None and number > permit.rounds:
        raise PermitRefused("rounds", f"permit: rounds: round {number} is beyond the {permit.rounds} permitted")
    _check_time(permit, now=now, starts=False)


def check_first(plan: Plan, received: Vector, permit: Permit) -> None:
    """Pass if a first round starts from the initial model that was permitted.

    Raises:
        PermitRefused: ``initial_model``: it starts from another.
    """
    if vector_digest(received) != first_sent(plan):
        what = f"the study does not start from the model that was permitted, {_short(permit.initial_model)}"
        raise PermitRefused("initial_model", f"permit: initial_model: {what}")


def _check_signed(content: bytes, key: bytes, name: str) -> None:
    try:
        open_statement(KIND, content, [key])
    except VerificationFailed as error:
        raise PermitRefused(
            "signature", f"permit: signature: {name} has not signed this: {error.message}", hint=_AGAIN
        ) from None


def _check_signers(content: bytes, permit: Permit, who: Signatories) -> None:
    """Pass if the site and, where the study is safety-critical, another person with a key of her own have signed."""
    named = permit.signers
    if named[0] != permit.site or len(named) != (2 if permit.safety_critical else 1):
        needed = "the site and a second signer" if permit.safety_critical else "the site alone"
        raise PermitRefused("signers", f"permit: signers: named are {', '.join(named)}, needed: {needed}", hint=_AGAIN)
    if not permit.safety_critical:
        return
    key = who.second.get(named[1])
    if key is None:
        raise PermitRefused(
            "signers",
            f"permit: signers: {named[1]} is no second signer of this site",
            hint="policy.second_signers in the site file names them",
        )
    if key == who.site:
        raise PermitRefused(
            "signers",
            f"permit: signers: {named[1]} signs with the site's own key, and one key is one signer",
            hint="a second person makes a key: fedsci site signer SITE_FILE NAME --key FILE",
        )
    _check_signed(content, key, named[1])


def _check_time(permit: Permit, *, now: float, starts: bool) -> None:
    if starts and now < seconds_of(permit.not_before):
        raise PermitRefused("not_before", f"permit: not_before: it is valid from {permit.not_before} on")
    if starts and now >= seconds_of(permit.start_by):
        raise PermitRefused("start_by", f"permit: start_by: the study had to start before {permit.start_by}")
    if now >= seconds_of(permit.not_after):
        raise PermitRefused("not_after", f"permit: not_after: it ended at {permit.not_after}")


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text[:19] + "…" if len(text) > 40 else text
