"""The one set of adverts that a batch rests on.

Every site checks every advert itself and hashes them all into ``T``. Envelopes are sealed under ``T`` and
every mask is derived from it, so sites that were shown different keys share nothing: neither envelopes open
nor masks cancel.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from fedsci.errors import ProtocolError
from fedsci.secagg.cohort import Setup
from fedsci.secagg.graph import Graph, build_graph
from fedsci.secagg.keys import check_exchange_key, tagged_hash
from fedsci.secagg.messages import Advert, AdvertSet
from fedsci.secagg.signed import check_context, check_sender
from fedsci.secagg.wire import number


def check_advert(advert: Advert, setup: Setup) -> Advert:
    """Return an advert that its site signed for this setup, with the right number of sound keys."""
    check_sender(advert, setup)
    if len(advert.mask_keys) != setup.roster.batch_slots:
        raise ProtocolError(
            f"site {advert.site} advertised {len(advert.mask_keys)} slots, not {setup.roster.batch_slots}",
            rule="batch-slots",
        )
    for key in (advert.channel_key, *advert.mask_keys):
        check_exchange_key(key, setup.profile)
    return advert


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """Adverts that passed every check; made by :func:`check_adverts` only.

    Attributes:
        setup: what they were signed for.
        adverts: by rising site; at least ``min_survivors`` of them.
    """

    setup: Setup
    adverts: tuple[Advert, ...]

    @cached_property
    def digest(self) -> bytes:
        """``T``: the hash of context and adverts, signatures included."""
        return tagged_hash("transcript", self.setup.context, *(advert.encode() for advert in self.adverts))

    @property
    def members(self) -> tuple[int, ...]:
        """The sites that advertised, rising."""
        return tuple(advert.site for advert in self.adverts)

    @cached_property
    def graph(self) -> Graph:
        """Who masks with whom."""
        return build_graph(self.members, self.setup.cohort.terms, self.digest)

    @cached_property
    def by_site(self) -> dict[int, Advert]:
        """The adverts by site."""
        return {advert.site: advert for advert in self.adverts}


def check_adverts(offered: AdvertSet, setup: Setup) -> Transcript:
    """Return the transcript of a set of adverts, or refuse the set.

    Raises:
        ProtocolError: ``duplicate-site``, ``unknown-site``, ``forged-advert``, ``weak-key``,
        ``duplicate-key``,
            ``batch-slots``, ``other-setup`` or ``cohort-too-small``.
    """
    check_context(offered, setup)
    sites = [advert.site for advert in offered.adverts]
    if any(a >= b for a, b in pairwise(sites)):
        raise ProtocolError("adverts are not by rising site", rule="duplicate-site")
    if len(sites) < setup.cohort.terms.min_survivors:
        raise ProtocolError(
            f"{len(sites)} adverts are fewer than min_survivors {setup.cohort.terms.min_survivors}",
            rule="cohort-too-small",
        )
    for advert in offered.adverts:
        check_advert(advert, setup)
    keys = [key for advert in offered.adverts for key in (advert.channel_key, *advert.mask_keys)]
    commitments = [commitment for advert in offered.adverts for commitment in advert.commitments]
    if len(set(keys)) != len(keys) or len(set(commitments)) != len(commitments):
        raise ProtocolError("two adverts share a key or a commitment", rule="duplicate-key")
    return Transcript(setup=setup, adverts=offered.adverts)


def self_mask_commitment(context: bytes, site: int, slot: int, secret: bytes) -> bytes:
    """Return the hash a site publishes of the 32-byte self-mask seed of a slot."""
    return tagged_hash("self-mask commitment", context, number(site, 2), number(slot, 2), secret)
