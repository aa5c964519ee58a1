"""What secure aggregation costs, beside plain averaging and two other ways to hide updates.

CPU time of one process (``time.process_time``), medians, every ratio from one run. 17 sites, nobody dropped
unless said. The coordinator is compared without checking payload digests, which plain averaging does not do
either; with them it is a check of its own. Memory was touched before, ours as plain averaging's; with fresh
memory it is a row. Flower's figures run the operations of its released client mod and workflow, in their
order, on the same vectors, without its transport. TenSEAL is measured only where it is installed.
"""

import hashlib
import importlib.util
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
from harness import Results, check, main

from fedsci import secagg
from fedsci.secagg.prg import add_masks
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import DEFAULT, PROFILES

SITES = 17
Timed = Callable[[], object]


def cpu_s(step: Timed) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def median_s(step: Timed, repeats: int) -> float:
    return statistics.median(cpu_s(step) for _ in range(repeats))


class Fleet:
    """Sites and a coordinator in memory after one setup, whose CPU time is kept."""

    def __init__(
        self,
        sites: int,
        *,
        ring_bits: int,
        slots: int = 32,
        bound: int = 1000,
        only: int | None = None,
        profile: Profile = DEFAULT,
    ) -> None:
        seeds = {i: secagg.Seed(os.urandom(profile.seed_bytes)) for i in range(1, sites + 1)}
        self.keys = {i: secagg.SigningKey(seed) for i, seed in seeds.items()}
        roster = secagg.Roster(
            serial=1,
            sites=tuple(
                secagg.RosterSite(index=i, name=f"lab-{i}", verification_key=key.public) for i, key in self.keys.items()
            ),
            terms=secagg.default_terms(sites),
            batch_slots=slots,
            ring_bits=ring_bits,
        )
        total = min(bound * sites, secagg.RingSpec(bits=ring_bits).largest_sum)
        cohort = secagg.choose_cohort(roster, site_bound=min(bound, total), total_bound=total)
        self.setup = secagg.Setup(roster=roster, cohort=cohort, run=os.urandom(32), batch=0)
        collector = secagg.SetupCollector(self.setup)
        self.states: dict[int, secagg.SiteState] = {}
        self.site_s = dict.fromkeys(self.keys, 0.0)
        self.up_bytes = dict.fromkeys(self.keys, 0)
        for i in self.keys:
            start = time.process_time()
            self.states[i], advert = secagg.advertise(
                self.setup, site=i, signing_key=self.keys[i], random_bytes=os.urandom
            )
            self.site_s[i] += time.process_time() - start
            self.up_bytes[i] += len(advert)
            collector.add_advert(advert)
        adverts = collector.close_adverts()
        if only is not None:
            self._set_up_one(only, adverts)
            return
        for i in self.keys:
            start = time.process_time()
            self.states[i], envelopes = secagg.share(self.states[i], adverts, random_bytes=os.urandom)
            self.site_s[i] += time.process_time() - start
            self.up_bytes[i] += len(envelopes)
            collector.add_envelopes(envelopes)
        self.ready, deliveries = collector.close_envelopes()
        for i, delivery in deliveries.items():
            start = time.process_time()
            self.states[i] = secagg.accept_shares(self.states[i], delivery)
            self.site_s[i] += time.process_time() - start

    def _set_up_one(self, site: int, adverts: bytes) -> None:
        """Bring one site of a large sparse cohort to readiness: only its neighbours need to share."""
        from fedsci.secagg.messages import Envelopes

        start = time.process_time()
        self.states[site], _ = secagg.share(self.states[site], adverts, random_bytes=os.urandom)
        self.site_s[site] += time.process_time() - start
        sealed = []
        for peer in self.states[site].neighbours:
            _, content = secagg.share(self.states[peer], adverts, random_bytes=os.urandom)
            sealed.append((peer, dict(Envelopes.decode(content, delivered=False).sealed)[site]))
        message = Envelopes(
            context=self.setup.context,
            delivered=True,
            site=site,
            transcript=self.states[site].transcript,
            sealed=tuple(sealed),
        )
        self.states[site] = secagg.accept_shares(self.states[site], message.encode())

    def call(self, slot: int) -> secagg.RoundCall:
        return secagg.RoundCall(
            slot=slot,
            cohort=tuple(self.keys),
            model_digest=bytes(32),
            config_digest=hashlib.sha256(b"bench").digest(),
        )

    def mask(self, site: int, call: secagg.RoundCall, vector: secagg.RingVector) -> secagg.MaskedInput:
        self.states[site], masked = secagg.mask(
            self.states[site], call, vector, signing_key=self.keys[site], in_place=True
        )
        return masked


