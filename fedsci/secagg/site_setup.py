"""How one site sets a batch up: fresh keys, one transcript, shares out, shares in.

Same rules as in :mod:`fedsci.secagg.site_steps`: store the returned state durably, then send the message.
"""

import hashlib
from dataclasses import replace

from fedsci.errors import ProtocolError
from fedsci.secagg.cohort import Setup
from fedsci.secagg.envelopes import PAIR_BYTES, seal, unseal
from fedsci.secagg.keys import RandomBytes, SigningKey, exchange_public
from fedsci.secagg.messages import Advert, AdvertSet, Envelopes
from fedsci.secagg.profiles import FIPS
from fedsci.secagg.seed import ERASED, Seed
from fedsci.secagg.shamir import draw_elements, encode_element, split
from fedsci.secagg.signed import check_context
from fedsci.secagg.site_state import SPENT, Phase, SiteState, SlotSecrets, require_phase
from fedsci.secagg.transcript import check_adverts, self_mask_commitment


def advertise(
    setup: Setup, *, site: int, signing_key: SigningKey, random_bytes: RandomBytes
) -> tuple[SiteState, bytes]:
    """Return a fresh state and the signed :class:`Advert` of this batch's keys.

    The site's gate has approved ``setup`` (roster signature, cohort size, plan) before this is called.
    """
    if signing_key.public != setup.verification_key(site):
        raise ProtocolError("the signing key is not the one in the roster", rule="wrong-signing-key")
    slots = setup.roster.batch_slots
    drawn = [encode_element(value) for value in draw_elements(2 * slots, random_bytes)]
    own = tuple(
        SlotSecrets(self_mask=Seed(b), mask_key=Seed(k)) for b, k in zip(drawn[:slots], drawn[slots:], strict=True)
    )
    channel = Seed(random_bytes(32))
    advert = _advert(setup, site, channel, own).signed_by(signing_key)
    content = advert.encode()
    state = SiteState(
        setup=setup,
        site=site,
        phase=Phase.ADVERTISED,
        revision=1,
        advert=hashlib.sha256(content).digest(),
        channel=channel,
        own=own,
        advert_signature=advert.signature if setup.profile is FIPS else b"",
    )
    return state, content


def advertise_again(state: SiteState, *, signing_key: SigningKey) -> bytes:
    """Return the advert that this state was made with, byte for byte, for a coordinator that lost it.

    Only before the site has shared: from then on the coordinator has what it needs (``one-transcript``).
    """
    require_phase(state, Phase.ADVERTISED, rule="one-transcript")
    advert = _advert(state.setup, state.site, state.channel, state.own).signed_by(signing_key)
    if state.advert_signature:  # signing again may not give the same bytes
        advert = replace(advert, signature=state.advert_signature)
    content = advert.encode()
    if (
        signing_key.public != state.setup.verification_key(state.site)
        or hashlib.sha256(content).digest() != state.advert
    ):
        raise ProtocolError("the signing key is not the one this batch was begun with", rule="wrong-signing-key")
    return content


def _advert(setup: Setup, site: int, channel: Seed, own: tuple[SlotSecrets, ...]) -> Advert:
    seeds = [secrets.self_mask.reveal() for secrets in own]
    return Advert(
        context=setup.context,
        site=site,
        channel_key=exchange_public(channel, setup.profile),
        mask_keys=tuple(exchange_public(secrets.mask_key, setup.profile) for secrets in own),
        commitments=tuple(self_mask_commitment(setup.context, site, r, b) for r, b in enumerate(seeds)),
        profile=setup.profile,
    )


