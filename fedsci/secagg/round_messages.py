"""The messages of a round; the rules of :mod:`fedsci.secagg.messages` hold here too."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from fedsci.secagg.keys import SigningKey, tagged_hash
from fedsci.secagg.messages import SET_LIMIT, SMALL_LIMIT
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import DEFAULT
from fedsci.secagg.shamir import ELEMENT_BYTES
from fedsci.secagg.wire import Reader, ascending, number, numbers, opening

_HEADER_BYTES = 113  # and the signature
_VOTE_BYTES = 105


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a site signs about the vector it sends in a slot.

    Attributes:
        bind: hash of transcript, slot, cohort, model, configuration and length; equal at all honest sites.
        payload_digest: SHA-256 of the masked vector's bytes: evidence of what this site sent.
        length: coordinates of the vector.
    """

    label: ClassVar[str] = "header"
    forged: ClassVar[str] = "forged-header"
    kind: ClassVar[int] = 7

    context: bytes
    site: int
    slot: int
    bind: bytes
    payload_digest: bytes
    length: int
    profile: Profile = DEFAULT
    signature: bytes = bytes(DEFAULT.signature_bytes)

    def body(self) -> bytes:
        """Return everything before the signature."""
        head = opening(self.kind, self.profile) + self.context + number(self.site, 2) + number(self.slot, 2)
        return head + self.bind + self.payload_digest + number(self.length, 8)

    def signed_by(self, key: SigningKey) -> Self:
        """Return the message in the key's profile, signed by it under its own label."""
        unsigned = replace(self, profile=key.profile)
        return replace(unsigned, signature=key.sign(self.label, unsigned.body()))

    def encode(self) -> bytes:
        """Return the message's bytes: 177 in the default profile."""
        return self.body() + self.signature

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Return the header in ``content``."""
        reader = Reader(content, limit=SMALL_LIMIT)
        profile = reader.opening(cls.kind)
        header = cls(
            context=reader.take(32),
            site=reader.number(2),
            slot=reader.number(2),
            bind=reader.take(32),
            payload_digest=reader.take(32),
            length=reader.number(8),
            profile=profile,
            signature=reader.take(profile.signature_bytes),
        )
        reader.end()
        return header


@dataclass(frozen=True, kw_only=True)
class SurvivorList:
    """The headers of the sites whose vectors are in the sum, by rising site."""

    kind: ClassVar[int] = 8

    context: bytes
    slot: int
    headers: tuple[Header, ...]
    profile: Profile = DEFAULT

    @property
    def survivors(self) -> tuple[int, ...]:
        """The sites, rising."""
        return tuple(header.site for header in self.headers)

    @property
    def digest(self) -> bytes:
        """What votes name: a hash of every header, signatures included."""
        return tagged_hash("survivors", self.context, number(self.slot, 2), *(h.encode() for h in self.headers))

    def encode(self) -> bytes:
        """Return the message's bytes."""
        head = opening(self.kind, self.profile) + self.context + number(self.slot, 2)
        return head + number(len(self.headers), 2) + b"".join(header.encode() for header in self.headers)

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Return the list in ``content``; refuses duplicates and disorder."""
        reader = Reader(content, limit=SET_LIMIT)
        profile = reader.opening(cls.kind)
        context, slot, count = reader.take(32), reader.number(2), reader.number(2)
        size = _HEADER_BYTES + profile.signature_bytes
        headers = tuple(Header.decode(reader.take(size)) for _ in range(count))
        reader.end()
        return cls(context=context, slot=slot, headers=headers, profile=profile)


@dataclass(frozen=True, kw_only=True)
class SurvivorVote:
    """A site's only word in this slot on who survived."""

    label: ClassVar[str] = "vote"
    forged: ClassVar[str] = "forged-vote"
    kind: ClassVar[int] = 9

    context: bytes
    site: int
    slot: int
    bind: bytes
    survivors: bytes
    profile: Profile = DEFAULT
    signature: bytes = bytes(DEFAULT.signature_bytes)

    def body(self) -> bytes:
        """Return everything before the signature."""
        head = opening(self.kind, self.profile) + self.context + number(self.site, 2) + number(self.slot, 2)
        return head + self.bind + self.survivors

    def signed_by(self, key: SigningKey) -> Self:
        """Return the message in the key's profile, signed by it under its own label."""
        unsigned = replace(self, profile=key.profile)
        return replace(unsigned, signature=key.sign(self.label, unsigned.body()))

    def encode(self) -> bytes:
        """Return the message's bytes: 169 in the default profile."""
        return self.body() + self.signature

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Return the vote in ``content``."""
        reader = Reader(content, limit=SMALL_LIMIT)
        profile = reader.opening(cls.kind)
        vote = cls(
            context=reader.take(32),
            site=reader.number(2),
            slot=reader.number(2),
            bind=reader.take(32),
            survivors=reader.take(32),
            profile=profile,
            signature=reader.take(profile.signature_bytes),
        )
        reader.end()
        return vote


@dataclass(frozen=True, kw_only=True)
class VoteList:
    """The votes on one survivor list, by rising site."""

    kind: ClassVar[int] = 10

    context: bytes
    slot: int
    votes: tuple[SurvivorVote, ...]
    profile: Profile = DEFAULT

    def encode(self) -> bytes:
        """Return the message's bytes."""
        head = opening(self.kind, self.profile) + self.context + number(self.slot, 2)
        return head + number(len(self.votes), 2) + b"".join(vote.encode() for vote in self.votes)

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Return the votes in ``content``."""
        reader = Reader(content, limit=SET_LIMIT)
        profile = reader.opening(cls.kind)
        context, slot, count = reader.take(32), reader.number(2), reader.number(2)
        size = _VOTE_BYTES + profile.signature_bytes
        votes = tuple(SurvivorVote.decode(reader.take(size)) for _ in range(count))
        reader.end()
        return cls(context=context, slot=slot, votes=votes, profile=profile)


@dataclass(frozen=True, kw_only=True)
class UnmaskShares:
    """A site's shares of the self-masks of survivors and of the mask keys of the dropped; never both of one
    site.

    Attributes:
        survivors: digest of the survivor list the site committed to.
        self_mask: by rising dealer, shares of survivors' self-mask seeds.
        mask_key: by rising dealer, shares of dropped sites' mask-key seeds.
    """

    label: ClassVar[str] = "shares"
    forged: ClassVar[str] = "forged-shares"
    kind: ClassVar[int] = 11

    context: bytes
    site: int
    slot: int
    bind: bytes
    survivors: bytes
    self_mask: tuple[tuple[int, bytes], ...]
    mask_key: tuple[tuple[int, bytes], ...]
    profile: Profile = DEFAULT
    signature: bytes = bytes(DEFAULT.signature_bytes)

    def __repr__(self) -> str:
        return f"UnmaskShares(site={self.site}, slot={self.slot}, …)"

    def body(self) -> bytes:
        """Return everything before the signature."""
        head = opening(self.kind, self.profile) + self.context + number(self.site, 2) + number(self.slot, 2)
        lists = b"".join(
            numbers(dealer for dealer, _ in shares) + b"".join(share for _, share in shares)
            for shares in (self.self_mask, self.mask_key)
        )
        return head + self.bind + self.survivors + lists

    def signed_by(self, key: SigningKey) -> Self:
        """Return the message in the key's profile, signed by it under its own label."""
        unsigned = replace(self, profile=key.profile)
        return replace(unsigned, signature=key.sign(self.label, unsigned.body()))

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return self.body() + self.signature

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Return the shares in ``content``."""
        reader = Reader(content, limit=SMALL_LIMIT)
        profile = reader.opening(cls.kind)
        context, site, slot = reader.take(32), reader.number(2), reader.number(2)
        bind, survivors = reader.take(32), reader.take(32)
        lists = []
        for _ in range(2):
            dealers = ascending(reader.numbers())
            lists.append(tuple((dealer, reader.take(ELEMENT_BYTES)) for dealer in dealers))
        signature = reader.take(profile.signature_bytes)
        reader.end()
        return cls(
            context=context,
            site=site,
            slot=slot,
            bind=bind,
            survivors=survivors,
            self_mask=lists[0],
            mask_key=lists[1],
            profile=profile,
            signature=signature,
        )
