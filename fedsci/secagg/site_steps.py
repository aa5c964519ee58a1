"""What one site does, step by step, and what it refuses.

::

    advertise ──> share ──> accept_shares ──┐
                                            v
                    ┌────> mask ──> answer_survivors ──> [answer_votes] ──┐
                    └────────────────── next slot <───────────────────────┘

A step is a function of the stored state and of what arrived; it returns the next state and the message to
send. **Store the new state durably before sending the message.** A refused step raises
:class:`~fedsci.errors.ProtocolError` with the rule it broke and changes nothing.

A site releases shares only if it uploaded in this slot and is itself among the survivors; the survivors are
within the slot's cohort and at least ``min_survivors``; every survivor's header is signed, of this slot,
and carries this site's own bind; it never committed to another survivor list for the slot; and, if anybody
dropped or the graph is sparse, at least ``threshold`` survivors signed the same list.
"""

import hashlib
from dataclasses import dataclass, replace
from itertools import pairwise

from fedsci.errors import ProtocolError
from fedsci.secagg.envelopes import PAIR_BYTES
from fedsci.secagg.keys import SigningKey
from fedsci.secagg.masking import RoundCall, bind_call, pair_masks, self_key
from fedsci.secagg.prg import MaskEngine, add_masks, engine_of
from fedsci.secagg.ring import RingVector
from fedsci.secagg.round_messages import Header, SurvivorList, SurvivorVote, UnmaskShares, VoteList
from fedsci.secagg.seed import ERASED
from fedsci.secagg.shamir import ELEMENT_BYTES
from fedsci.secagg.signed import check_context, check_sender
from fedsci.secagg.site_state import SPENT, OpenSlot, Phase, SiteState, require_phase


def _check_key(state: SiteState, key: SigningKey) -> None:
    if key.public != state.setup.verification_key(state.site):
        raise ProtocolError("the signing key is not the one in the roster", rule="wrong-signing-key")


@dataclass(frozen=True, kw_only=True)
class MaskedInput:
    """What a site uploads in a slot.

    Attributes:
        header: the signed :class:`Header`.
        payload: the masked vector, uniform to whoever lacks a key; ``payload.data`` are the bytes to send.
    """

    header: bytes
    payload: RingVector


def check_call(state: SiteState, call: RoundCall) -> None:
    """Refuse a call that this site cannot mask anything for, before it computes what it would mask.

    Raises:
        ProtocolError: names the rule.
    """
    require_phase(state, Phase.READY)
    setup, terms = state.setup, state.setup.cohort.terms
    if not call.slot < setup.roster.batch_slots:
        raise ProtocolError(f"slot {call.slot} is not in this batch", rule="unknown-slot")
    if call.slot < state.next_slot:
        raise ProtocolError(f"slot {call.slot} was used or passed over", rule="slot-used")
    if state.site not in call.cohort:
        raise ProtocolError("this site is not in the slot's cohort", rule="not-in-cohort")
    for member in call.cohort:
        if member not in state.members:
            raise ProtocolError(f"site index {member} is not in the setup", rule="unknown-site")
    if len(call.cohort) < terms.min_survivors:
        raise ProtocolError(
            f"a cohort of {len(call.cohort)} is below min_survivors {terms.min_survivors}",
            rule="cohort-too-small",
        )
    near = [member for member in call.cohort if member in state.neighbours]
    for member in near:
        if member not in state.dealers:
            raise ProtocolError(f"site {member} never shared its secrets with this site", rule="no-shares")
    if len(near) + 1 < state.share_threshold:
        raise ProtocolError("too few of this site's neighbours are in the cohort", rule="cohort-too-small")


