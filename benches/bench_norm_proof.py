"""What it costs to prove that an upload's norm is bounded, with a prototype in plain Python.

Usage: python benches/bench_norm_proof.py [--quick] [--json FILE]

``norm_proof.py`` says what is proved. The uploads are as the demonstration's: a clipped sum of at most 378 grid steps,
and one lab's share of noise, of deviation 8 in each number. Seconds are the processor's, of one core; medians. Sizes of
1e5 and 1e6 are not run: their bytes follow from the format, their seconds are those of the two largest sizes that were
run, continued in a straight line. First of all it is tried whether wrong proofs fail.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
from harness import Results, check, main
from norm_curve import generators
from norm_proof import Commitment, Proof, Statement, commit, holds, prove, sums_to
from numpy.typing import NDArray

CLIPPED, DEVIATION = 378, 8  # grid steps: 114 records at norm 1, and one share of noise
SCALED = (100_000, 1_000_000)
SEED = b"drawn by the coordinator after it has the commitment"


def statement(dimension: int, *, rows: int | None = 128) -> Statement:
    """Return the statement of an honest upload: its clipped sum, and noise that its norm passes hardly ever."""
    return Statement(dimension=dimension, bound=int(CLIPPED + DEVIATION * dimension**0.5 + 60), rows=rows)


def upload(dimension: int, *, times: float = 1.0) -> NDArray[np.int64]:
    """Return an honest upload of the largest clipped sum, int64 ``(d,)``, or a multiple of it."""
    rng = np.random.default_rng(dimension)
    clipped = rng.normal(size=dimension)
    noisy = clipped * CLIPPED / np.linalg.norm(clipped) + rng.normal(scale=DEVIATION, size=dimension)
    return np.rint(times * noisy).astype(np.int64)


def refused() -> dict[str, bool]:
    """Return which wrong proofs fail: all of them must, and the right one must not."""
    what = statement(64)
    good, bad = upload(64), upload(64, times=2 * what.slack)
    made = commit(what, good)
    proof = prove(what, good, made, rows_seed=SEED)
    if not holds(what, made.point, proof, rows_seed=SEED):
        raise RuntimeError("an honest proof fails")
    too_long = commit(what, bad)
    other = commit(what, good)

    def fails(commitment: Commitment, said: Proof, seed: bytes = SEED) -> bool:
        return not holds(what, commitment.point, said, rows_seed=seed)

    return {
        "a vector that is too long": fails(too_long, prove(what, bad, too_long, rows_seed=SEED)),
        "the proof of another vector": fails(too_long, proof),
        "another commitment to the same vector": fails(other, proof),
        "rows of the lab's own choice": fails(made, proof, b"chosen by the lab"),
        "a changed response": fails(made, replace(proof, upload=[proof.upload[0] + 1, *proof.upload[1:]])),
        "a changed bit": fails(made, replace(proof, bits=[proof.bits[0] + 1, *proof.bits[1:]])),
        "a changed sum of squares": fails(made, replace(proof, numbers=[*proof.numbers[:-1], 0])),
        "fewer bits": fails(made, replace(proof, bits=proof.bits[:-1])),
        "a sum that was not committed to": not sums_to(
            what, [made.point, other.point], 2 * good + 1, made.blinding + other.blinding
        ),
    }


def timed(action: Callable[[], Any], repeats: int) -> tuple[Any, float]:
    """Return the result, and the median of the processor's seconds."""
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        result = action()
        seconds.append(time.process_time() - began)
    return result, median(seconds)


def cost(what: Statement, repeats: int) -> dict[str, float]:
    """Return what one lab and the coordinator pay for one upload."""
    vector = upload(what.dimension)
    generators.cache_clear()
    _, setup = timed(lambda: what.generators, 1)
    made, committing = timed(lambda: commit(what, vector), repeats)
    proof, proving = timed(lambda: prove(what, vector, made, rows_seed=SEED), repeats)
    right, verifying = timed(lambda: holds(what, made.point, proof, rows_seed=SEED), repeats)
    summed, opening = timed(lambda: sums_to(what, [made.point] * 17, 17 * vector, 17 * made.blinding), repeats)
    if not (right and summed):
        raise RuntimeError("an honest proof fails")
    return {
        "commit_s": committing,
        "prover_s": proving,
        "verifier_s": verifying,
        "sum_check_s": opening,
        "key_s": setup,
        "bytes": proof.size_bytes + 32,
        "over_upload": (proof.size_bytes + 32) / (4 * what.dimension),
    }


def size_bytes(what: Statement) -> int:
    """Return the bytes of a commitment and a proof: ten points, responses, three relations and five blindings."""
    return 32 * (10 + what.dimension + what.numbers + 1 + what.bits + 3 + 5)


def measure(quick: bool) -> Results:
    """Measure sizes, scale to larger ones, and compare with proving every number's range."""
    repeats = 1 if quick else 3
    results = Results(bench="norm_proof")
    failing = refused()
    for name, fails in failing.items():
        print(f"{'refused' if fails else 'PASSES':<10} {name}", flush=True)
    sizes = (160, 650) if quick else (650, 2_600, 10_400)
    found: dict[str, Any] = {}
    for dimension in sizes:
        what = statement(dimension)
        found[f"projected_{dimension}"] = cost(what, repeats)
        _show(f"128 projections, d = {dimension}, measured", found[f"projected_{dimension}"])
        assert found[f"projected_{dimension}"]["bytes"] == size_bytes(what)
    small, large = (found[f"projected_{dimension}"] for dimension in sizes[-2:])
    for dimension in SCALED:
        beyond = (dimension - sizes[-1]) / (sizes[-1] - sizes[-2])
        seconds = {
            name: large[name] + beyond * (large[name] - small[name])
            for name in ("commit_s", "prover_s", "verifier_s", "sum_check_s")
        }
        sent = size_bytes(statement(dimension))
        found[f"projected_{dimension}_scaled"] = seconds | {"bytes": sent, "over_upload": sent / (4 * dimension)}
        _show(f"128 projections, d = {dimension}, seconds scaled", found[f"projected_{dimension}_scaled"])
    exact = statement(64 if quick else 650, rows=None)
    found[f"exact_{exact.dimension}"] = cost(exact, 1)
    _show(f"every number, d = {exact.dimension}, measured", found[f"exact_{exact.dimension}"])
    for dimension in SCALED:
        what, factor = statement(dimension, rows=None), dimension / exact.dimension
        bits = what.number_bits / exact.number_bits
        seconds = {name: found[f"exact_{exact.dimension}"][name] * factor * bits for name in ("prover_s", "verifier_s")}
        found[f"exact_{dimension}_scaled"] = seconds | {
            "bytes": size_bytes(what),
            "over_upload": size_bytes(what) / (4 * dimension),
        }
        _show(f"every number, d = {dimension}, seconds scaled", found[f"exact_{dimension}_scaled"])
    found["slack"] = statement(650).slack
    results.checks = [check("wrong_proofs_refused", float(sum(failing.values())), at_least=float(len(failing)))]
    results.details = found | {"refused": failing}
    print(f"an upload passes hardly ever beyond {found['slack']:.2f} times the bound (128 projections)")
    return results


def _show(name: str, found: dict[str, float]) -> None:
    print(f"{name:<48} " + "  ".join(f"{key} {value:.4g}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main("norm_proof", __doc__ or "", measure)
