"""One study's share of the roster, and the setup that a batch of its rounds runs under."""

from dataclasses import dataclass, replace
from functools import cached_property

from fedsci.errors import ProtocolError
from fedsci.secagg.keys import tagged_hash
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import require_profile
from fedsci.secagg.ring import RingSpec, check_headroom, sum_bound
from fedsci.secagg.roster import Roster, decode_terms, encode_terms
from fedsci.secagg.terms import LARGEST_COMPLETE, Terms, default_terms
from fedsci.secagg.wire import Reader, ascending, blob, malformed, number, numbers, opening

SETUP_KIND = 2
_LIMIT = 1 << 21


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """The sites of one study with the study's own terms; every site checks it before it signs anything.

    Attributes:
        members: rising roster indices.
        terms: threshold, corrupt and min_survivors of this cohort.
        ring_bits: width of the ring.
        site_bound: largest magnitude of one site's integer coordinates.
        sum_bound: largest magnitude of the sum's; at most ``2**(ring_bits-1) - 1``. Without noise it is
            ``site_bound * n``; with noise the plan may prove less (``ring.noisy_sum_bound``).
        plan_digest: SHA-256 of the study's plan: model, privacy and quantisation parameters.
    """

    members: tuple[int, ...]
    terms: Terms
    ring_bits: int
    site_bound: int
    sum_bound: int
    plan_digest: bytes

    def __post_init__(self) -> None:
        ascending(self.members)
        if len(self.plan_digest) != 32:
            malformed("a plan digest is not 32 bytes")
        self.terms.check(len(self.members))
        check_headroom(self.ring, self.sum_bound)
        if not 0 < self.site_bound <= self.sum_bound:
            raise ProtocolError("a site may not pass the bound of the sum", rule="ring-headroom")

    @property
    def ring(self) -> RingSpec:
        """The ring of every vector."""
        return RingSpec(bits=self.ring_bits)

    @property
    def sparse(self) -> bool:
        """Whether masks and shares go to neighbours only, and votes are asked for even if nobody drops."""
        return len(self.members) > LARGEST_COMPLETE

    def check_within(self, roster: Roster) -> None:
        """Refuse a cohort that names unknown sites or is laxer than the roster allows."""
        for member in self.members:
            roster.site(member)
        if self.terms.min_survivors < roster.smallest_cohort:
            raise ProtocolError(
                f"min_survivors {self.terms.min_survivors} is below the roster's {roster.smallest_cohort}",
                rule="cohort-too-small",
            )
        if self.ring_bits < roster.ring_bits:
            raise ProtocolError("the cohort's ring is narrower than the roster's", rule="ring-bits")

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        bounds = number(self.ring_bits, 1) + number(self.site_bound, 8) + number(self.sum_bound, 8)
        return encode_terms(self.terms) + bounds + self.plan_digest + numbers(self.members)

    @classmethod
    def read(cls, reader: Reader) -> "Cohort":
        """Read what :meth:`encode` wrote."""
        terms, bits, site, total = decode_terms(reader), reader.number(1), reader.number(8), reader.number(8)
        return cls(
            terms=terms,
            ring_bits=bits,
            site_bound=site,
            sum_bound=total,
            plan_digest=reader.take(32),
            members=reader.numbers(),
        )


def choose_cohort(
    roster: Roster,
    *,
    members: tuple[int, ...] | None = None,
    terms: Terms | None = None,
    ring_bits: int | None = None,
    site_bound: int,
    total_bound: int | None = None,
    plan_digest: bytes = bytes(32),
) -> Cohort:
    """Return a cohort within the roster; unstated parts default to the whole roster and its terms.

    A proper subset gets :func:`~fedsci.secagg.terms.default_terms` of its own size, and at least the roster's
    ``smallest_cohort`` survivors.
    """
    chosen = roster.indices if members is None else tuple(sorted(members))
    if terms is None and chosen == roster.indices:
        terms = roster.terms
    elif terms is None:
        terms = default_terms(len(chosen))
        terms = replace(terms, min_survivors=max(terms.min_survivors, roster.smallest_cohort))
    cohort = Cohort(
        members=chosen,
        terms=terms,
        ring_bits=roster.ring_bits if ring_bits is None else ring_bits,
        site_bound=site_bound,
        sum_bound=sum_bound(site_bound=site_bound, sites=len(chosen)) if total_bound is None else total_bound,
        plan_digest=plan_digest,
    )
    cohort.check_within(roster)
    return cohort


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What every site must agree on before a batch: roster, cohort, run and batch number.

    Attributes:
        run: 32 bytes that name the study's run; chosen once, never reused.
        batch: counts the setups of a run from 0.
    """

    roster: Roster
    cohort: Cohort
    run: bytes
    batch: int

    def __post_init__(self) -> None:
        if len(self.run) != 32:
            malformed("a run is not named by 32 bytes")
        self.cohort.check_within(self.roster)

    @property
    def profile(self) -> Profile:
        """The roster's crypto profile."""
        return self.roster.profile

    @cached_property
    def context(self) -> bytes:
        """SHA-256 over all of it: in every message, every signature, and the salt of every derived key."""
        parts = (self.roster.digest, self.cohort.encode(), self.run, number(self.batch, 4))
        return tagged_hash("setup", *parts)

    def verification_key(self, index: int) -> bytes:
        """Return the signature key of a member of the cohort; refuses others."""
        if index not in self.cohort.members:
            raise ProtocolError(f"site index {index} is not in the cohort", rule="unknown-site")
        return self.roster.site(index).verification_key

    def encode(self) -> bytes:
        """Return bytes that :meth:`decode` reads; the roster's signature was checked when it was opened."""
        tail = self.run + number(self.batch, 4) + self.cohort.encode()
        return opening(SETUP_KIND, self.profile) + blob(self.roster.encode()) + tail

    @classmethod
    def decode(cls, content: bytes) -> "Setup":
        """Return the setup in ``content``."""
        reader = Reader(content, limit=_LIMIT)
        profile = reader.opening(SETUP_KIND)
        roster, run, batch = Roster.decode(reader.blob()), reader.take(32), reader.number(4)
        cohort = Cohort.read(reader)
        reader.end()
        require_profile(roster.profile, profile, "a setup's roster")
        return cls(roster=roster, cohort=cohort, run=run, batch=batch)
