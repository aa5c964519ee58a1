"""Who may take part: signed by the consortium, pinned at every site.

The coordinator forwards the roster but cannot make one, so it can neither invent sites nor lower a threshold.
"""

from dataclasses import dataclass
from functools import cached_property

from fedsci.errors import InputError, ProtocolError
from fedsci.names import SiteId, site_id
from fedsci.secagg.keys import SigningKey, check_signature, tagged_hash
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import DEFAULT, profile_of_key, profile_of_message, require_profile
from fedsci.secagg.ring import RingSpec
from fedsci.secagg.terms import SMALLEST_COHORT, Terms
from fedsci.secagg.wire import MAGIC, Reader, ascending, blob, malformed, number, opening

ROSTER_KIND = 1
MOST_SITES = 4096
MOST_SLOTS = 256
_LIMIT = 1 << 20
_LABEL = "roster"


@dataclass(frozen=True, kw_only=True)
class RosterSite:
    """One enrolled lab.

    Attributes:
        index: 1 to 65535, never given to another lab; also the point of its Shamir shares.
        name: the lab's name.
        verification_key: of its signatures; its size names the crypto profile.
    """

    index: int
    name: SiteId
    verification_key: bytes


@dataclass(frozen=True, kw_only=True)
class Roster:
    """All enrolled sites and the terms they enrolled under; refuses itself if these do not protect them.

    Attributes:
        serial: rises with every change of the roster.
        sites: by rising index, names and keys all different.
        terms: for a cohort of the whole roster.
        smallest_cohort: no cohort's ``min_survivors`` may be below this.
        batch_slots: ``R``, rounds served by one setup.
        ring_bits: narrowest ring a cohort may use.
        parameters_digest: SHA-256 of the consortium's privacy and quantisation parameters.
    """

    serial: int
    sites: tuple[RosterSite, ...]
    terms: Terms
    smallest_cohort: int = SMALLEST_COHORT
    batch_slots: int = 32
    ring_bits: int = 16
    parameters_digest: bytes = bytes(32)

    def __post_init__(self) -> None:
        ascending(self.indices)
        if len(self.sites) > MOST_SITES:
            malformed(f"a roster of {len(self.sites)} sites passes {MOST_SITES}")
        names = {site.name for site in self.sites}
        keys = {site.verification_key for site in self.sites}
        if len(names) != len(self.sites) or len(keys) != len(self.sites):
            raise ProtocolError("two sites of the roster share a name or a key", rule="duplicate-site")
        if not 1 <= self.batch_slots <= MOST_SLOTS:
            raise ProtocolError(f"a batch of {self.batch_slots} slots is not 1 to {MOST_SLOTS}", rule="batch-slots")
        if any(profile_of_key(key) is None for key in keys) or len(self.parameters_digest) != 32:
            malformed("a key or digest of the roster has a size that none has")
        for key in keys:
            require_profile(profile_of_key(key), self.profile, "a key of the roster")
        if self.smallest_cohort < SMALLEST_COHORT:
            raise ProtocolError(f"cohorts below {SMALLEST_COHORT} protect nobody", rule="cohort-too-small")
        RingSpec(bits=self.ring_bits)
        self.terms.check(len(self.sites))

    @property
    def profile(self) -> Profile:
        """The crypto profile of all keys in it."""
        return (profile_of_key(self.sites[0].verification_key) if self.sites else None) or DEFAULT

    @property
    def indices(self) -> tuple[int, ...]:
        """The sites' indices, rising."""
        return tuple(site.index for site in self.sites)

    @cached_property
    def _by_index(self) -> dict[int, RosterSite]:
        return {site.index: site for site in self.sites}

    def site(self, index: int) -> RosterSite:
        """Return the site with this index; refuses an unknown one."""
        found = self._by_index.get(index)
        if found is None:
            raise ProtocolError(f"site index {index} is not in the roster", rule="unknown-site")
        return found

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over the canonical bytes; what sites pin."""
        return tagged_hash(_LABEL, self.encode())

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        head = opening(ROSTER_KIND, self.profile) + number(self.serial, 8) + encode_terms(self.terms)
        head += number(self.smallest_cohort, 2) + number(self.batch_slots, 2) + number(self.ring_bits, 1)
        sites = b"".join(
            number(site.index, 2) + blob(site.name.encode()) + site.verification_key for site in self.sites
        )
        return head + self.parameters_digest + number(len(self.sites), 2) + sites

    @classmethod
    def decode(cls, content: bytes) -> "Roster":
        """Return the roster in ``content``; its signature is checked by :func:`open_roster`."""
        reader = Reader(content, limit=_LIMIT)
        profile = reader.opening(ROSTER_KIND)
        serial, terms = reader.number(8), decode_terms(reader)
        smallest, slots, bits = reader.number(2), reader.number(2), reader.number(1)
        parameters, count = reader.take(32), reader.number(2)
        sites = tuple(_decode_site(reader, profile) for _ in range(count))
        reader.end()
        return cls(
            serial=serial,
            sites=sites,
            terms=terms,
            smallest_cohort=smallest,
            batch_slots=slots,
            ring_bits=bits,
            parameters_digest=parameters,
        )


def encode_terms(terms: Terms) -> bytes:
    """Return threshold, corrupt and min_survivors, 16 bits each."""
    return number(terms.threshold, 2) + number(terms.corrupt, 2) + number(terms.min_survivors, 2)


def decode_terms(reader: Reader) -> Terms:
    """Read what :func:`encode_terms` wrote."""
    return Terms(threshold=reader.number(2), corrupt=reader.number(2), min_survivors=reader.number(2))


def _decode_site(reader: Reader, profile: Profile) -> RosterSite:
    index, name = reader.number(2), reader.blob()
    try:
        checked = site_id(name.decode("ascii"))
    except (InputError, UnicodeDecodeError):
        malformed("a site's name in the roster is not usable")
    return RosterSite(index=index, name=checked, verification_key=reader.take(profile.verification_bytes))


def sign_roster(roster: Roster, consortium: SigningKey) -> bytes:
    """Return the roster's bytes followed by the consortium's signature.

    Raises:
        ProtocolError: ``wrong-profile``: the consortium's key is of another crypto profile than the sites'.
    """
    require_profile(roster.profile, consortium.profile, "the roster")
    content = roster.encode()
    return content + consortium.sign(_LABEL, content)


def open_roster(signed: bytes, *, consortium_key: bytes) -> Roster:
    """Return the roster that the consortium signed.

    Raises:
        ProtocolError: ``roster-signature`` if the consortium's key did not sign exactly these bytes; ``wrong-profile``
            if they say that they are of another crypto profile than that key.
    """
    wanted, named = profile_of_key(consortium_key) or DEFAULT, profile_of_message(signed, MAGIC)
    if named is not None:
        require_profile(named, wanted, "the roster")
    content, signature = signed[: -wanted.signature_bytes], signed[-wanted.signature_bytes :]
    check_signature(consortium_key, _LABEL, content, signature, rule="roster-signature", who="the consortium")
    return Roster.decode(content)
