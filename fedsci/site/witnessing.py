"""A site's part in a run's audit log: it cosigns what only grows, and takes part in no round before the last is logged.

What a site checks of a round's statement, besides that the log holds it: its own upload is in it as it was sent, or it
is named as dropped; the numbers follow each other; and the model of the next round is the one the statement names.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedsci import names
from fedsci.audit.checkpoint import Checkpoint
from fedsci.audit.entries import SHOWN, Entry, make_entry, read_entry
from fedsci.audit.merkle import check_consistency
from fedsci.audit.note import Note, open_checkpoint
from fedsci.audit.note_keys import PostQuantumKey, Signer
from fedsci.audit.quorum import quorum_of, require_receipt
from fedsci.audit.statement import Statement, open_statement
from fedsci.audit.witness import Witness
from fedsci.config.masking import lying_witnesses
from fedsci.config.plan import Plan
from fedsci.errors import LogBehind, PolicyRefused, VerificationFailed
from fedsci.identity.files import replace_private
from fedsci.secagg import Roster
from fedsci.site.keystore import Keystore
from fedsci.site.permit import vector_digest
from fedsci.transport.binding import receipt_of, unpack
from fedsci.transport.messages import Reply, Request


def log_origin(run: str) -> str:
    """Return the name of a run's log."""
    return f"fedsci/{run}"


