"""A run folder with a small, whole audit log, for tests that read one or spoil it."""

import hashlib
from base64 import b64encode
from pathlib import Path
from typing import Any

from fedsci.audit.statement import canonical, digest_of, sign_statement
from fedsci.secagg.keys import SigningKey
from fedsci.secagg.seed import Seed

ORIGIN = "fedsci/" + "5f0c" * 8
TIME_S = 1_800_000_000
KEY = SigningKey(Seed(bytes([7]) * 32))
DECISION: dict[str, Any] = {
    "checkpoint": "before:release",
    "role": "privacy_officer",
    "name": "Ada",
    "decision": "approve",
}
DECISION |= {"reason": "fits", "at": TIME_S}
MORE: list[tuple[str, dict[str, Any]]] = [
    ("permit", {"site": "lab-01", "rounds": 3, "epsilon": 2.5, "delta": 1e-5, "not_after": "2027-03-01T08:00:00Z"}),
    ("decision", DECISION),
    ("refusal", {"site": "lab-02", "action": "train", "round": 2, "code": "policy", "message": "not at night"}),
    ("round", {"round": 1, "survivors": ["lab-01", "lab-03"], "dropped": {"lab-02": "late"}}),
    ("spend", {"site": "lab-01", "rounds": 3, "privacy": {"study": 1.98, "enforced_total": 3.5, "budget": 8.0}}),
]


def add_log(run: Path, more: list[tuple[str, dict[str, Any]]] | None = None) -> Path:
    """Give a run folder a log of a plan and these statements, cosigned by two labs, and a manifest."""
    folder = run / "audit"
    (folder / "statements").mkdir(parents=True)
    lines = []
    for kind, body in [("plan", {"plan": "{}"}), *(MORE if more is None else more)]:
        content, digest = sign_statement(kind, body, [KEY]), digest_of(body)
        (folder / "statements" / f"{digest.removeprefix('sha256:')}.json").write_bytes(content)
        named = {key: body[key] for key in ("round", "site") if key in body}
        lines.append(canonical({"kind": kind, "digest": digest, **named}))
    (folder / "entries.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    note = checkpoint(lines)
    (folder / "checkpoint").write_text(note)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / f"{len(lines)}.note").write_text(note)
    (folder / "keys.json").write_bytes(
        canonical({"coordinator": "00", "sites": {"lab-01": "0", "lab-02": "1"}, "quorum": 2})
    )
    files = {path.name: _digest(path.read_bytes()) for path in run.iterdir() if path.is_file()}
    manifest = {"files": files, "size": len(lines), "root": note.split("\n")[2]}
    (folder / "manifest.json").write_bytes(sign_statement("manifest", manifest, [KEY]))
    return run


def checkpoint(lines: list[bytes], cosigners: tuple[str, ...] = ("lab-01", "lab-02")) -> str:
    """Return a note over these entries; its signatures are of the right form and by nobody."""
    signed = [f"— {ORIGIN} {b64encode(bytes(68)).decode()}"]
    stamp = bytes(4) + TIME_S.to_bytes(8, "big") + bytes(64)
    signed += [f"— {site} {b64encode(stamp).decode()}" for site in cosigners]
    root = b64encode(_root([hashlib.sha256(b"\0" + line).digest() for line in lines])).decode()
    return f"{ORIGIN}\n{len(lines)}\n{root}\n\n" + "\n".join(signed) + "\n"


def _root(leaves: list[bytes]) -> bytes:
    """RFC 6962, level by level: an odd last node moves up as it is."""
    while len(leaves) > 1:
        pairs = [leaves[at : at + 2] for at in range(0, len(leaves), 2)]
        leaves = [hashlib.sha256(b"\1" + b"".join(pair)).digest() if len(pair) == 2 else pair[0] for pair in pairs]
    return leaves[0]


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