def measure_round(
    fleet: Fleet,
    slot: int,
    values: np.ndarray,
    room: list[np.ndarray] | None,
    *,
    dropped: tuple[int, ...] = (),
    check_payloads: bool = False,
) -> dict[str, float]:
    """One real round, in the vectors of ``room`` if given: median site CPU, coordinator CPU, bytes up."""
    bits = fleet.setup.cohort.ring_bits
    grid = secagg.Quantisation(
        bound=1.0, levels=fleet.setup.cohort.site_bound, sites=SITES, ring=secagg.RingSpec(bits=bits)
    )
    call = fleet.call(slot)
    start = time.process_time()
    collector = secagg.RoundCollector(
        fleet.ready,
        call,
        length=values.size,
        check_payloads=check_payloads,
        accumulator=None if room is None else room[0],
    )
    coordinator_s = time.process_time() - start
    quantise_s, mask_s, answer_s, up_bytes = [], [], [], 0
    sent: list[secagg.MaskedInput] = []
    for site in fleet.keys:
        if site in dropped:
            continue
        start = time.process_time()
        vector = secagg.quantise(values, grid, out=None if room is None else room[site]).vector
        middle = time.process_time()
        masked = fleet.mask(site, call, vector)
        end = time.process_time()
        quantise_s.append(middle - start)
        mask_s.append(end - middle)
        up_bytes = len(masked.header) + masked.payload.nbytes
        sent.append(masked)
    start = time.process_time()
    # All vectors exist before the first is added, so none is still warm in the cache.
    for masked in sent:
        collector.add_input(masked.header, masked.payload.data)
    listed = collector.close_inputs()
    coordinator_s += time.process_time() - start
    for site in collector.uploaded:
        start = time.process_time()
        fleet.states[site], answer = secagg.answer_survivors(fleet.states[site], listed, signing_key=fleet.keys[site])
        answer_s.append(time.process_time() - start)
        start = time.process_time()
        (collector.add_vote if dropped else collector.add_shares)(answer)
        coordinator_s += time.process_time() - start
        up_bytes += len(answer) if site == collector.uploaded[-1] else 0
    if dropped:
        votes = collector.close_votes()
        for site in collector.uploaded:
            fleet.states[site], answer = secagg.answer_votes(fleet.states[site], votes, signing_key=fleet.keys[site])
            start = time.process_time()
            collector.add_shares(answer)
            coordinator_s += time.process_time() - start
    start = time.process_time()
    result = collector.finish()
    coordinator_s += time.process_time() - start
    levels = np.rint(values[:1000].astype(np.float64) * grid.levels).astype(np.int64)
    assert np.array_equal(result.total[:1000], levels * len(result.survivors)), "the sum is not exact"
    return {
        "site_quantise_s": statistics.median(quantise_s),
        "site_mask_s": statistics.median(mask_s),
        "site_answer_s": statistics.median(answer_s),
        "coordinator_s": coordinator_s,
        "bytes_up": up_bytes,
    }


def measure_masks(length: int, dtype: str, repeats: int) -> float:
    """Nanoseconds a parameter a mask of the engine alone, 17 masks."""
    vector = np.zeros(length, dtype)
    masks = [(secagg.Seed(os.urandom(32)), 1 if i % 2 else -1) for i in range(SITES)]
    add_masks(vector, masks)
    return median_s(lambda: add_masks(vector, masks), repeats) / (length * SITES) * 1e9


def plain_averaging(length: int) -> Timed:
    """A step that averages 17 float32 vectors in place."""
    rng = np.random.default_rng(0)
    vectors = [rng.random(length, dtype=np.float32) for _ in range(SITES)]
    total = np.zeros(length, np.float32)

    def average() -> None:
        total[:] = vectors[0]
        for vector in vectors[1:]:
            np.add(total, vector, out=total)
        np.divide(total, SITES, out=total)

    average()
    return average