class RunWitness:
    """One site, one run.

    Args:
        keystore: the site's keys.
        witness: what the site has cosigned.
        folder: the run's, in the site's state folder.
        plan: the plan that passed the gate.
        site: the site's name.
        run: 32 hexadecimal digits.
        roster: of a masked study; its keys are the witnesses'.
    """

    def __init__(
        self,
        keystore: Keystore,
        witness: Witness,
        folder: Path,
        plan: Plan,
        *,
        site: str,
        run: str,
        roster: Roster | None,
    ) -> None:
        self._keystore, self._witness, self._path = keystore, witness, folder / "witness.json"
        self._plan, self._site, self._run, self._roster = plan, site, run, roster
        self._origin = log_origin(run)

    def join(self, request: Request, *, second: str = "") -> dict[str, str]:
        """Take part in the log that a request to ``prepare`` names; return what the log needs of this site.

        ``second`` is the public key of the second person who signed the permit, hexadecimal, where there is one.

        Raises:
            PolicyRefused: another coordinator's key than this site knows.
        """
        coordinator = _key(request.fields.get("log_key"))
        self._keystore.pin_coordinator(coordinator)
        self._witness.begin(self._origin, coordinator=coordinator)
        nothing: dict[str, Any] = {"sites": {}, "quorum": 0, "round": -1, "models": [], "sent": {}, "followed": {}}
        self._write(nothing | {"coordinator": coordinator.hex(), "second": second})
        return {"key": self._keystore.signing_key().public.hex(), "late_key": self._late_key().public.hex()}

    def cosign(self, request: Request) -> Reply:
        """Cosign a checkpoint that holds what this site has seen, and whose new statements are as it knows them.

        What the statements say is written down before anything is cosigned, so that a crash in between loses neither.

        Returns:
            The cosignature lines; or the size that the proof must begin at, where the coordinator did not know.

        Raises:
            VerificationFailed: it does not; the site cosigns nothing.
        """
        held, fields = self._read(), request.fields
        coordinator = bytes.fromhex(held["coordinator"])
        before = self._witness.seen(self._origin, coordinator=coordinator)
        if request.integer("old_size") != before.size:
            return Reply(fields={"size": before.size})
        content = request.text("note").encode()
        note = open_checkpoint(content, origin=self._origin, coordinator=coordinator)
        proof = _hashes(fields.get("proof"))
        if _grows(before, note.checkpoint, proof):  # else nothing of it is believed: the witness says why
            self._write(self._follow_all(held, fields.get("entries"), note, since=before.size))
        keys: list[Signer] = [self._keystore.signing_key(), *([self._late_key()] if fields.get("last") is True else [])]
        lines = [
            self._witness.cosign(
                content,
                origin=self._origin,
                coordinator=coordinator,
                site=self._site,
                signer=key,
                old_size=before.size if first else note.checkpoint.size,
                proof=proof if first else [],
            )
            for first, key in zip([True, False], keys, strict=False)
        ]
        return Reply(fields={"cosignatures": lines})

    def require_logged(self, request: Request, *, after: int) -> None:
        """Pass if everything up to round ``after`` is in the log, as this site knows it, under a quorum's cosignatures.

        What this site has missed may come with the request.

        Raises:
            LogBehind: what came with the request begins elsewhere than what this site has seen.
            VerificationFailed: it is not.
        """
        missed = request.fields.get("log")
        if isinstance(missed, Mapping):
            answer = self.cosign(Request(action="witness", fields=missed))
            if "size" in answer.fields and self._read()["round"] != after:  # else only an answer got lost
                raise LogBehind("this site has seen another part of the audit log", size=answer.fields["size"])
        held = self._read()
        if held["round"] != after or not held["sites"]:
            raise _unwitnessed(f"the log is known here up to round {held['round']}, not {after}", field="round")
        self._witness.require_quorum(
            request.text("checkpoint").encode(),
            origin=self._origin,
            coordinator=bytes.fromhex(held["coordinator"]),
            keys={name: bytes.fromhex(key) for name, key in held["sites"].items()},
            quorum=held["quorum"],
        )
        if request.vector is not None and vector_digest(request.vector) not in held["models"]:
            raise _unwitnessed("this is not the model that the log names", field="model")

    def sent(self, number: int, reply: Reply) -> None:
        """Write down what this site sent in a round, before it leaves: the log must hold it."""
        held = self._read()
        held["sent"] = {str(number): receipt_of(reply)}  # earlier rounds are settled
        self._write(held)

    def _follow_all(self, held: dict[str, Any], entries: object, note: Note, *, since: int) -> dict[str, Any]:
        """Return what is known after the entries that a checkpoint has more than ``since``: all of them, in order.

        Raises:
            VerificationFailed: one is missing, is not in the log, or says what cannot be.
        """
        if not isinstance(entries, list) or len(entries) != note.checkpoint.size - since:
            raise _unwitnessed("a checkpoint comes with every entry that is new", field="entries")
        coordinator, followed = bytes.fromhex(held["coordinator"]), dict[str, str]()
        for index, one in enumerate(entries, start=since):
            entry = _entry(one, index)
            require_receipt(entry.line, index=index, proof=_hashes(one.get("proof")), note=note)
            if entry.kind not in SHOWN:
                continue
            statement = _statement(one, entry, coordinator)
            known = held["followed"].get(str(index))  # by an exchange that this site's process did not survive
            if known not in (None, statement.digest):
                raise _unwitnessed(f"entry {index} was another before", field="entries")
            held, followed[str(index)] = held if known else self._follow(held, statement), statement.digest
        return held | {"followed": followed}

    def _follow(self, held: dict[str, Any], statement: Statement) -> dict[str, Any]:
        """Return what is known after a statement that is new.

        Raises:
            VerificationFailed: it cannot come next, or leaves out what this site sent.
        """
        body = statement.body
        if body.get("run") != self._run:
            raise _unwitnessed("the statement is of another run", field="run")
        if statement.kind == "sites":
            return held | self._witnesses(held, body)
        number = _whole(body, "round")
        again = number == held["round"] and body.get("abandoned") is True
        if not held["sites"] or not (number == held["round"] + 1 or again):
            raise _unwitnessed(f"round {number} does not follow round {held['round']}", field="round")
        sent = held["sent"].get(str(number))
        receipts, dropped = body.get("receipts"), body.get("dropped")
        if not isinstance(receipts, dict) or not isinstance(dropped, dict):
            raise _unwitnessed("the statement does not say who was in the round", field="receipts")
        if self._site in receipts and receipts[self._site] != sent:
            raise _unwitnessed(f"round {number} holds another upload than this site's", field="receipts")
        left_out = sent is not None and self._site not in receipts
        if left_out and self._site not in dropped and body.get("abandoned") is not True:
            raise _unwitnessed(f"round {number} leaves out what this site sent", field="receipts")
        return held | {"round": number, "models": [body.get("model"), body.get("sends")]}

    def _witnesses(self, held: dict[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the witnesses that a log begins with, checked against the plan, the roster and this site's key."""
        sites, quorum = body.get("sites"), body.get("quorum")
        if held["sites"]:
            raise _unwitnessed("the witnesses of a run never change", field="sites")
        if not isinstance(sites, dict) or sorted(sites) != sorted(self._plan.sites):
            raise _unwitnessed("the witnesses are not the plan's sites", field="sites")
        keys = {str(name): _key(key) for name, key in sites.items()}
        if keys[self._site] != self._keystore.signing_key().public:
            raise _unwitnessed("the log has another key for this site", field="sites")
        for name, mine in (("post_quantum", self._late_key().public.hex()), ("second_signers", held["second"])):
            named = body.get(name)
            if not isinstance(named, dict) or named.get(self._site, "") != mine:
                raise _unwitnessed("the log has another key for this site", field=name)
        listed = {member.name: member.verification_key for member in self._roster.sites} if self._roster else keys
        for name, key in keys.items():
            if listed.get(names.site_id(name)) != key:
                raise _unwitnessed(f"the log has another key for {name} than the roster", field="sites")
        needed = quorum_of(len(keys), lying_witnesses(self._plan))
        if quorum != needed or body.get("plan") != self._plan.digest or body.get("coordinator") != held["coordinator"]:
            raise _unwitnessed(f"the log is not of this plan with a quorum of {needed}", field="quorum")
        return {"sites": sites, "quorum": needed, "round": 0, "models": [body.get("model"), body.get("sends")]}

    def _late_key(self) -> PostQuantumKey:
        return PostQuantumKey(self._keystore.post_quantum_seed())

    def _read(self) -> dict[str, Any]:
        try:
            values: dict[str, Any] = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            message = "this site takes no part in this run's log"
            raise PolicyRefused(message, public=message) from None
        return values

    def _write(self, values: Mapping[str, Any]) -> None:
        replace_private(self._path, json.dumps(values).encode())


def _grows(before: Checkpoint, point: Checkpoint, proof: Sequence[bytes]) -> bool:
    """Say whether a checkpoint begins with all that this site has seen."""
    if point.size <= before.size:
        return point == before
    try:
        check_consistency(before.size, point.size, proof, before.root, point.root)
    except VerificationFailed:
        return False
    return True


def _entry(values: object, index: int) -> Entry:
    """Return an entry as it came: its line in the log, which says what kind of statement it names."""
    line = values.get("line") if isinstance(values, Mapping) else None
    if not isinstance(line, str) or not names.is_unicode(line):
        raise VerificationFailed("an entry comes as its line in the log", field="entries")
    return read_entry(index, line.encode())


def _statement(values: Mapping[str, Any], entry: Entry, coordinator: bytes) -> Statement:
    """Return the statement of an entry that came along."""
    envelope = values.get("envelope")
    if not isinstance(envelope, str) or not names.is_unicode(envelope):
        raise _unwitnessed(f"a {entry.kind} comes in its envelope", field="entries")
    statement = open_statement(entry.kind, envelope.encode(), [coordinator])
    number = _whole(statement.body, "round") if entry.kind == "round" else None
    if make_entry(entry.index, entry.kind, statement.digest, round=number) != entry:
        raise _unwitnessed(f"the log names another {entry.kind}", field="entries")
    return statement


def _key(value: object) -> bytes:
    try:
        return bytes.fromhex(value) if isinstance(value, str) else _no_key()
    except ValueError:
        return _no_key()


def _no_key() -> bytes:
    raise _unwitnessed("a public key is hexadecimal", field="key")


def _whole(values: Mapping[str, Any], name: str) -> int:
    value = values.get(name)
    if type(value) is not int or value < 0:
        raise VerificationFailed(f"a statement's {name} is a whole number", field=name)
    return value


def _hashes(values: object) -> list[bytes]:
    if not isinstance(values, list) or len(values) > 128:
        raise VerificationFailed("a proof is a list of hashes")
    return [unpack(value) for value in values]


def _unwitnessed(message: str, *, field: str) -> VerificationFailed:
    return VerificationFailed(message, field=field, public=f"audit log: {message}")
