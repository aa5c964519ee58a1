"""What is signed and logged: envelopes, notes, entries, proofs, permits, decisions.

A body that only its signer could have written is signed anew after it was changed: a signer may be hostile too.
"""

import contextlib
import json
import shutil
import tempfile
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from fedsci.audit.checkpoint import Checkpoint, read_body
from fedsci.audit.entries import EntryFile, read_entry
from fedsci.audit.merkle import Tree, check_consistency, check_inclusion, leaf_hash
from fedsci.audit.note import open_note, sign_note
from fedsci.audit.note_keys import cosigner_key, log_key
from fedsci.audit.statement import add_signature, canonical, open_statement, peek, sign_statement
from fedsci.audit.verification import verify_log
from fedsci.audit.witness import Witness
from fedsci.coordinator.deciding import hand_in, open_request
from fedsci.coordinator.decisions import Point, open_decision, question_from, sign_decision
from fedsci.errors import VerificationFailed
from fedsci.site.permit import permit_in, read_permit
from tests.audit.runs import COORDINATOR, LABS, ORIGIN, QUORUM, SITES, TIME, cosign, open_log, run, witness_of
from tests.fuzz.engine import Target, home

LAB = LABS["lab-1"]
POINT = Point(
    run="0" * 32,
    plan="sha256:" + "1" * 64,
    checkpoint="before:release",
    model="sha256:" + "2" * 64,
    signers={"officer": (LAB.public.hex(),)},
)


def values_in(data: bytes) -> Any:
    """Return the JSON of an input for a target whose input is JSON anyway; refuses as such a target would."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise VerificationFailed("no JSON") from None


def statement(data: bytes) -> None:
    """An envelope from anyone; whose key did not sign it does not open it."""
    kind, body = peek(data)
    assert canonical(body)
    problems = list[VerificationFailed]()
    for key in (COORDINATOR.public, LAB.public):
        try:
            assert open_statement(kind, data, [key]).body == body
        except VerificationFailed as error:
            problems.append(error)
    with contextlib.suppress(VerificationFailed):
        peek(add_signature(data, LAB))
    if len(problems) == 2:
        raise problems[0]


def permit(data: bytes) -> None:
    """A permit's body, signed by a site that is hostile."""
    body = values_in(data)
    if not isinstance(body, dict):
        raise VerificationFailed("no body")
    read = permit_in(sign_statement("permit", body, [LAB]))
    assert read_permit(read.to_json()) == read


def decision(data: bytes) -> None:
    """A decision's body, signed by whoever may decide."""
    body = values_in(data)
    if not isinstance(body, dict):
        raise VerificationFailed("no body")
    content = sign_statement("decision", body, [LAB])
    json.dumps(open_decision(POINT, content, now=float(TIME)).to_json(), allow_nan=False)


def envelope_of_decision(data: bytes) -> None:
    """A decision's file, from anyone."""
    open_decision(POINT, data, now=float(TIME))


def question(data: bytes) -> None:
    """A request for a decision, as ``fedsci decide`` reads it; what it shows stays on its lines."""
    asked = question_from(data)
    for line in asked.facts():
        assert "\n" not in line
    asked.to_bytes().decode("utf-8")
    sign_decision(asked.point, role="officer", name="A", answer="approve", key=LAB, now=float(TIME))


def handed_over(data: bytes) -> None:
    """A run folder of somebody else's whose request is this: what is handed in lies beside it."""
    with tempfile.TemporaryDirectory() as place:
        run = Path(place, "a", "run")
        folder = run / "decisions"
        (folder / "...").mkdir(parents=True)  # where a draft of ../../x would lie
        (folder / "x.request.json").write_bytes(data)
        point = open_request(run).point
        for role in point.signers:
            asked = replace(point, signers={role: (LAB.public.hex(),)})
            content = sign_decision(asked, role=role, name="A", answer="approve", key=LAB, now=time.time())
            try:
                hand_in(run, content)
            finally:
                left = {path.parent for path in Path(place).rglob("*") if path.is_file()}
                assert left == {folder}, left


def note(data: bytes) -> None:
    """A checkpoint with signatures."""
    keys = [log_key(ORIGIN, COORDINATOR.public), *(cosigner_key(site, public) for site, public in SITES.items())]
    opened = open_note(data, keys)
    assert opened.checkpoint.body() == data.rpartition(b"\n\n")[0] + b"\n"


def checkpoint(data: bytes) -> None:
    """A checkpoint's text."""
    assert read_body(data).body() == data


def entry(data: bytes) -> None:
    """A line of a log."""
    assert read_entry(0, data).line == data