def measure_flower(values: np.ndarray, repeats: int) -> dict[str, float]:
    """Flower's SecAgg+ on one vector, every site a neighbour of every other, nobody dropped.

    Site: scale, quantise, 1 private and 16 pairwise masks, reduce, serialise (``secaggplus_mod``).
    Coordinator: parse and add 17 vectors, remove 17 private masks, reduce, dequantise
    (``secaggplus_workflow``).
    """
    from flwr.common import bytes_to_ndarray, ndarray_to_bytes
    from flwr.common.secure_aggregation import ndarrays_arithmetic as arithmetic
    from flwr.common.secure_aggregation.quantization import dequantize, quantize
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

    clipping, target, modulus = 8.0, 1 << 22, 1 << 32
    seeds = [os.urandom(32) for _ in range(SITES)]
    sent: list[bytes] = []

    def site() -> None:
        vectors = arithmetic.parameters_multiply([values], 1.0)
        vectors = quantize(vectors, clipping, target)
        vectors = arithmetic.factor_combine(target, vectors)
        shapes = [vector.shape for vector in vectors]
        vectors = arithmetic.parameters_addition(vectors, pseudo_rand_gen(seeds[0], modulus, shapes))
        for number, seed in enumerate(seeds[1:]):
            mask = pseudo_rand_gen(seed, modulus, shapes)
            combine = arithmetic.parameters_addition if number % 2 else arithmetic.parameters_subtraction
            vectors = combine(vectors, mask)
        vectors = arithmetic.parameters_mod(vectors, modulus)
        sent[:] = [ndarray_to_bytes(vector) for vector in vectors]

    def coordinator() -> None:
        total = [bytes_to_ndarray(part) for part in sent]
        for _ in range(SITES - 1):
            total = arithmetic.parameters_addition(total, [bytes_to_ndarray(part) for part in sent])
        total = arithmetic.parameters_mod(total, modulus)
        for seed in seeds:
            mask = pseudo_rand_gen(seed, modulus, arithmetic.get_parameters_shape(total))
            total = arithmetic.parameters_subtraction(total, mask)
        total = arithmetic.parameters_mod(total, modulus)
        _, total = arithmetic.factor_extract(total)
        for vector in dequantize(total, clipping, target):
            vector += 1.0
            vector *= 1.0

    site_s = median_s(site, repeats)
    return {
        "site_s": site_s,
        "coordinator_s": median_s(coordinator, repeats),
        "bytes_up": sum(map(len, sent)),
    }


def measure_tenseal(values: np.ndarray) -> dict[str, float] | None:
    """CKKS with 8192 slots and a 60/40/40 modulus, or ``None`` where TenSEAL is not installed."""
    if importlib.util.find_spec("tenseal") is None:
        return None
    import tenseal  # type: ignore[import-not-found]

    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40])
    context.global_scale = 2**40
    sent: list[list[bytes]] = []

    def site() -> None:
        parts = (values[at : at + 4096].tolist() for at in range(0, values.size, 4096))
        sent[:] = [[tenseal.ckks_vector(context, part).serialize() for part in parts]]

    def coordinator() -> None:
        for part in sent[0]:
            total = tenseal.ckks_vector_from(context, part)
            for _ in range(SITES - 1):
                total += tenseal.ckks_vector_from(context, part)
            total.serialize()

    site_s = cpu_s(site)
    return {"site_s": site_s, "coordinator_s": cpu_s(coordinator), "bytes_up": sum(map(len, sent[0]))}


def measure_sparse(length: int, ring_bits: int) -> dict[str, float]:
    """One site of 200 in the sparse graph."""
    fleet = Fleet(200, ring_bits=ring_bits, slots=3, bound=100, only=1)
    taken = []
    for slot in range(3):
        vector = fleet.setup.cohort.ring.zeros(length)
        taken.append(cpu_s(lambda slot=slot, vector=vector: fleet.mask(1, fleet.call(slot), vector)))  # type: ignore[misc]
    return {
        "neighbours": len(fleet.states[1].neighbours),
        "site_ns_per_param": statistics.median(taken) / length * 1e9,
    }