def mask(
    state: SiteState,
    call: RoundCall,
    vector: RingVector,
    *,
    signing_key: SigningKey,
    in_place: bool = False,
    engine: MaskEngine | None = None,
) -> tuple[SiteState, MaskedInput]:
    """Return the state in which the slot is used, and the masked vector with its signed header.

    This site's own secrets of this and all earlier slots are erased, and an earlier slot that is still open
    is given up. ``in_place`` masks ``vector`` itself and saves a copy.
    """
    check_call(state, call)
    _check_key(state, signing_key)
    setup, site, slot = state.setup, state.site, call.slot
    ring = setup.cohort.ring
    ring.check_bound(ring.check_vector(vector), setup.cohort.site_bound)
    if vector.size == 0:
        raise ProtocolError("an empty vector has no sum", rule="wrong-length")
    bind = bind_call(call, transcript=state.transcript, length=vector.size)
    size = setup.profile.exchange_bytes
    at = slice(size * slot, size * slot + size)
    all_keys = zip(state.neighbours, state.mask_keys, strict=True)
    peers = {peer: keys[at] for peer, keys in all_keys if peer in call.cohort}
    secrets, context = state.own[slot], setup.context
    profile = setup.profile
    own = self_key(secrets.self_mask, context=context, site=site, slot=slot, bind=bind, profile=profile)
    masks = [(own, 1)]
    masks += pair_masks(
        secrets.mask_key,
        site=site,
        peers=peers,
        context=context,
        slot=slot,
        transcript=state.transcript,
        bind=bind,
        profile=profile,
    )
    payload = vector if in_place else vector.copy()
    add_masks(payload, masks, engine=engine or engine_of(profile))
    header = Header(
        context=context,
        site=site,
        slot=slot,
        bind=bind,
        length=vector.size,
        payload_digest=hashlib.sha256(payload.data).digest(),
    )
    signed = header.signed_by(signing_key).encode()
    after = replace(
        state,
        revision=state.revision + 1,
        own=(SPENT,) * (slot + 1) + state.own[slot + 1 :],
        held=(ERASED,) * slot + state.held[slot:],
        next_slot=slot + 1,
        open_slot=OpenSlot(slot=slot, header=signed, bind=bind, cohort=call.cohort),
    )
    return after, MaskedInput(header=signed, payload=payload)


def _open_slot(state: SiteState, slot: int) -> OpenSlot:
    require_phase(state, Phase.READY)
    if state.open_slot is None or state.open_slot.slot != slot:
        raise ProtocolError(f"this site did not upload in slot {slot}, or has moved on", rule="slot-not-open")
    return state.open_slot


def answer_survivors(state: SiteState, survivor_list: bytes, *, signing_key: SigningKey) -> tuple[SiteState, bytes]:
    """Return the state committed to this survivor list, and the answer to it.

    If every site of the slot's cohort survived, the answer is :class:`UnmaskShares` with self-mask shares
    of all. If somebody dropped, or the graph is sparse, it is a :class:`SurvivorVote`; shares follow the
    votes. The same list gets the same answer again; any other list is refused (``two-survivor-sets``).
    """
    _check_key(state, signing_key)
    offered = SurvivorList.decode(survivor_list)
    check_context(offered, state.setup)
    current = _open_slot(state, offered.slot)
    if current.committed and current.committed != offered.digest:
        raise ProtocolError("this site committed to another survivor list for the slot", rule="two-survivor-sets")
    _check_survivors(state, current, offered)
    if not current.committed:
        current = replace(current, committed=offered.digest, survivors=offered.survivors)
        state = replace(state, revision=state.revision + 1, open_slot=current)
    if current.survivors == current.cohort and not state.setup.cohort.sparse:
        return _release(state, current, signing_key)
    vote = SurvivorVote(
        context=state.setup.context,
        site=state.site,
        slot=current.slot,
        bind=current.bind,
        survivors=offered.digest,
    )
    return state, vote.signed_by(signing_key).encode()


