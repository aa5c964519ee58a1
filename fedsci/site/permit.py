"""The permit: what a site signs that it will run, as a statement that others can check.

It names one plan, the software, the starting model and the data that go with it, the privacy it may cost, and for how
long it holds. :mod:`fedsci.site.permit_check` compares it with what is asked; :mod:`fedsci.site.permits` keeps it.
"""

import hmac
import re
import secrets
import time
from calendar import timegm
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from fedsci import names
from fedsci.audit.software import software
from fedsci.audit.statement import peek, sign_statement
from fedsci.config.plan import Plan
from fedsci.config.site import Site
from fedsci.errors import PolicyRefused
from fedsci.names import Digest
from fedsci.secagg import SigningKey
from fedsci.site.keystore import Keystore
from fedsci.training.learner import module_for
from fedsci.training.models import initial_vector
from fedsci.training.schema import schema_of

KIND = "permit"
VERSION = 1
#: How long a study may go on here unless the operator says otherwise, counted from when it must have started.
RUN_DAYS = 90.0
#: How soon a study must start that no person is asked for: the permit is made as it starts.
AUTO_HOURS = 1.0
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_CACHED = 64


class PermitRefused(PolicyRefused):
    """The permit does not allow what is asked; ``field`` names the first thing in it that does not fit."""

    def __init__(self, field: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint, public=message)
        self.field = field


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a study asks of a site, as far as it is known before the site's data is touched.

    Attributes:
        site: who lets it in.
        study: its name.
        plan: digest of the fused plan.
        rounds: how many are asked.
        initial_model: digest of the vector from which training starts, float32 little-endian.
        fedsci, software: version and digest of what runs at the site, see :class:`fedsci.audit.software.Software`.
        epsilon, delta: the most that the study may cost one unit of the site's data; None without privacy.
        min_cohort: the fewest sites that any sum which is opened stands for.
        coordinator: the consortium's public key that the site has pinned, hexadecimal; None where it has none.
        safety_critical: whether a second person signs.
    """

    site: str
    study: str
    plan: str
    rounds: int
    initial_model: str
    fedsci: str
    software: str
    epsilon: float | None
    delta: float | None
    min_cohort: int
    coordinator: str | None
    safety_critical: bool


@dataclass(frozen=True, kw_only=True)
class Permit(Terms):
    """What is signed.

    Attributes:
        version: of this format.
        not_before, start_by, not_after: the study may start from ``not_before`` until ``start_by``, and compute until
            ``not_after``; UTC, as ``2026-05-03T10:00:00Z``.
        record: digest of the data set's record; None where it has none.
        content: what the data set holds, under a secret of the site: HMAC-SHA-256. A plain digest of a small data set
            would let others try out what is in it.
        ledger_entries, ledger_head: number and hash of the last entry of the site's ledger at signing.
        nonce: 128 random bits, so that no two permits are alike.
        signers: the site, and the second signer's name where there is one.
    """

    version: int = VERSION
    not_before: str
    start_by: str
    not_after: str
    record: str | None
    content: str
    ledger_entries: int
    ledger_head: str
    nonce: str
    signers: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the body of the statement."""
        return asdict(self) | {"signers": list(self.signers)}


@dataclass(frozen=True, kw_only=True)
class Held:
    """What of a site's own state goes into a permit: its data, and how far its ledger has come.

    Attributes are those of :class:`Permit`.
    """

    record: str | None
    content: str
    ledger_entries: int
    ledger_head: str


def terms_of(plan: Plan, site: Site, keystore: Keystore) -> Terms:
    """Return what the plan asks of this site."""
    runs, privacy = software(), plan.study.privacy
    return Terms(
        site=site.site,
        study=plan.study.study,
        plan=plan.digest,
        rounds=plan.training.rounds,
        initial_model=initial_model(plan),
        fedsci=runs.version,
        software=runs.digest,
        epsilon=privacy.epsilon if plan.private else None,
        delta=privacy.delta if plan.private else None,
        min_cohort=min(len(plan.sites), plan.smallest_sum),
        coordinator=_pinned(keystore),
        safety_critical=plan.study.safety_critical,
    )


def commit_content(content: Digest, keystore: Keystore) -> str:
    """Return what a permit says of a data set's content: only who has the site's secret can compare it with data."""
    message = b"fedsci permit content\0" + content.encode()
    return "hmac-sha256:" + hmac.digest(keystore.commitment_key(), message, "sha256").hex()


