"""All a site remembers between two messages of a batch, and its explicit stored form.

A step takes a state and returns the next. Whoever drives it stores :meth:`SiteState.encode` durably
*before* it sends the step's message; then a crash at any moment can lose a message, never a promise.
"""

from dataclasses import dataclass, field
from enum import IntEnum

from fedsci.errors import ProtocolError
from fedsci.secagg.cohort import Setup
from fedsci.secagg.profiles import FIPS, require_profile
from fedsci.secagg.seed import ERASED, Seed
from fedsci.secagg.wire import Reader, ascending, blob, malformed, number, numbers, opening

STATE_KIND = 12
_LIMIT = 1 << 26


class Phase(IntEnum):
    """How far a batch's setup has come."""

    ADVERTISED = 1
    SHARED = 2
    READY = 3
    BURNT = 4


@dataclass(frozen=True, kw_only=True)
class SlotSecrets:
    """A site's own secrets of one unused slot, or erased ones.

    Attributes:
        self_mask: 32 bytes, a field element; its opening removes the self-mask.
        mask_key: 32 bytes, a field element; the slot's exchange key grows from it.
    """

    self_mask: Seed = ERASED
    mask_key: Seed = ERASED


SPENT = SlotSecrets()


@dataclass(frozen=True, kw_only=True)
class OpenSlot:
    """The slot a site has uploaded in, until it uploads in a later one.

    Attributes:
        header: the signed header it sent.
        bind: what it bound its masks to.
        cohort: the sites it masked with, itself included.
        committed: digest of the one survivor list it will ever answer for this slot; empty until then.
        survivors: that list's sites.
        answer: the shares it released, kept to be sent again; empty until then.
    """

    slot: int
    header: bytes
    bind: bytes
    cohort: tuple[int, ...]
    committed: bytes = b""
    survivors: tuple[int, ...] = ()
    answer: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        """Return the slot's bytes."""
        lists = numbers(self.cohort) + numbers(self.survivors)
        return number(self.slot, 2) + self.bind + lists + blob(self.header) + blob(self.committed) + blob(self.answer)

    @classmethod
    def read(cls, reader: Reader) -> "OpenSlot":
        """Read what :meth:`encode` wrote."""
        slot, bind, cohort, survivors = reader.number(2), reader.take(32), reader.numbers(), reader.numbers()
        return cls(
            slot=slot,
            bind=bind,
            cohort=cohort,
            survivors=survivors,
            header=reader.blob(),
            committed=reader.blob(),
            answer=reader.blob(),
        )


