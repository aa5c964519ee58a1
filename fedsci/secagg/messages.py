"""The messages of a setup, and the rules every message follows.

A message is ``"FSA" | version | kind | setup context (32) | fields``; the version names the crypto
profile, too. A signed one ends in its signature over everything before, under the message's own label. Vectors travel
beside their header as raw ring bytes. Decoding allocates no more than the bytes received and raises
``malformed-message`` for anything that is not exactly one message; it proves nothing about who sent it, which
:func:`check_sender` does.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from fedsci.secagg.keys import SigningKey
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import DEFAULT
from fedsci.secagg.roster import MOST_SLOTS
from fedsci.secagg.wire import Reader, ascending, blob, malformed, number, opening

SMALL_LIMIT = 1 << 20
SET_LIMIT = 1 << 26


@dataclass(frozen=True, kw_only=True)
class Advert:
    """A site's fresh public keys for a batch.

    Attributes:
        channel_key: of key agreement, opens envelopes from peers.
        mask_keys: of key agreement, one a slot.
        commitments: hashes of the self-mask seeds, one a slot.
        profile: whose keys and signature these are.
    """

    label: ClassVar[str] = "advert"
    forged: ClassVar[str] = "forged-advert"
    kind: ClassVar[int] = 3

    context: bytes
    site: int
    channel_key: bytes
    mask_keys: tuple[bytes, ...]
    commitments: tuple[bytes, ...]
    profile: Profile = DEFAULT
    signature: bytes = bytes(DEFAULT.signature_bytes)

    def body(self) -> bytes:
        """Return everything before the signature."""
        slots = b"".join(a + b for a, b in zip(self.mask_keys, self.commitments, strict=True))
        head = opening(self.kind, self.profile) + self.context + number(self.site, 2) + self.channel_key
        return head + number(len(self.mask_keys), 2) + slots

    def signed_by(self, key: SigningKey) -> Self:
        """Return the message in the key's profile, signed by it under its own label."""
        unsigned = replace(self, profile=key.profile)
        return replace(unsigned, signature=key.sign(self.label, unsigned.body()))

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return self.body() + self.signature

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Return the advert in ``content``."""
        reader = Reader(content, limit=SMALL_LIMIT)
        profile = reader.opening(cls.kind)
        size = profile.exchange_bytes
        context, site, channel, count = (
            reader.take(32),
            reader.number(2),
            reader.take(size),
            reader.number(2),
        )
        if count > MOST_SLOTS:
            malformed(f"an advert of {count} slots passes {MOST_SLOTS}")
        slots = [(reader.take(size), reader.take(32)) for _ in range(count)]
        signature = reader.take(profile.signature_bytes)
        reader.end()
        return cls(
            context=context,
            site=site,
            channel_key=channel,
            mask_keys=tuple(a for a, _ in slots),
            commitments=tuple(b for _, b in slots),
            profile=profile,
            signature=signature,
        )


@dataclass(frozen=True, kw_only=True)
class AdvertSet:
    """All adverts of a setup by rising site, as the coordinator hands them to every site."""

    kind: ClassVar[int] = 4

    context: bytes
    adverts: tuple[Advert, ...]
    profile: Profile = DEFAULT

    def encode(self) -> bytes:
        """Return the message's bytes."""
        parts = b"".join(blob(advert.encode()) for advert in self.adverts)
        return opening(self.kind, self.profile) + self.context + number(len(self.adverts), 2) + parts

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Return the set in ``content``; the adverts' signatures are checked with the transcript."""
        reader = Reader(content, limit=SET_LIMIT)
        profile = reader.opening(cls.kind)
        context, count = reader.take(32), reader.number(2)
        adverts = tuple(Advert.decode(reader.blob()) for _ in range(count))
        reader.end()
        return cls(context=context, adverts=adverts, profile=profile)


@dataclass(frozen=True, kw_only=True)
class Envelopes:
    """Sealed shares: from one site to its neighbours, or, once sorted by the coordinator, to one site.

    Attributes:
        delivered: false on the way up (``site`` sent them), true on the way down (``site`` receives them).
        transcript: hash of all adverts.
        sealed: by rising peer index, the peer and 12 bytes of nonce, ciphertext and tag.
    """

    kinds: ClassVar[dict[bool, int]] = {False: 5, True: 6}

    context: bytes
    delivered: bool
    site: int
    transcript: bytes
    sealed: tuple[tuple[int, bytes], ...]
    profile: Profile = DEFAULT

    def encode(self) -> bytes:
        """Return the message's bytes."""
        head = opening(self.kinds[self.delivered], self.profile) + self.context + number(self.site, 2)
        head += self.transcript
        return head + number(len(self.sealed), 2) + b"".join(number(p, 2) + blob(c) for p, c in self.sealed)

    @classmethod
    def decode(cls, content: bytes, *, delivered: bool) -> Self:
        """Return the envelopes in ``content``, which travel in the stated direction."""
        reader = Reader(content, limit=SET_LIMIT)
        profile = reader.opening(cls.kinds[delivered])
        context, site, transcript, count = (
            reader.take(32),
            reader.number(2),
            reader.take(32),
            reader.number(2),
        )
        sealed = tuple((reader.number(2), reader.blob()) for _ in range(count))
        reader.end()
        ascending(tuple(peer for peer, _ in sealed))
        return cls(
            context=context, delivered=delivered, site=site, transcript=transcript, sealed=sealed, profile=profile
        )