def entry_file(data: bytes) -> None:
    """A log's file, as its coordinator finds it again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "entries.jsonl")
        path.write_bytes(data)
        EntryFile(path, covered=1).close()


def proof(data: bytes) -> None:
    """Proofs and sizes as JSON brings them; never a loop, however large the numbers."""
    values = values_in(data)
    try:
        index, size, old = (int(values[name]) for name in ("index", "size", "old"))
        hashes = [b64decode(one, validate=True) for one in values["hashes"]]
        roots = [b64decode(values[name], validate=True) for name in ("root", "old_root")]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise VerificationFailed("no proof") from None
    for check in (
        lambda: check_inclusion(leaf_hash(b"1"), index, size, hashes, roots[0]),
        lambda: check_consistency(old, size, hashes, roots[1], roots[0]),
    ):
        with contextlib.suppress(VerificationFailed):
            check()


@cache
def _log() -> Path:
    folder = Path(tempfile.mkdtemp(dir=home()))
    run(folder, rounds=2).close()
    return folder / "audit"


def log_folder(data: bytes) -> None:
    """A log's folder with one file of anyone's, as ``fedsci verify`` and a restarted coordinator read it."""
    name, _, content = data.partition(b"\n")
    with tempfile.TemporaryDirectory() as folder:
        audit = Path(folder, "audit")
        shutil.copytree(_log(), audit)
        overwrite(audit, name, content)
        try:
            verify_log(audit, origin=ORIGIN, coordinator=COORDINATOR.public, sites=SITES, quorum=QUORUM)
        finally:
            with contextlib.suppress(VerificationFailed):
                open_log(audit).close()


def overwrite(folder: Path, name: bytes, content: bytes) -> None:
    """Write a file inside a folder; a name that leads out of it, or is none, is left alone."""
    text = name.decode("ascii", "replace")
    path = folder / text
    inside = text and "\x00" not in text and len(text) < 200 and ".." not in Path(text).parts
    if inside and not text.startswith("/") and path.parent.is_dir() and not path.is_dir():
        path.write_bytes(content)


def files_of(folder: Path, *patterns: str) -> dict[str, bytes]:
    """Return a folder's files as inputs whose first line is the file's name; one of each kind of name."""
    found: dict[str, bytes] = {}
    for pattern in patterns:
        for path in sorted(path for path in folder.glob(pattern) if path.is_file())[: 3 if "/" in pattern else None]:
            name = path.relative_to(folder).as_posix()
            found[f"{name.replace('/', '.')[-60:]}"] = name.encode() + b"\n" + path.read_bytes()
    return found


@cache
def _state() -> Path:
    folder = Path(tempfile.mkdtemp(dir=home()))
    log, witness = open_log(folder / "audit"), witness_of(folder, "lab-1")
    log.append("round", sign_statement("round", {"round": 1}, [COORDINATOR]), round=1)
    cosign(witness, log)
    log.close()
    return folder / "lab-1"


def witness_state(data: bytes) -> None:
    """What a witness kept of a log, damaged: it cosigns nothing by it."""
    name, _, content = data.partition(b"\n")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "lab-1")
        shutil.copytree(_state(), place)
        overwrite(place, name, content)
        witness = Witness(place / "witness", place / "anchors")
        witness.seen(ORIGIN, coordinator=COORDINATOR.public)


def witness_exchange(data: bytes) -> None:
    """What a hostile coordinator asks a witness to cosign, signed as it should be; what it cosigns it has then seen."""
    values = values_in(data)
    try:
        size, old = values["size"], values["old_size"]
        proof = [b64decode(one, validate=True) for one in values["proof"]]
        text = f"{values['origin']}\n{size}\n{values['root']}\n"
        content = sign_note(read_body(text.encode()), COORDINATOR)
    except (KeyError, TypeError, ValueError, UnicodeError):
        raise VerificationFailed("no checkpoint") from None
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "lab-1")
        shutil.copytree(_state(), place)
        witness = Witness(place / "witness", place / "anchors")
        before = witness.seen(ORIGIN, coordinator=COORDINATOR.public)
        asked = {"origin": ORIGIN, "coordinator": COORDINATOR.public, "site": "lab-1", "signer": LAB}
        line = witness.cosign(content, **asked, old_size=old, proof=proof, now_s=TIME)
        seen = witness.seen(ORIGIN, coordinator=COORDINATOR.public)
        assert seen.body().decode() == text
        assert seen.size >= before.size
        keys = [log_key(ORIGIN, COORDINATOR.public), cosigner_key("lab-1", LAB.public)]
        assert len(open_note(content + line.encode() + b"\n", keys).signed_by) == 2


def _exchanges() -> Mapping[str, bytes]:
    log = open_log(Path(tempfile.mkdtemp(dir=home())) / "audit")
    log.append("round", sign_statement("round", {"round": 1}, [COORDINATOR]), round=1)
    found = {}
    for name, number in (("again", 1), ("grown", 2)):
        if number > 1:
            log.append("round", sign_statement("round", {"round": number}, [COORDINATOR]), round=number)
        origin, size, root = log.checkpoint().decode().split("\n")[:3]
        proof = _texts(tuple(log.consistency_proof(1)))
        values = {"origin": origin, "size": int(size), "root": root, "old_size": 1, "proof": proof}
        found[name] = json.dumps(values).encode()
    log.close()
    return found


def _statements() -> Mapping[str, bytes]:
    return {
        "one-signer": sign_statement("round", {"round": 1, "survivors": ["lab-1"]}, [COORDINATOR]),
        "two-signers": sign_statement("permit", {"site": "lab-1"}, [COORDINATOR, LAB]),
    }


def _permits() -> Mapping[str, bytes]:
    text = dict.fromkeys(("site", "study", "plan", "initial_model", "fedsci", "software", "content"), "x")
    times = dict.fromkeys(("not_before", "start_by", "not_after"), "2026-05-03T10:00:00Z")
    body = text | times | {"rounds": 2, "epsilon": 1.0, "delta": 1e-5, "min_cohort": 2, "coordinator": None}
    body |= {"safety_critical": False, "version": 1, "record": None, "ledger_entries": 0, "ledger_head": "x"}
    return {"valid": json.dumps(body | {"nonce": "0" * 32, "signers": ["x"]}).encode()}


def _decisions() -> Mapping[str, bytes]:
    content = sign_decision(POINT, role="officer", name="A", answer="approve", key=LAB, now=float(TIME))
    return {"valid": json.dumps(dict(peek(content)[1])).encode()}


def _questions() -> Mapping[str, bytes]:
    point = {"run": "0" * 32, "plan": "p", "checkpoint": "before:release", "model": "m"}
    values = {"point": point | {"signers": {"officer": [LAB.public.hex()]}}, "study": "heart", "rounds": 2}
    values |= {"planned": 3, "metrics": {"auc": 0.5}, "measured_after": 2, "epsilon": 1.0, "delta": 1e-5, "asked": 1.0}
    return {"valid": json.dumps(values).encode()}


def _notes() -> Mapping[str, bytes]:
    point = Checkpoint(origin=ORIGIN, size=3, root=bytes(32))
    return {"valid": sign_note(point, COORDINATOR), "cosigned": (_log() / "checkpoint").read_bytes()}


def _proofs() -> Mapping[str, bytes]:
    tree = Tree()
    for number in range(7):
        tree.append(b"%d" % number)
    root, old = (b64encode(tree.root(size)).decode() for size in (7, 4))
    inclusion = {"index": 1, "size": 7, "old": 4, "root": root, "old_root": old}
    return {
        "inclusion": json.dumps(inclusion | {"hashes": _texts(tree.inclusion_proof(1))}).encode(),
        "consistency": json.dumps(inclusion | {"hashes": _texts(tree.consistency_proof(4))}).encode(),
    }


def _texts(hashes: tuple[bytes, ...]) -> list[str]:
    return [b64encode(one).decode() for one in hashes]


_ENTRY = b'{"digest":"sha256:' + b"0" * 64 + b'","kind":"round","round":1,"site":"lab-1"}'

TARGETS = [
    Target(name="statement", run=statement, seeds=_statements, tries=150),
    Target(name="permit", run=permit, seeds=_permits, tries=150),
    Target(name="decision-body", run=decision, seeds=_decisions, tries=100),
    Target(
        name="decision",
        run=envelope_of_decision,
        seeds=lambda: {
            "valid": sign_decision(POINT, role="officer", name="A", answer="approve", key=LAB, now=float(TIME))
        },
        tries=60,
    ),
    Target(name="decision-request", run=question, seeds=_questions, tries=100),
    Target(
        name="decision-folder",
        run=handed_over,
        seeds=_questions,
        tokens=(b"..", b"../../x", b"/", b"round:", b"before:"),
        tries=60,
    ),
    Target(name="note", run=note, seeds=_notes, tokens=(b"\n\n", "— ".encode(), b"+", b"="), tries=100),
    Target(name="checkpoint", run=checkpoint, seeds=lambda: {"valid": _notes()["valid"].split(b"\n\n")[0] + b"\n"}),
    Target(name="witness-exchange", run=witness_exchange, seeds=_exchanges, tries=60),
    Target(name="log-entry", run=entry, seeds=lambda: {"valid": _ENTRY}, tries=150),
    Target(name="log-file", run=entry_file, seeds=lambda: {"valid": _ENTRY + b"\n"}, tries=40),
    Target(name="merkle-proof", run=proof, seeds=_proofs, tries=100),
    Target(
        name="log-folder",
        run=log_folder,
        seeds=lambda: files_of(_log(), "entries.jsonl", "checkpoint", "checkpoints/*", "statements/*"),
        headed=True,
        fresh=True,
        tries=15,
    ),
    Target(
        name="witness-state",
        run=witness_state,
        seeds=lambda: files_of(_state(), "witness/*.json", "anchors/*.json"),
        headed=True,
        fresh=True,
        tries=15,
    ),
]
