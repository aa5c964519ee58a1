"""Which masks a vector gets, and the value that makes them cancel only among sites that agree.

A site uploads ``vector + PRG(self key) + sum over j > i of PRG(pair key ij) - sum over j < i of PRG(pair
key ij)``. Every key is bound to the hash of what the site believes it takes part in (transcript, slot,
cohort, model, configuration, length). Two sites that were given different models therefore hold different
pair keys, and their masks stay: the model-inconsistency attack of Pasquini, Francati, Ateniese, "Eluding
secure aggregation in federated learning via model inconsistency" (CCS 2022, arXiv 2111.07380) yields noise.
"""

from dataclasses import dataclass

from fedsci.errors import ProtocolError
from fedsci.secagg.keys import derive, exchange, tagged_hash
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import DEFAULT
from fedsci.secagg.seed import Seed
from fedsci.secagg.wire import ascending, number, numbers


@dataclass(frozen=True, kw_only=True)
class RoundCall:
    """What one slot is used for, as the site itself sees it.

    Attributes:
        slot: 0 to ``batch_slots - 1``, rising from round to round.
        cohort: rising indices of the sites asked to upload.
        model_digest: SHA-256 of the model the site *received*, computed by the site.
        config_digest: SHA-256 of the round's configuration the site *runs*, computed by the site.
    """

    slot: int
    cohort: tuple[int, ...]
    model_digest: bytes
    config_digest: bytes

    def __post_init__(self) -> None:
        ascending(self.cohort)
        if len(self.model_digest) != 32 or len(self.config_digest) != 32:
            raise ProtocolError("a model or configuration digest is not 32 bytes", rule="malformed-message")


def bind_call(call: RoundCall, *, transcript: bytes, length: int) -> bytes:
    """Return the 32 bytes that every honest site of a round must arrive at."""
    parts = (
        number(call.slot, 2),
        numbers(call.cohort),
        call.model_digest,
        call.config_digest,
        number(length, 8),
    )
    return tagged_hash("bind", transcript, *parts)


def self_key(secret: Seed, *, context: bytes, site: int, slot: int, bind: bytes, profile: Profile = DEFAULT) -> Seed:
    """Return the key of the mask that only the site's own seed makes."""
    parts = (number(slot, 2), number(site, 2), bind)
    return derive(secret, salt=context, label="self mask", parts=parts, profile=profile)


def pair_masks(
    secret: Seed,
    *,
    site: int,
    peers: dict[int, bytes],
    context: bytes,
    slot: int,
    transcript: bytes,
    bind: bytes,
    profile: Profile = DEFAULT,
) -> list[tuple[Seed, int]]:
    """Return ``site``'s masks with ``peers``: the lower index adds, the higher subtracts.

    ``secret`` is the site's mask-key seed of this slot, ``peers`` maps an index to its mask key of this slot.
    """
    masks = []
    for peer, shared in zip(peers, exchange(secret, tuple(peers.values()), profile), strict=True):
        low, high = min(site, peer), max(site, peer)
        parts = (number(slot, 2), number(low, 2), number(high, 2), transcript, bind)
        key = derive(shared, salt=context, label="pair mask", parts=parts, profile=profile)
        masks.append((key, 1 if site == low else -1))
    return masks