def _check_survivors(state: SiteState, current: OpenSlot, offered: SurvivorList) -> None:
    survivors, terms = offered.survivors, state.setup.cohort.terms
    if any(a >= b for a, b in pairwise(survivors)):
        raise ProtocolError("survivors are not by rising site", rule="duplicate-site")
    for survivor in survivors:
        if survivor not in current.cohort:
            raise ProtocolError(f"survivor {survivor} is not in the slot's cohort", rule="unknown-site")
    if len(survivors) < terms.min_survivors:
        raise ProtocolError(
            f"{len(survivors)} survivors are below min_survivors {terms.min_survivors}",
            rule="too-few-survivors",
        )
    if state.site not in survivors:
        raise ProtocolError("this site uploaded but is not among the survivors", rule="self-not-survivor")
    for header in offered.headers:
        if header.slot != current.slot:
            raise ProtocolError(f"the header of site {header.site} is of another slot", rule="other-slot")
        check_sender(header, state.setup)
        if header.site == state.site and header.encode() != current.header:
            raise ProtocolError("the list holds another header of this site", rule="forged-header")
        if header.bind != current.bind:
            raise ProtocolError(
                f"site {header.site} took part in another round: model, configuration or cohort differ",
                rule="bind-mismatch",
            )


def answer_votes(state: SiteState, vote_list: bytes, *, signing_key: SigningKey) -> tuple[SiteState, bytes]:
    """Return the state in which the slot's shares are spent, and the :class:`UnmaskShares`.

    Requires at least ``threshold`` valid votes by different survivors for the list this site committed to.
    """
    _check_key(state, signing_key)
    offered = VoteList.decode(vote_list)
    check_context(offered, state.setup)
    current = _open_slot(state, offered.slot)
    if not current.committed:
        raise ProtocolError("votes came before a survivor list", rule="votes-before-survivors")
    voters = [vote.site for vote in offered.votes]
    if any(a >= b for a, b in pairwise(voters)):
        raise ProtocolError("votes are not by rising site", rule="duplicate-site")
    if len(voters) < state.setup.cohort.terms.threshold:
        raise ProtocolError(
            f"{len(voters)} votes are below the threshold {state.setup.cohort.terms.threshold}",
            rule="too-few-votes",
        )
    for vote in offered.votes:
        if vote.site not in current.survivors:
            raise ProtocolError(f"voter {vote.site} is not a survivor", rule="unknown-site")
        if vote.slot != current.slot or vote.bind != current.bind:
            raise ProtocolError(f"the vote of site {vote.site} is of another round", rule="bind-mismatch")
        if vote.survivors != current.committed:
            raise ProtocolError(f"site {vote.site} voted for another survivor list", rule="two-survivor-sets")
        check_sender(vote, state.setup)
    return _release(state, current, signing_key)


def _release(state: SiteState, current: OpenSlot, signing_key: SigningKey) -> tuple[SiteState, bytes]:
    """Return the shares of the committed survivor list: one kind per site, never both."""
    if current.answer:
        return state, current.answer
    blob = state.held[current.slot].reveal()
    survived: list[tuple[int, bytes]] = []
    dropped: list[tuple[int, bytes]] = []
    for at, dealer in enumerate(state.dealers):
        pair = blob[at * PAIR_BYTES : (at + 1) * PAIR_BYTES]
        if dealer in current.survivors:
            survived.append((dealer, pair[:ELEMENT_BYTES]))
        elif dealer in current.cohort:
            dropped.append((dealer, pair[ELEMENT_BYTES:]))
    message = UnmaskShares(
        context=state.setup.context,
        site=state.site,
        slot=current.slot,
        bind=current.bind,
        survivors=current.committed,
        self_mask=tuple(survived),
        mask_key=tuple(dropped),
    )
    answer = message.signed_by(signing_key).encode()
    after = replace(
        state,
        revision=state.revision + 1,
        held=(ERASED,) * (current.slot + 1) + state.held[current.slot + 1 :],
        open_slot=replace(current, answer=answer),
    )
    return after, answer
