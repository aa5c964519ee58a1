"""What the coordinator does: carry messages, add what arrives, open the sum of the survivors.

Nothing here is trusted by the sites; these classes are the *honest* coordinator. They grow in place because
the sum does: one vector is kept, whatever the number of sites. A refused message changes nothing.

A setup: :class:`SetupCollector` takes adverts, gives the advert set; takes envelopes, gives each site its
delivery and the :class:`ReadySetup`. A round: :class:`RoundCollector` takes masked inputs, gives the
survivor list; takes votes where they are needed, gives the vote list; takes shares, gives the
:class:`RoundSum`.
"""

import hashlib
import hmac
from dataclasses import dataclass, field

from fedsci.errors import ProtocolError, RoundAborted
from fedsci.secagg.cohort import Setup
from fedsci.secagg.masking import RoundCall, bind_call, pair_masks, self_key
from fedsci.secagg.messages import Advert, AdvertSet, Envelopes
from fedsci.secagg.prg import MaskEngine, add_masks, engine_of
from fedsci.secagg.profiles import require_profile
from fedsci.secagg.recovery import Suspicion, open_mask_key, open_self_mask
from fedsci.secagg.ring import RingVector, SignedVector
from fedsci.secagg.round_messages import Header, SurvivorList, SurvivorVote, UnmaskShares, VoteList
from fedsci.secagg.seed import Seed
from fedsci.secagg.shamir import decode_element
from fedsci.secagg.signed import check_context, check_sender
from fedsci.secagg.transcript import Transcript, check_advert, check_adverts
from fedsci.secagg.wire import Reader, ascending, blob, malformed, numbers, opening

READY_KIND = 13
_READY_LIMIT = 1 << 26


@dataclass(frozen=True, kw_only=True)
class ReadySetup:
    """A finished setup as the coordinator keeps it for a batch; holds no secret.

    Attributes:
        transcript: the adverts all sites hashed.
        ready: sites that shared their secrets, rising; a slot's cohort is a subset.
    """

    transcript: Transcript
    ready: tuple[int, ...]

    @property
    def setup(self) -> Setup:
        """Roster, cohort, run and batch."""
        return self.transcript.setup

    def encode(self) -> bytes:
        """Return bytes from which a restarted coordinator goes on with the next unused slot."""
        adverts = AdvertSet(context=self.setup.context, adverts=self.transcript.adverts, profile=self.setup.profile)
        head = opening(READY_KIND, self.setup.profile) + blob(self.setup.encode())
        return head + blob(adverts.encode()) + numbers(self.ready)

    @classmethod
    def decode(cls, content: bytes) -> "ReadySetup":
        """Return the setup in ``content``, all signatures checked again."""
        reader = Reader(content, limit=_READY_LIMIT)
        profile = reader.opening(READY_KIND)
        setup, adverts, ready = Setup.decode(reader.blob()), AdvertSet.decode(reader.blob()), reader.numbers()
        reader.end()
        require_profile(setup.profile, profile, "a setup")
        transcript = check_adverts(adverts, setup)
        if not set(ascending(ready)) <= set(transcript.members):
            malformed("a site is ready that never advertised")
        return cls(transcript=transcript, ready=ready)


