"""A coordinator that only listens recovers one site's vector from Flower's SecAgg+ primitives, and not from ours.

Flower 1.41 makes each pairwise mask with ``pseudo_rand_gen``: the 44 base64 characters of the shared key are folded
by XOR into 32 bits, which seed a Mersenne Twister. Base64 is ASCII, so the top bit of every byte is zero:
28 bits are left to guess. A right guess shows at once, because a quantised update is far smaller than the
modulus.

**Reduced setting, said plainly:** two sites, one pairwise mask, and the search is told all but ``--bits`` bits of the
28-bit seed, so that it ends in seconds in plain numpy. The full search is the same loop over 2^28 seeds; the time it
would take at the speed measured here is printed. The private mask (``rd_seed``) is not attacked: the protocol
itself hands it to the coordinator for every site that finishes.

    python docs/demonstrations/secaggplus_key_search.py [--bits 16]
"""

import argparse
import hashlib
import os
import sys
import time

import numpy as np
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import generate_key_pairs

from fedsci import secagg

MODULUS, TARGET = 1 << 32, 1 << 22  # Flower's defaults: mod_range, quantization_range
LENGTH = 8
SEED_BITS = 28


def folded(key: bytes) -> int:
    """Return the seed that ``pseudo_rand_gen`` makes of a key."""
    seed = 0
    for i in range(0, len(key), 4):
        seed ^= int.from_bytes(key[i : i + 4], "little")
    return seed


def flower_upload(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Return one site's vector under its pairwise mask, as Flower's client masks it, and the seed it hid behind."""
    (own, _), (_, peer_public) = generate_key_pairs(), generate_key_pairs()
    key = generate_shared_key(own, peer_public)
    (mask,) = pseudo_rand_gen(key, MODULUS, [values.shape])
    return (values + mask) % MODULUS, folded(key)


def search(masked: np.ndarray, seeds: list[int]) -> tuple[np.ndarray | None, float]:
    """Try every seed; return the first vector that looks like an update, and seeds tried a second."""
    began, tried = time.perf_counter(), 0
    for tried, seed in enumerate(seeds, start=1):
        mask = np.random.RandomState(seed).randint(0, MODULUS - 1, masked.shape, dtype=np.int64)
        guess = (masked - mask) % MODULUS
        if (guess <= TARGET).all():
            return guess, tried / (time.perf_counter() - began)
    return None, tried / (time.perf_counter() - began)


def candidates(seed: int, bits: int) -> list[int]:
    """Return the ``2**bits`` seeds that agree with ``seed`` outside of the lowest free bits."""
    free = [position for position in range(32) if position % 8 != 7][:bits]
    base = seed & ~sum(1 << position for position in free)
    spread = np.zeros(1 << bits, np.int64)
    for at, position in enumerate(free):
        spread |= ((np.arange(1 << bits) >> at) & 1) << position
    order = np.argsort(np.frombuffer(os.urandom(8 << bits), np.uint64))  # so that the hit is not first or last
    return [int(base | extra) for extra in spread[order]]


def our_upload(values: np.ndarray) -> np.ndarray:
    """Return the same site's vector as fedsci uploads it."""
    keys = {i: secagg.SigningKey(secagg.Seed(os.urandom(32))) for i in (1, 2, 3)}
    sites = tuple(secagg.RosterSite(index=i, name=f"lab-{i}", verification_key=k.public) for i, k in keys.items())
    roster = secagg.Roster(serial=1, sites=sites, terms=secagg.default_terms(3), ring_bits=32)
    cohort = secagg.choose_cohort(roster, site_bound=TARGET)
    setup = secagg.Setup(roster=roster, cohort=cohort, run=os.urandom(32), batch=0)
    collector, states = secagg.SetupCollector(setup), {}
    for i, key in keys.items():
        states[i], advert = secagg.advertise(setup, site=i, signing_key=key, random_bytes=os.urandom)
        collector.add_advert(advert)
    adverts = collector.close_adverts()
    for i in keys:
        states[i], envelopes = secagg.share(states[i], adverts, random_bytes=os.urandom)
        collector.add_envelopes(envelopes)
    _, deliveries = collector.close_envelopes()
    digest = hashlib.sha256(b"round").digest()
    call = secagg.RoundCall(slot=0, cohort=(1, 2, 3), model_digest=digest, config_digest=digest)
    state = secagg.accept_shares(states[1], deliveries[1])
    _, masked = secagg.mask(state, call, ring_vector(values), signing_key=keys[1])
    return masked.payload.astype(np.int64)


def ring_vector(values: np.ndarray) -> np.ndarray:
    """Return the values as 32-bit ring elements."""
    return values.astype(np.uint32)


def main() -> int:
    """Run the search against both and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bits", type=int, default=16, choices=range(1, 23), metavar="BITS", help="of 28, to search")
    bits = parser.parse_args().bits
    secret = np.frombuffer(os.urandom(8 * LENGTH), np.uint64).astype(np.int64) % TARGET
    print(f"the site's quantised vector      {secret.tolist()}")
    masked, seed = flower_upload(secret)
    print(f"what the coordinator receives    {masked.tolist()}")
    found, rate = search(masked, candidates(seed, bits))
    print(f"recovered from Flower's masks    {'nothing' if found is None else found.tolist()}")
    print(f"  reduced setting: {bits} of {SEED_BITS} seed bits searched, {rate:,.0f} seeds a second, one core, numpy;")
    print(f"  all 2^{SEED_BITS} at this speed: {2**SEED_BITS / rate / 3600:.1f} hours, less with compiled code")
    ours, _ = search(our_upload(secret), candidates(seed, bits))
    print(f"the same search against fedsci   {'nothing' if ours is None else ours.tolist()}")
    print("  its masks come from AES-256 under a 256-bit key that is folded nowhere, plus a mask of the site's own")
    return 0 if found is not None and (found == secret).all() and ours is None else 1


if __name__ == "__main__":
    sys.exit(main())