def measure_profile(profile: Profile, length: int) -> dict[str, object]:
    """A batch's setup and three rounds in one crypto profile."""
    fleet = Fleet(SITES, ring_bits=16, profile=profile)
    values = np.clip(np.random.default_rng(1).normal(0, 0.2, length), -1, 1).astype(np.float32)
    rounds = [measure_round(fleet, slot, values, None) for slot in range(3)]
    row: dict[str, object] = {"crypto_profile": profile.name, "parameters": length}
    row |= {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    row |= {
        "setup_ms": statistics.median(fleet.site_s.values()) * 1e3,
        "setup_up_bytes": statistics.median(fleet.up_bytes.values()),
    }
    return row


def measure(quick: bool) -> Results:
    """Measure all sizes in both rings, each beside plain averaging and the peers."""
    repeats = 3 if quick else 5
    sizes = [10_000_000] if quick else [100_000, 1_000_000, 10_000_000]
    rows: list[dict[str, object]] = []
    for length in sizes:
        values = np.clip(np.random.default_rng(1).normal(0, 0.2, length), -1, 1).astype(np.float32)
        average = plain_averaging(length)
        engine = {bits: measure_masks(length, f"<u{bits // 8}", repeats) for bits in (16, 32)}
        for bits in (16, 32):
            fleet = Fleet(SITES, ring_bits=bits)
            # Memory is touched once before anything is timed, as plain averaging's is.
            room = [np.ones(length, f"<u{bits // 8}") for _ in range(SITES + 1)]
            # Round and plain averaging take turns, so that a busy moment of the machine meets both.
            rounds = [measure_round(fleet, slot, values, room) | {"plain_s": cpu_s(average)} for slot in range(repeats)]
            row: dict[str, object] = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
            row |= {"parameters": length, "ring_bits": bits}
            row["ns_per_param_per_mask"] = engine[bits]
            slots = iter(range(repeats, 32))
            for name, rest in {
                "coordinator_checking_digests_s": {"check_payloads": True},
                "coordinator_one_dropped_s": {"dropped": (9,)},
            }.items():
                again = [measure_round(fleet, next(slots), values, room, **rest) for _ in range(3)]  # type: ignore[arg-type]
                row[name] = statistics.median(r["coordinator_s"] for r in again)
            fresh = measure_round(fleet, next(slots), values, None)
            row |= {f"{name}_fresh_memory": fresh[name] for name in ("site_quantise_s", "coordinator_s")}
            row["setup_ms"] = statistics.median(fleet.site_s.values()) * 1e3
            row["setup_up_bytes"] = statistics.median(fleet.up_bytes.values())
            rows.append(row)
        flower = measure_flower(values, 3 if length == 10_000_000 else repeats)
        rows.append({"parameters": length, "peer": "flower SecAgg+", **flower})
        ckks = measure_tenseal(values[: min(length, 1_000_000)])
        rows.append({"parameters": min(length, 1_000_000), "peer": "tenseal CKKS", **(ckks or {"value": None})})
    sparse = {bits: measure_sparse(1_000_000 if quick else 10_000_000, bits) for bits in (16, 32)}
    rows += [{"sites": 200, "ring_bits": bits, **found} for bits, found in sparse.items()]
    for size in (1_000, 1_000_000):
        rows += [measure_profile(profile, size) for profile in PROFILES.values()]
    for row in rows:
        print("  ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()))

    ours = next(r for r in rows if r.get("parameters") == 10_000_000 and r.get("ring_bits") == 16)
    flower = next(r for r in rows if r.get("parameters") == 10_000_000 and r.get("peer") == "flower SecAgg+")  # type: ignore[assignment]
    number = {name: float(value) for name, value in ours.items() if isinstance(value, int | float)}
    site_s = number["site_quantise_s"] + number["site_mask_s"] + number["site_answer_s"]
    results = Results(bench="secagg", details={"rows": rows})
    results.checks = [
        check("site_ns_per_param_per_mask_u16_1e7", number["ns_per_param_per_mask"], at_most=0.35),
        check("coordinator_over_plain_1e7", number["coordinator_s"] / number["plain_s"], at_most=1.5),
        check("speedup_site_over_flower_1e7", flower["site_s"] / site_s, at_least=20),
        check("speedup_coordinator_over_flower_1e7", flower["coordinator_s"] / number["coordinator_s"], at_least=20),
        check(
            "coordinator_checking_digests_over_plain_1e7",
            number["coordinator_checking_digests_s"] / number["plain_s"],
            at_most=1.5,
        ),
        check("bytes_up_per_param", number["bytes_up"] / 1e7, at_most=2.01),
        check("setup_ms_per_site", number["setup_ms"], at_most=20),
        check("site_ns_per_param_n200_u16", sparse[16]["site_ns_per_param"], at_most=30),
        check("site_ns_per_param_n200_u32", sparse[32]["site_ns_per_param"], at_most=30),
        check("site_ns_per_param_1e7", site_s / 1e7 * 1e9, at_most=12),
    ]
    return results


if __name__ == "__main__":
    main("secagg", (__doc__ or "").splitlines()[0], measure)