def share(state: SiteState, adverts: bytes, *, random_bytes: RandomBytes) -> tuple[SiteState, bytes]:
    """Return the state bound to the transcript of ``adverts``, and :class:`Envelopes` with shares for
    neighbours.

    A site shares under one transcript only; another set of adverts is refused from then on
    (``one-transcript``). Asked again with the same set, it returns the same bytes again.
    """
    setup, site = state.setup, state.site
    if state.phase is not Phase.SHARED:
        require_phase(state, Phase.ADVERTISED, rule="one-transcript")
    transcript = check_adverts(AdvertSet.decode(adverts), setup)
    if state.phase is Phase.SHARED:
        if transcript.digest != state.transcript:
            raise ProtocolError("this site has shared under another set of adverts", rule="one-transcript")
        return state, state.envelopes
    own_advert = transcript.by_site.get(site)
    if own_advert is None or hashlib.sha256(own_advert.encode()).digest() != state.advert:
        raise ProtocolError("the adverts do not hold this site's own", rule="own-advert-missing")
    neighbours = transcript.graph.neighbours(site)
    threshold = transcript.graph.degree.threshold
    points = tuple(sorted((*neighbours, site)))
    for_holder: dict[int, bytearray] = {point: bytearray() for point in points}
    for secrets in state.own:
        for secret in (secrets.self_mask, secrets.mask_key):
            value = int.from_bytes(secret.reveal(), "big")
            values = split(value, threshold=threshold, points=points, random_bytes=random_bytes)
            for point, part in zip(points, values, strict=True):
                for_holder[point] += encode_element(part)
    mine = bytes(for_holder.pop(site))
    sealed = seal(
        {to: bytes(plain) for to, plain in for_holder.items()},
        channel=state.channel,
        sender=site,
        channel_keys={peer: transcript.by_site[peer].channel_key for peer in neighbours},
        context=setup.context,
        transcript=transcript.digest,
        random_bytes=random_bytes,
        profile=setup.profile,
    )
    message = Envelopes(
        context=setup.context,
        delivered=False,
        site=site,
        transcript=transcript.digest,
        sealed=sealed,
        profile=setup.profile,
    )
    content = message.encode()
    after = replace(
        state,
        phase=Phase.SHARED,
        revision=state.revision + 1,
        transcript=transcript.digest,
        members=transcript.members,
        neighbours=neighbours,
        share_threshold=threshold,
        mask_keys=tuple(b"".join(transcript.by_site[peer].mask_keys) for peer in neighbours),
        channel_keys=tuple(transcript.by_site[peer].channel_key for peer in neighbours),
        dealers=(site,),
        held=tuple(Seed(mine[at : at + PAIR_BYTES]) for at in range(0, len(mine), PAIR_BYTES)),
        envelopes=content,
    )
    return after, content


def accept_shares(state: SiteState, delivery: bytes) -> SiteState:
    """Return the state that is ready for rounds, holding the neighbours' shares; no message follows.

    Neighbours whose envelopes are missing cannot be in a later slot's cohort. If an envelope does not open
    (``bad-envelope``), the coordinator may deliver again without it.
    """
    require_phase(state, Phase.SHARED)
    setup, site = state.setup, state.site
    message = Envelopes.decode(delivery, delivered=True)
    check_context(message, setup)
    if message.site != site:
        raise ProtocolError("the envelopes are for another site", rule="other-recipient")
    if message.transcript != state.transcript:
        raise ProtocolError("the envelopes belong to another transcript", rule="other-transcript")
    channel_keys = dict(zip(state.neighbours, state.channel_keys, strict=True))
    for sender, _ in message.sealed:
        if sender not in channel_keys:
            raise ProtocolError(f"site {sender} is no neighbour of site {site}", rule="unknown-site")
    dealers = tuple(sorted((*(sender for sender, _ in message.sealed), site)))
    needed = state.share_threshold if setup.cohort.sparse else setup.cohort.terms.min_survivors
    if len(dealers) < needed:
        raise ProtocolError(f"{len(dealers)} sites shared, {needed} are needed", rule="cohort-too-small")
    slots = setup.roster.batch_slots
    opened = unseal(
        message.sealed,
        channel=state.channel,
        recipient=site,
        channel_keys=channel_keys,
        context=setup.context,
        transcript=state.transcript,
        slots=slots,
        profile=setup.profile,
    )
    opened[site] = b"".join(shares.reveal() for shares in state.held)
    held = tuple(
        Seed(b"".join(opened[dealer][slot * PAIR_BYTES : (slot + 1) * PAIR_BYTES] for dealer in dealers))
        for slot in range(slots)
    )
    return replace(
        state,
        phase=Phase.READY,
        revision=state.revision + 1,
        channel=ERASED,
        channel_keys=(),
        envelopes=b"",
        dealers=dealers,
        held=held,
    )


def burn(state: SiteState) -> SiteState:
    """Return the state with every secret erased; it refuses all further steps.

    For a site that may have been restored from an older copy of itself: it can no longer know which slots
    it used.
    """
    return replace(
        state,
        phase=Phase.BURNT,
        revision=state.revision + 1,
        channel=ERASED,
        channel_keys=(),
        envelopes=b"",
        own=(SPENT,) * len(state.own),
        held=(ERASED,) * len(state.held),
        open_slot=None,
    )