class SetupCollector:
    """Collects one batch's setup."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._adverts: dict[int, Advert] = {}
        self._transcript: Transcript | None = None
        self._sealed: dict[int, dict[int, bytes]] = {}

    def add_advert(self, content: bytes) -> int:
        """Take one site's advert and return the site; refuses a second one."""
        if self._transcript is not None:
            raise ProtocolError("the adverts are closed", rule="wrong-phase")
        advert = check_advert(Advert.decode(content), self._setup)
        if advert.site in self._adverts:
            raise ProtocolError(f"site {advert.site} advertised twice", rule="duplicate-site")
        self._adverts[advert.site] = advert
        return advert.site

    def add_adverts(self, content: bytes) -> None:
        """Take all adverts of an :class:`AdvertSet` that was closed before, by a process that ended."""
        for advert in AdvertSet.decode(content).adverts:
            self.add_advert(advert.encode())

    def close_adverts(self) -> bytes:
        """Return the :class:`AdvertSet` for every site that advertised; aborts below min_survivors."""
        least = self._setup.cohort.terms.min_survivors
        if len(self._adverts) < least:
            raise RoundAborted(f"{len(self._adverts)} sites advertised, {least} are needed")
        adverts = tuple(self._adverts[site] for site in sorted(self._adverts))
        offered = AdvertSet(context=self._setup.context, adverts=adverts, profile=self._setup.profile)
        self._transcript = check_adverts(offered, self._setup)
        return offered.encode()

    def add_envelopes(self, content: bytes) -> int:
        """Take one site's sealed shares and return the site."""
        transcript = self._closed()
        message = Envelopes.decode(content, delivered=False)
        check_context(message, self._setup)
        if message.transcript != transcript.digest:
            raise ProtocolError("the envelopes belong to another transcript", rule="other-transcript")
        expected = transcript.graph.neighbours(message.site)
        if message.site in self._sealed:
            raise ProtocolError(f"site {message.site} shared twice", rule="duplicate-site")
        if tuple(peer for peer, _ in message.sealed) != expected:
            raise ProtocolError(f"site {message.site} did not share with its neighbours", rule="wrong-neighbours")
        self._sealed[message.site] = dict(message.sealed)
        return message.site

    def close_envelopes(self) -> tuple[ReadySetup, dict[int, bytes]]:
        """Return the finished setup and each ready site's delivery; aborts with fewer than min_survivors."""
        transcript, ready = self._closed(), tuple(sorted(self._sealed))
        least = self._setup.cohort.terms.min_survivors
        if len(ready) < least:
            raise RoundAborted(f"{len(ready)} sites shared their secrets, {least} are needed")
        deliveries = {}
        for site in ready:
            senders = [peer for peer in transcript.graph.neighbours(site) if peer in self._sealed]
            message = Envelopes(
                context=self._setup.context,
                delivered=True,
                site=site,
                transcript=transcript.digest,
                sealed=tuple((sender, self._sealed[sender][site]) for sender in senders),
                profile=self._setup.profile,
            )
            deliveries[site] = message.encode()
        return ReadySetup(transcript=transcript, ready=ready), deliveries

    def _closed(self) -> Transcript:
        if self._transcript is None:
            raise ProtocolError("the adverts are still open", rule="wrong-phase")
        return self._transcript


@dataclass(frozen=True, kw_only=True)
class RoundSum:
    """The one thing a round gives the coordinator.

    Attributes:
        total: the exact sum of the survivors' integers, signed, shape ``(length,)``.
        survivors: whose vectors are in it, rising.
        dropped: sites of the slot's cohort that are not, rising.
        suspicions: wrong shares that were found and worked around.
    """

    total: SignedVector
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]
    suspicions: tuple[Suspicion, ...] = field(default=())


