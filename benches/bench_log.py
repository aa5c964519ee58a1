"""How long the audit log takes, and how many bytes: 100,000 entries appended and proven.

Measured: the tree in memory; an inclusion and a consistency proof of every entry, made and checked; the entries on disk
with one fsync and one signed checkpoint per 1,000; the log opened again; a statement logged durably, as a run does it;
and a checkpoint that 17 sites cosigned with Ed25519 and ML-DSA-44. There is no target.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from harness import Results, main

from fedsci.audit.checkpoint import Checkpoint
from fedsci.audit.entries import FILE, EntryFile, make_entry
from fedsci.audit.log import NEWEST, AuditLog
from fedsci.audit.merkle import Tree, check_consistency, check_inclusion, leaf_hash
from fedsci.audit.note import add_line, open_checkpoint, sign_note
from fedsci.audit.note_keys import PostQuantumKey, cosignature_line
from fedsci.audit.statement import sign_statement
from fedsci.identity.files import replace_private
from fedsci.names import digest
from fedsci.secagg.keys import SigningKey
from fedsci.secagg.seed import Seed

ENTRIES, PER_CHECKPOINT, SITES = 100_000, 1_000, 17
ORIGIN = "fedsci/" + "5f" * 16
COORDINATOR = SigningKey(Seed(bytes(32)))
KEYS = {f"lab-{number:02}": SigningKey(Seed(bytes([number]) * 32)) for number in range(1, SITES + 1)}
LATTICE = {site: PostQuantumKey(Seed(bytes([number]) * 32)) for number, site in enumerate(KEYS, start=1)}


@contextmanager
def timed(details: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    details[name] = time.perf_counter() - start


def in_memory(lines: list[bytes], details: dict[str, float], proven: int) -> None:
    """Append, then prove and check entries spread over the whole log."""
    tree, step = Tree(), len(lines) // proven
    with timed(details, "memory_append_s"):
        for line in lines:
            tree.append(line)
    size, root = len(tree), tree.root()
    with timed(details, "inclusion_made_s"):
        inclusion = [tree.inclusion_proof(index) for index in range(0, size, step)]
    with timed(details, "inclusion_checked_s"):
        for index, proof in zip(range(0, size, step), inclusion, strict=True):
            check_inclusion(leaf_hash(lines[index]), index, size, proof, root)
    with timed(details, "consistency_made_s"):
        consistency = [tree.consistency_proof(old) for old in range(1, size, step)]
    roots = [tree.root(old) for old in range(1, size, step)]
    with timed(details, "consistency_checked_s"):
        for old, proof, old_root in zip(range(1, size, step), consistency, roots, strict=True):
            check_consistency(old, size, proof, old_root, root)
    details["proofs_each"] = len(inclusion)
    details["inclusion_proof_bytes_most"] = 32 * max(map(len, inclusion))
    details["consistency_proof_bytes_most"] = 32 * max(map(len, consistency))


def on_disk(folder: Path, digests: list[str], details: dict[str, float]) -> None:
    """Append with one fsync and one signed checkpoint per 1,000 entries; open again and compare the roots."""
    file = EntryFile(folder / FILE, covered=0)
    with timed(details, "disk_append_s"):
        for index, one in enumerate(digests):
            file.append(make_entry(index, "round", one, round=index))
            if (index + 1) % PER_CHECKPOINT == 0:
                file.sync()
                point = Checkpoint(origin=ORIGIN, size=index + 1, root=file.tree.root())
                replace_private(folder / NEWEST, sign_note(point, COORDINATOR))
    root = file.tree.root()
    file.close()
    details["disk_bytes"] = (folder / FILE).stat().st_size
    with timed(details, "disk_open_again_s"):
        again = EntryFile(folder / FILE, covered=len(digests))
    assert again.tree.root() == root
    again.close()


def as_a_run(folder: Path, statements: int, details: dict[str, float]) -> None:
    """Log signed statements one by one, each durable at once."""
    sites = {site: key.public for site, key in KEYS.items()}
    log = AuditLog(folder, origin=ORIGIN, signer=COORDINATOR, sites=sites, quorum=10)
    took = []
    for number in range(statements):
        envelope = sign_statement("round", {"run": ORIGIN, "round": number}, [COORDINATOR])
        start = time.perf_counter()
        log.append("round", envelope, round=number)
        took.append(time.perf_counter() - start)
    details["statement_durable_ms"] = median(took) * 1e3
    point = (log.checkpoint() and log.newest()).checkpoint
    lines = {site: cosignature_line(point, site, key, time=1) for site, key in KEYS.items()}
    with timed(details, "seventeen_cosignatures_kept_s"):
        for site, line in lines.items():
            log.add_cosignature(site, line)
    details["note_bytes"] = len(log.newest().content)
    with timed(details, "seventeen_lattice_cosignatures_made_s"):
        lattice = [cosignature_line(point, site, key, time=1) for site, key in LATTICE.items()]
    content = log.newest().content
    for line in lattice:
        content = add_line(content, line)
    details["note_bytes_with_lattice"] = len(content)
    both = {site: (KEYS[site].public, LATTICE[site].public) for site in KEYS}
    with timed(details, "note_with_lattice_checked_s"):
        open_checkpoint(content, origin=ORIGIN, coordinator=COORDINATOR.public, cosigners=both)
    log.close()


def measure(quick: bool) -> Results:
    """Measure in memory, on disk, and as a run does it."""
    results = Results(bench="log")
    digests = [str(digest(b"%d" % number)) for number in range(ENTRIES)]
    lines = [make_entry(index, "round", one, round=index).line for index, one in enumerate(digests)]
    in_memory(lines, results.details, 10_000 if quick else ENTRIES)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:  # not in memory, where fsync costs nothing
        on_disk(Path(folder) / "entries", digests, results.details)
        as_a_run(Path(folder) / "run", 100 if quick else 1_000, results.details)
    for name, value in results.details.items():
        print(f"{name:<40} {value:.4g}", flush=True)
    return results


if __name__ == "__main__":
    main("log", __doc__ or "", measure)