@dataclass(frozen=True, kw_only=True)
class SiteState:
    """One site's side of one batch; secret as a whole.

    Attributes:
        setup: roster, cohort, run and batch.
        site: this site's index.
        phase: how far the setup has come.
        revision: rises by one with every step, so that a stored older state can be told from a newer one.
        advert: digest of the site's own advert.
        advert_signature: its signature, kept where signing again may give another (``fips``); else empty.
        channel: seed of the key that opens envelopes; erased once they are open.
        own: this site's secrets by slot, erased when the slot is used.
        transcript: ``T``; empty before the adverts were seen.
        members: sites that advertised.
        neighbours: sites this one masks with.
        share_threshold: shares that open a secret in this site's neighbourhood.
        channel_keys: the neighbours' channel keys, until their envelopes are open.
        envelopes: the sealed shares this site sent, kept to be sent again until the neighbours' are open.
        mask_keys: for each neighbour, its mask keys of all slots, one after the other.
        dealers: sites whose shares this one holds, itself included, rising.
        held: by slot, for each dealer 32 bytes of self-mask share and 32 of mask-key share; erased when
            spent.
        next_slot: the first slot not used yet.
        open_slot: the slot in progress.
    """

    setup: Setup
    site: int
    phase: Phase
    revision: int
    advert: bytes
    channel: Seed
    own: tuple[SlotSecrets, ...]
    transcript: bytes = b""
    members: tuple[int, ...] = ()
    neighbours: tuple[int, ...] = ()
    share_threshold: int = 0
    channel_keys: tuple[bytes, ...] = field(default=(), repr=False)
    envelopes: bytes = field(default=b"", repr=False)
    mask_keys: tuple[bytes, ...] = field(default=(), repr=False)
    dealers: tuple[int, ...] = ()
    held: tuple[Seed, ...] = ()
    next_slot: int = 0
    open_slot: OpenSlot | None = None
    advert_signature: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        """Return the state's bytes. They hold secrets: store them where only the site's own process reads."""
        parts = [
            opening(STATE_KIND, self.setup.profile),
            blob(self.setup.encode()),
            number(self.site, 2),
            number(self.phase, 1),
        ]
        parts += [
            number(self.revision, 8),
            self.advert,
            blob(self.channel.reveal()),
            number(len(self.own), 2),
        ]
        parts += [blob(secrets.self_mask.reveal()) + blob(secrets.mask_key.reveal()) for secrets in self.own]
        parts += [blob(self.transcript), numbers(self.members), numbers(self.neighbours)]
        parts += [number(self.share_threshold, 2), blob(b"".join(self.channel_keys)), blob(self.envelopes)]
        parts += [*(blob(keys) for keys in self.mask_keys), numbers(self.dealers)]
        parts += [number(len(self.held), 2), *(blob(shares.reveal()) for shares in self.held)]
        parts += [number(self.next_slot, 2), number(self.open_slot is not None, 1)]
        if self.open_slot is not None:
            parts.append(self.open_slot.encode())
        if self.setup.profile is FIPS:
            parts.append(blob(self.advert_signature))
        return b"".join(parts)

    @classmethod
    def decode(cls, content: bytes) -> "SiteState":
        """Return the state in ``content``; refuses damaged bytes as ``malformed-message``."""
        reader = Reader(content, limit=_LIMIT)
        profile = reader.opening(STATE_KIND)
        setup, site, phase = Setup.decode(reader.blob()), reader.number(2), reader.number(1)
        if phase not in tuple(Phase):
            malformed(f"a state has no phase {phase}")
        revision, advert, channel = reader.number(8), reader.take(32), Seed(reader.blob())
        own = tuple(
            SlotSecrets(self_mask=Seed(reader.blob()), mask_key=Seed(reader.blob())) for _ in range(reader.number(2))
        )
        transcript, members, neighbours = (
            reader.blob(),
            ascending(reader.numbers()),
            ascending(reader.numbers()),
        )
        threshold, channel_keys, envelopes = reader.number(2), reader.blob(), reader.blob()
        mask_keys = tuple(reader.blob() for _ in neighbours)
        dealers = ascending(reader.numbers())
        held = tuple(Seed(reader.blob()) for _ in range(reader.number(2)))
        next_slot, has_open = reader.number(2), reader.number(1)
        open_slot = OpenSlot.read(reader) if has_open else None
        advert_signature = reader.blob() if profile is FIPS else b""
        reader.end()
        require_profile(setup.profile, profile, "a state's setup")
        slots = setup.roster.batch_slots
        if len(own) != slots or len(held) not in (0, slots) or next_slot > slots or has_open > 1:
            malformed("a state does not fit its batch")
        size = profile.exchange_bytes
        if len(channel_keys) not in (0, size * len(neighbours)):
            malformed("a state's channel keys do not fit its neighbours")
        if any(len(keys) != size * slots for keys in mask_keys):
            malformed("a state does not fit its batch")
        if any(len(shares) not in (0, 64 * len(dealers)) for shares in held):
            malformed("a state's shares do not fit its dealers")
        return cls(
            setup=setup,
            site=site,
            phase=Phase(phase),
            revision=revision,
            advert=advert,
            channel=channel,
            own=own,
            transcript=transcript,
            members=members,
            neighbours=neighbours,
            share_threshold=threshold,
            channel_keys=tuple(channel_keys[i : i + size] for i in range(0, len(channel_keys), size)),
            envelopes=envelopes,
            mask_keys=mask_keys,
            dealers=dealers,
            held=held,
            next_slot=next_slot,
            open_slot=open_slot,
            advert_signature=advert_signature,
        )


def require_phase(state: SiteState, phase: Phase, rule: str = "wrong-phase") -> None:
    """Refuse a step out of order, under ``rule``, and every step of a burnt batch."""
    if state.phase is Phase.BURNT:
        raise ProtocolError("this batch was burnt; its secrets are gone", rule="batch-burnt")
    if state.phase is not phase:
        raise ProtocolError(f"a site that is {state.phase.name} does not take this step", rule=rule)