def make_permit(
    terms: Terms,
    held: Held,
    *,
    now: float,
    second: str | None,
    start_hours: float,
    run_days: float = RUN_DAYS,
) -> Permit:
    """Return a permit that holds from ``now`` (UTC seconds) on, for a start within ``start_hours``."""
    begin = int(now)
    start_by = begin + round(start_hours * 3600)
    return Permit(
        **asdict(terms),
        **asdict(held),
        not_before=utc(begin),
        start_by=utc(start_by),
        not_after=utc(start_by + round(run_days * 24 * 3600)),
        nonce=secrets.token_hex(16),
        signers=(terms.site,) if second is None else (terms.site, second),
    )


def sign_permit(permit: Permit, keys: Iterable[SigningKey]) -> bytes:
    """Return the envelope."""
    return sign_statement(KIND, permit.to_json(), keys)


def permit_in(content: bytes) -> Permit:
    """Return the permit in an envelope whose signatures nobody has checked here.

    Raises:
        VerificationFailed: it is no statement of ours.
        PermitRefused: it is no permit, or not one of this format.
    """
    kind, body = peek(content)
    if kind != KIND:
        raise PermitRefused("kind", f"this is a {kind}, not a permit")
    return read_permit(body)


def read_permit(body: Mapping[str, Any]) -> Permit:
    """Return the permit with this body.

    Raises:
        PermitRefused: a field is missing, not known, or of another type.
    """
    if body.get("version") != VERSION or type(body.get("version")) is not int:
        raise PermitRefused("version", f"permit: version {body.get('version')!r:.40} is not known, this site reads 1")
    known = {one.name for one in fields(Permit)}
    for name in sorted(known ^ set(body)):
        raise PermitRefused(name, f"permit: {name:.40} is {'missing' if name in known else 'not a field of a permit'}")
    for name, right in _RIGHT.items():
        if not right(body[name]):
            raise PermitRefused(name, f"permit: {name} is {body[name]!r:.80}, which it cannot be")
    return Permit(**{**body, "signers": tuple(body["signers"])})


def initial_model(plan: Plan) -> Digest:
    """Return the digest of the vector from which the study starts."""
    return _starts(plan)[0]


def first_sent(plan: Plan) -> Digest:
    """Return the digest of what sites are sent in the first round: the initial model, as the strategy sends it."""
    return _starts(plan)[1]


def utc(seconds: float) -> str:
    """Return UTC seconds as text, whole seconds."""
    return time.strftime(_TIME, time.gmtime(seconds))


def seconds_of(text: str) -> int:
    """Return the UTC seconds that :func:`utc` wrote.

    Raises:
        ValueError: it did not write this.
    """
    seconds = timegm(time.strptime(text, _TIME))
    if utc(seconds) != text:
        raise ValueError(text)
    return seconds


_computed: dict[Digest, tuple[Digest, Digest]] = {}


def _starts(plan: Plan) -> tuple[Digest, Digest]:
    """Return both digests; computed once a plan, since simulated sites of one process all ask."""
    digest = plan.digest
    if digest not in _computed:
        model = initial_vector(module_for(plan, inputs=schema_of(plan.study).width), seed=plan.study.seed)
        strategy = plan.strategy
        sent = strategy.sends(strategy.start(model))
        if len(_computed) >= _CACHED:
            _computed.clear()
        _computed[digest] = vector_digest(model), vector_digest(sent)
    return _computed[digest]


def vector_digest(vector: "np.typing.NDArray[np.float32]") -> Digest:
    """Return the SHA-256 of a vector's numbers, float32 little-endian."""
    return names.digest(np.ascontiguousarray(vector, "<f4").tobytes())


def _pinned(keystore: Keystore) -> str | None:
    try:
        return keystore.consortium_key().hex()
    except PolicyRefused:  # labs that are simulated in the clear belong to no consortium
        return None


def _text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 1024


def _nonce(value: Any) -> bool:
    return _text(value) and re.fullmatch("[0-9a-f]{32}", value) is not None  # it is a file's name, too


def _text_or_none(value: Any) -> bool:
    return value is None or _text(value)


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _positive_or_none(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and value > 0)


def _flag(value: Any) -> bool:
    return type(value) is bool


def _time(value: Any) -> bool:
    try:
        seconds_of(value)
    except (ValueError, TypeError):
        return False
    return True


def _names(value: Any) -> bool:
    return isinstance(value, list | tuple) and 1 <= len(value) <= 2 and all(map(_text, value))


_RIGHT = {
    **dict.fromkeys(("site", "study", "plan", "initial_model", "fedsci", "software", "content"), _text),
    "ledger_head": _text,
    "nonce": _nonce,
    **dict.fromkeys(("coordinator", "record"), _text_or_none),
    **dict.fromkeys(("rounds", "min_cohort", "ledger_entries"), _count),
    **dict.fromkeys(("epsilon", "delta"), _positive_or_none),
    **dict.fromkeys(("not_before", "start_by", "not_after"), _time),
    "safety_critical": _flag,
    "signers": _names,
}