class RoundCollector:
    """Collects one slot's round.

    Args:
        ready: the batch's setup.
        call: slot, cohort and digests, as every site was told.
        length: coordinates of the vectors.
        check_payloads: compare each payload with the digest its site signed. This makes a site answerable
            for what it sent, at the price of one SHA-256 pass; secrecy does not depend on it.
        accumulator: a vector to sum in, overwritten; the memory of an earlier round's total, for instance.
            Fresh memory can cost as much as all the additions. By default a new one.
        engine: the mask engine.
    """

    def __init__(
        self,
        ready: ReadySetup,
        call: RoundCall,
        *,
        length: int,
        check_payloads: bool = True,
        accumulator: RingVector | None = None,
        engine: MaskEngine | None = None,
    ) -> None:
        terms = ready.setup.cohort.terms
        unready = [site for site in call.cohort if site not in ready.ready]
        if unready:
            raise ProtocolError(f"sites {unready} never finished the setup", rule="unknown-site")
        if len(call.cohort) < terms.min_survivors:
            raise ProtocolError(f"a cohort of {len(call.cohort)} is below min_survivors", rule="cohort-too-small")
        if not call.slot < ready.setup.roster.batch_slots:
            raise ProtocolError(f"slot {call.slot} is not in this batch", rule="unknown-slot")
        self._ready, self._call, self._engine = ready, call, engine
        self._check_payloads = check_payloads
        self._bind = bind_call(call, transcript=ready.transcript.digest, length=length)
        self._length = length
        ring = ready.setup.cohort.ring
        total = ring.zeros(length) if accumulator is None else ring.check_vector(accumulator)
        if total.size != length:
            raise ProtocolError(f"an accumulator of {total.size}, not {length}", rule="wrong-length")
        if accumulator is not None:
            total[:] = 0
        self._total: RingVector | None = total
        self._headers: dict[int, Header] = {}
        self._listed: SurvivorList | None = None
        self._votes: dict[int, SurvivorVote] = {}
        self._shares: dict[int, UnmaskShares] = {}

    def add_input(self, header: bytes, payload: bytes | bytearray | memoryview | RingVector) -> int:
        """Add one site's masked vector to the sum and return the site; the vector itself is not kept."""
        if self._listed is not None or self._total is None:
            raise ProtocolError("the inputs are closed", rule="wrong-phase")
        signed, setup = Header.decode(header), self._ready.setup
        check_sender(signed, setup)
        if signed.site not in self._call.cohort:
            raise ProtocolError(f"site {signed.site} is not in the slot's cohort", rule="unknown-site")
        if signed.site in self._headers:
            raise ProtocolError(f"site {signed.site} uploaded twice", rule="duplicate-site")
        if signed.slot != self._call.slot:
            raise ProtocolError(f"the header of site {signed.site} is of another slot", rule="other-slot")
        if signed.bind != self._bind:
            raise ProtocolError(f"site {signed.site} took part in another round", rule="bind-mismatch")
        ring, view = setup.cohort.ring, memoryview(payload).cast("B")  # type: ignore[arg-type]
        vector = ring.from_bytes(view, self._length)
        if self._check_payloads and not hmac.compare_digest(hashlib.sha256(view).digest(), signed.payload_digest):
            raise ProtocolError(f"the payload of site {signed.site} is not what it signed", rule="payload-digest")
        ring.accumulate(self._total, vector)
        self._headers[signed.site] = signed
        return signed.site

    @property
    def uploaded(self) -> tuple[int, ...]:
        """Sites whose vectors are in the sum so far, rising."""
        return tuple(sorted(self._headers))

    def close_inputs(self) -> bytes:
        """Return the :class:`SurvivorList` for every survivor; aborts, nothing revealed, with too few."""
        least = self._ready.setup.cohort.terms.min_survivors
        if len(self._headers) < least:
            raise RoundAborted(
                f"{len(self._headers)} of {len(self._call.cohort)} sites uploaded, {least} are needed",
                hint="nothing was revealed; start a new round when more sites are back",
                public="too few sites uploaded",
            )
        headers = tuple(self._headers[site] for site in self.uploaded)
        setup = self._ready.setup
        self._listed = SurvivorList(context=setup.context, slot=self._call.slot, headers=headers, profile=setup.profile)
        return self._listed.encode()

    @property
    def needs_votes(self) -> bool:
        """Whether sites answer the survivor list with votes: somebody dropped, or the graph is sparse."""
        return self._ready.setup.cohort.sparse or self._closed().survivors != self._call.cohort

    def add_vote(self, content: bytes) -> int:
        """Take one survivor's vote and return the site."""
        vote = SurvivorVote.decode(content)
        self._check_answer(vote, seen=vote.site in self._votes)
        self._votes[vote.site] = vote
        return vote.site

    def close_votes(self) -> bytes:
        """Return the :class:`VoteList` for every survivor; aborts below the threshold."""
        least = self._ready.setup.cohort.terms.threshold
        if len(self._votes) < least:
            raise RoundAborted(f"{len(self._votes)} survivors voted, {least} are needed")
        votes = tuple(self._votes[site] for site in sorted(self._votes))
        setup = self._ready.setup
        return VoteList(context=setup.context, slot=self._call.slot, votes=votes, profile=setup.profile).encode()

    def add_shares(self, content: bytes) -> int:
        """Take one survivor's shares and return the site."""
        message = UnmaskShares.decode(content)
        self._check_answer(message, seen=message.site in self._shares)
        held = self._holders(message.site)
        survivors, dropped = self._closed().survivors, self._dropped()
        wanted = tuple(s for s in survivors if s in held), tuple(d for d in dropped if d in held)
        given = tuple(d for d, _ in message.self_mask), tuple(d for d, _ in message.mask_key)
        if given != wanted:
            raise ProtocolError(f"site {message.site} sent shares of other sites", rule="wrong-share-set")
        for _, share in (*message.self_mask, *message.mask_key):
            decode_element(share)
        self._shares[message.site] = message
        return message.site

    def lacking_shares(self) -> tuple[int, ...]:
        """Return the sites whose secret needs more shares; once empty, :meth:`finish` can open all."""
        least = self._ready.transcript.graph.degree.threshold
        answered = set(self._shares)
        return tuple(site for site in self._to_open() if len(self._holders(site) & answered) < least)

    def finish(self) -> RoundSum:
        """Return the sum of the survivors' vectors; the collector is spent afterwards.

        Raises:
            RoundAborted: too few sites answered.
            ProtocolError: ``wrong-shares`` naming a site whose secret does not open.
        """
        listed = self._closed()
        if self._total is None:
            raise ProtocolError("this round is finished", rule="wrong-phase")
        ready, slot = self._ready, self._call.slot
        transcript, context, profile = ready.transcript, ready.setup.context, ready.setup.profile
        least = transcript.graph.degree.threshold
        self_shares = self._by_dealer("self_mask")
        key_shares = self._by_dealer("mask_key")
        masks: list[tuple[Seed, int]] = []
        suspicions: list[Suspicion] = []
        for site in listed.survivors:
            advert = transcript.by_site[site]
            seed, wrong = open_self_mask(advert, slot, self_shares.get(site, {}), least)
            key = self_key(seed, context=context, site=site, slot=slot, bind=self._bind, profile=profile)
            masks.append((key, -1))
            suspicions += wrong
        for site in self._to_open()[len(listed.survivors) :]:
            advert = transcript.by_site[site]
            seed, wrong = open_mask_key(advert, slot, key_shares.get(site, {}), least)
            near = [peer for peer in transcript.graph.neighbours(site) if peer in listed.survivors]
            # What the dropped site would have added is the opposite of what its peers did.
            masks += pair_masks(
                seed,
                site=site,
                peers={peer: transcript.by_site[peer].mask_keys[slot] for peer in near},
                context=context,
                slot=slot,
                transcript=transcript.digest,
                bind=self._bind,
                profile=profile,
            )
            suspicions += wrong
        total, self._total = self._total, None
        add_masks(total, masks, engine=self._engine or engine_of(profile))
        return RoundSum(
            total=ready.setup.cohort.ring.to_signed(total),
            survivors=listed.survivors,
            dropped=self._dropped(),
            suspicions=tuple(suspicions),
        )

    def _closed(self) -> SurvivorList:
        if self._listed is None:
            raise ProtocolError("the inputs are still open", rule="wrong-phase")
        return self._listed

    def _dropped(self) -> tuple[int, ...]:
        survivors = set(self._closed().survivors)
        return tuple(site for site in self._call.cohort if site not in survivors)

    def _to_open(self) -> tuple[int, ...]:
        """Survivors, then dropped sites that some survivor masked with."""
        survivors = self._closed().survivors
        alive = set(survivors)
        return survivors + tuple(d for d in self._dropped() if self._holders(d) & alive)

    def _holders(self, dealer: int) -> set[int]:
        """Sites that hold shares of ``dealer``; the relation is symmetric."""
        near = self._ready.transcript.graph.neighbours(dealer)
        return {dealer, *(peer for peer in near if peer in self._ready.ready)}

    def _check_answer(self, answer: SurvivorVote | UnmaskShares, *, seen: bool) -> None:
        listed = self._closed()
        check_sender(answer, self._ready.setup)
        if answer.site not in listed.survivors:
            raise ProtocolError(f"site {answer.site} is not a survivor", rule="unknown-site")
        if seen:
            raise ProtocolError(f"site {answer.site} answered twice", rule="duplicate-site")
        if answer.slot != self._call.slot or answer.bind != self._bind:
            raise ProtocolError(f"the answer of site {answer.site} is of another round", rule="bind-mismatch")
        if answer.survivors != listed.digest:
            raise ProtocolError(f"site {answer.site} answered another survivor list", rule="two-survivor-sets")

    def _by_dealer(self, kind: str) -> dict[int, dict[int, int]]:
        found: dict[int, dict[int, int]] = {}
        for holder, message in self._shares.items():
            for dealer, share in message.self_mask if kind == "self_mask" else message.mask_key:
                found.setdefault(dealer, {})[holder] = decode_element(share)
        return found
