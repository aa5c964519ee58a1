"""``fedsci verify``: a run folder checked with the network unplugged, by who trusts none of those that wrote it.

What is taken on trust is one key, the consortium's, whose fingerprint is printed: the roster it signed says whose the
sites' keys are, their cosignatures fix the log, and everything else has to agree with the log.
"""

import hashlib
import json
import math
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from fedsci.audit.entries import FILE as ENTRIES
from fedsci.audit.entries import Entry
from fedsci.audit.log import wrong_in
from fedsci.audit.quorum import quorum_of
from fedsci.audit.statement import Statement, digest_of, key_id, open_statement
from fedsci.audit.verification import SignersOf, VerifiedLog, usual_signers, verify_log
from fedsci.config.checkpoints import roles_after, roles_before
from fedsci.config.masking import lying_witnesses
from fedsci.config.plan import Plan
from fedsci.coordinator.decisions import RELEASE, TRAINING, Decision, Point, after_round, in_words, open_decision
from fedsci.coordinator.study_log import KEYS, MANIFEST, permit_terms
from fedsci.coordinator.summary import SCALING
from fedsci.errors import FedsciError, InputError, ProtocolError, VerificationFailed
from fedsci.names import digest
from fedsci.reporting.evidence import plan_of, read_evidence
from fedsci.reporting.run_folder import finite, items, mapping, read_run_folder
from fedsci.reporting.verify_blame import check_blame
from fedsci.reporting.verify_norms import check_norms, judge_norms
from fedsci.secagg import open_roster

AUDIT = "audit"
SIGNATURE = "model_card.sig.json"
_KINDS = frozenset({"plan", "record", "permit", "sites", "round", "refusal", "decision", "spend", "model"})
_FILES = frozenset({"plan.yaml", "metrics.jsonl", "summary.json", "model.safetensors", "model.json"})
_FINISHED = ("completed", "stopped_by_budget")
_CLOSE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A run folder that checks out.

    Attributes:
        plan: what was run.
        run: its id.
        status: as summary.json says.
        log: its log.
        coordinator: SHA-256 of the key that signs the log.
        consortium: SHA-256 of the key that everything rests on; empty where the study had no roster.
        sites: SHA-256 of each site's key.
        rounds: applied.
        checks: what was looked at, a line each.
        scaling: the pass that measured the scaling.
    """

    plan: Plan
    run: str
    status: str
    log: VerifiedLog
    coordinator: str
    consortium: str
    sites: Mapping[str, str]
    rounds: int
    checks: tuple[str, ...]
    scaling: "Verified | None" = None


@dataclass(frozen=True, kw_only=True)
class _Keys:
    """Who is who, as ``audit/keys.json`` says."""

    coordinator: bytes
    consortium: bytes
    sites: Mapping[str, bytes]
    post_quantum: Mapping[str, bytes]
    second: Mapping[str, bytes]
    quorum: int
    run: str
    plan: str
    roster: bytes


def verify_run(
    folder: Path,
    *,
    consortium: bytes | None = None,
    documents: Callable[[Path, bytes | None], None] | None = None,
) -> Verified:
    """Return what a run folder proves.

    Args:
        folder: as a run left it, or as it was exported.
        consortium: the key that the reader knows to be the consortium's; without it the folder's own counts.
        documents: checks what people read, given the key that a signed card must be signed by; left out, only what the
            run itself left is checked.

    Raises:
        InputError: this is no run folder.
        VerificationFailed: ``file`` and ``field`` say what is wrong first.
    """
    run = read_run_folder(folder)
    with _in("plan.yaml", "plan"):
        plan = plan_of(run)
    if run.plan.get("digest") != plan.digest:
        raise VerificationFailed("this is not the digest of the plan", file="plan.yaml", field="digest")
    if not plan.study.audit_log.enabled:
        raise VerificationFailed(
            "the study kept no audit log (audit_log.enabled: false), so nothing about it can be verified",
            file=AUDIT,
            hint="run it with audit_log.enabled: true",
        )
    if not (folder / AUDIT).exists() and run.summary.get("status") == "aborted":
        raise VerificationFailed(
            "the run ended before all sites had let it in, so there is no log of it",
            file=AUDIT,
            hint="nothing was trained; summary.json says why it ended, and nobody's signature proves it",
        )
    with wrong_in(f"{AUDIT}/{KEYS}"):
        keys = _keys(folder / AUDIT / KEYS, plan, known=consortium)
    status = str(run.summary.get("status", ""))
    cut_off = not any((folder / name).exists() for name in ("summary.json", f"{AUDIT}/{MANIFEST}"))  # killed
    if not cut_off and status not in (*_FINISHED, "aborted"):
        raise VerificationFailed(f"{status!r:.40} is no way for a run to end", file="summary.json", field="status")
    finished = status in _FINISHED
    with _below(AUDIT):
        manifest = None if cut_off else _manifest(folder, keys)
        log = verify_log(
            folder / AUDIT,
            origin=f"fedsci/{keys.run}",
            coordinator=keys.coordinator,
            sites=keys.sites,
            quorum=keys.quorum,
            others={site: [public] for site, public in keys.post_quantum.items()},
            signers=_signers(plan, keys),
            finished=finished,
            cut_off=cut_off,
        )
        story = _Story(log, plan, keys, finished=finished)
        point = log.newest.checkpoint
        end = (point.size, b64encode(point.root).decode())
        if manifest is not None and (manifest.get("size"), manifest.get("root")) != end:
            raise VerificationFailed("it is not bound to the end of the log", file=MANIFEST, field="root")
    _check_model(folder, story)
    _check_release(folder, story, finished=finished)
    _check_rounds(run.rounds, story, cut_off=cut_off)
    sums = {number: statement.body for number, statement in (story.rounds | story.alarmed).items()}
    summary = None if cut_off else run.summary
    norms = judge_norms(plan, sums, summary=summary)
    check_norms(run.rounds, norms, bounds=not cut_off)
    check_blame(plan, sums, norms, rounds=max([0, *story.rounds, *story.abandoned]), summary=summary)
    if not cut_off:
        _check_summary(run.summary, story)
        if plan.private and story.rounds:
            with _in("summary.json", "privacy"):
                read_evidence(folder)
        _check_spends(run.summary, story)
    scaling = _scaling(folder, plan, consortium)
    if documents is not None and not cut_off:
        signed = (folder / SIGNATURE).exists()
        documents(folder, keys.coordinator if signed else None)
    return Verified(
        plan=plan,
        run=keys.run,
        status=status,
        log=log,
        coordinator=_fingerprint(keys.coordinator),
        consortium=_fingerprint(keys.consortium) if keys.roster else "",
        sites={site: _fingerprint(public) for site, public in keys.sites.items()},
        rounds=len(story.rounds),
        checks=_said(story, log, keys, plan, cut_off=cut_off),
        scaling=scaling,
    )


class _Story:
    """What a log says happened, in order, and that it could have.

    Raises:
        VerificationFailed: it could not.
    """

    def __init__(self, log: VerifiedLog, plan: Plan, keys: _Keys, *, finished: bool) -> None:
        self.plan, self.log = plan, log
        if not log.entries:
            raise VerificationFailed("the log is empty", file=ENTRIES)
        kinds = [entry.kind for entry in log.entries]
        if kinds[:1] != ["plan"] or kinds.count("plan") != 1 or kinds.count("sites") != 1:
            raise _wrong(log.entries[0], "a log begins with its plan and names its witnesses once", "kind")
        self.rounds: dict[int, Statement] = {}
        self.abandoned: set[int] = set()
        self.alarmed: dict[int, Statement] = {}
        self.spends: dict[str, Statement] = {}
        self.permits: dict[str, dict[str, Any]] = {}
        self.records: dict[str, str] = {}
        self.decisions: list[Decision] = []
        self.first_model = self._first(log)
        self.model: Statement | None = None
        for entry in log.entries:
            statement = log.statements[entry.digest]
            if statement.body.get("run") != keys.run and entry.kind not in ("record", "permit"):
                raise _wrong(entry, f"it is of another run than {keys.run}", "run")
            if entry.kind not in _KINDS:
                raise _wrong(entry, "no such thing happens in a run", "kind")
            read = getattr(self, f"_{entry.kind}", None)
            if read is not None:
                read(entry, statement.body, keys, statement)
        missing = sorted({*plan.sites} - {*self.permits})
        if missing:
            raise _wrong(log.entries[0], f"{missing[0]} has no permit in the log", "permit")
        if finished and self.model is None:
            raise _wrong(log.entries[-1], "a finished run logs its model", "kind")
        witnessed = log.kept[-1].checkpoint.size if log.kept else 0
        rounds = [one for one in log.entries if one.index >= witnessed and one.kind == "round"]
        alone = [one for one in rounds if log.statements[one.digest].body.get("abandoned") is not True]
        if len(alone) > 1:  # no site trains before a quorum has seen the last round
            raise _wrong(alone[1], "no quorum saw the round before it", "round")

    @property
    def last_model(self) -> object:
        """What the log says of the model after the last applied round."""
        return self.rounds[max(self.rounds)].body.get("model") if self.rounds else self.first_model

    @property
    def measured(self) -> object:
        """What the log says of the metrics that were measured last; None if nothing."""
        if self.model is not None:
            return self.model.body.get("metrics")
        known = [self.rounds[one].body.get("metrics_before") for one in sorted(self.rounds, reverse=True)]
        return next((one for one in known if one is not None), None)

    def require_approved(self, checkpoint: str, roles: Iterable[str], *, model: str | None = None) -> None:
        """Pass if each of these has approved at a checkpoint, and none refused; if given, exactly this model.

        Raises:
            VerificationFailed: one did not.
        """
        for role in roles:
            said = [one for one in self.decisions if (one.checkpoint, one.role) == (checkpoint, role)]
            good = [one for one in said if one.approved and model in (None, one.model)]
            if not good or not all(one.approved for one in said):
                did = "refused" if not all(one.approved for one in said) else "approved nothing in the log"
                raise VerificationFailed(f"{role} {did} {in_words(checkpoint)}", file=ENTRIES, field="decision")

    def _plan(self, entry: Entry, body: Mapping[str, Any], keys: _Keys, _: Statement) -> None:
        if body.get("digest") != self.plan.digest or body.get("plan") != self.plan.to_bytes().decode():
            raise _wrong(entry, "the log is of another plan than plan.yaml", "plan")

    def _sites(self, entry: Entry, body: Mapping[str, Any], keys: _Keys, _: Statement) -> None:
        for name, right in (
            ("sites", {site: public.hex() for site, public in keys.sites.items()}),
            ("post_quantum", {site: public.hex() for site, public in keys.post_quantum.items()}),
            ("second_signers", {site: public.hex() for site, public in keys.second.items()}),
            ("coordinator", keys.coordinator.hex()),
            ("quorum", keys.quorum),
            ("plan", self.plan.digest),
        ):
            if body.get(name) != right:
                raise _wrong(entry, "it is not what audit/keys.json says", name)

    @staticmethod
    def _first(log: VerifiedLog) -> object:
        """Return the model that rounds begin from, as the statement about the witnesses says."""
        return next((log.statements[one.digest].body.get("model") for one in log.entries if one.kind == "sites"), None)

    def _record(self, entry: Entry, body: Mapping[str, Any], keys: _Keys, _: Statement) -> None:
        if body.get("dataset") != self.plan.study.dataset or not isinstance(body.get("record"), dict):
            raise _wrong(entry, "it is not the record of the study's data set", "dataset")
        if str(entry.site) in self.records:
            raise _wrong(entry, f"{entry.site} has two records", "site")
        self.records[str(entry.site)] = digest_of(body["record"])

    def _permit(self, entry: Entry, body: Mapping[str, Any], keys: _Keys, _: Statement) -> None:
        """Compare a permit with the plan, field by field."""
        site = str(entry.site)
        for name, right in (
            ("site", site),
            *permit_terms(self.plan).items(),
            ("record", self.records.get(site)),
            ("initial_model", self.first_model if self.first_model is not None else body.get("initial_model")),
            ("coordinator", keys.consortium.hex() if keys.roster else body.get("coordinator")),
        ):
            if body.get(name) != right:
                raise _wrong(entry, f"{name} is {body.get(name)!r:.60}, by the plan it is {right!r:.60}", name)
        if site in self.permits:
            raise _wrong(entry, f"{site} has two permits", "site")
        self.permits[site] = dict(body)

    def _round(self, entry: Entry, body: Mapping[str, Any], keys: _Keys, statement: Statement) -> None:
        number, last = body.get("round"), max([0, *self.rounds, *self.abandoned])
        if self.model is not None:
            raise _wrong(entry, "there is a round after the end", "round")
        if body.get("abandoned") is True:
            alarm = body.get("alarm") is not None
            if number not in ((last + 1,) if alarm else (last, last + 1)):  # none is asked for again
                raise _wrong(entry, f"round {number} does not follow round {last}", "round")
            at = last if number == last else last + 1
            self.rounds.pop(at, None)
            self.alarmed.pop(at, None)  # a process that ended before it had kept an alarm knows nothing of it
            if body.get("model") != self.last_model:
                raise _wrong(entry, "a round that was given up changes no model", "model")
            self.abandoned.add(at)
            if alarm:
                self._took_part(entry, body)
                self.alarmed[at] = statement
            return
        if number != last + 1:
            raise _wrong(entry, f"round {number} does not follow round {last}", "round")
        self._took_part(entry, body)
        if body.get("alarm") is not None:
            raise _wrong(entry, "a round with an alarm was applied", "alarm")
        if not self.rounds:
            self.require_approved(TRAINING, roles_before(self.plan.study.checkpoints, "training"))
        self.require_due(number - 1)
        self.rounds[number] = statement

    def _took_part(self, entry: Entry, body: Mapping[str, Any]) -> None:
        """Refuse a round that does not say who was in its sum, with a receipt of each, and its norm, or had too few."""
        survivors, dropped, receipts = body.get("survivors"), body.get("dropped"), body.get("receipts")
        if not isinstance(survivors, list) or not isinstance(dropped, dict) or not isinstance(receipts, dict):
            raise _wrong(entry, "it does not say who was in it", "survivors")
        if sorted(map(str, [*survivors, *dropped])) != sorted(self.plan.sites):
            raise _wrong(entry, "survivors and dropped sites are not the plan's", "survivors")
        if sorted(receipts) != sorted(map(str, survivors)):
            raise _wrong(entry, "not every survivor has a receipt", "receipts")
        if len(survivors) < self.plan.min_survivors:
            raise _wrong(entry, f"it has {len(survivors)} survivors, {self.plan.min_survivors} must be", "survivors")
        norm = finite(body.get("norm"))  # null where the sum is not finite
        if "norm" not in body or (norm is None and body["norm"] is not None) or (norm or 0.0) < 0:
            raise _wrong(entry, "it does not say the norm of its sum", "norm")

    def require_due(self, rounds: int) -> None:
        """Pass if everybody has approved who must, once so many rounds are over."""
        for number, roles in roles_after(self.plan.study.checkpoints, rounds).items():
            self.require_approved(after_round(number), roles)

    def _decision(self, entry: Entry, body: Mapping[str, Any], keys: _Keys, statement: Statement) -> None:
        checkpoints, checkpoint = self.plan.study.checkpoints, str(body.get("checkpoint"))
        roles = {TRAINING: roles_before(checkpoints, "training"), RELEASE: roles_before(checkpoints, "release")}
        for number, due in roles_after(checkpoints, max([0, *self.rounds, *self.abandoned])).items():
            roles[after_round(number)] = due
        if not roles.get(checkpoint):
            raise _wrong(entry, "nobody decides at this point of the run", "checkpoint")
        signers = {role: tuple(self.plan.study.signers[role]) for role in roles[checkpoint]}
        point = Point(run=keys.run, plan=self.plan.digest, checkpoint=checkpoint, model=None, signers=signers)
        try:
            self.decisions.append(open_decision(point, statement.envelope, now=None))
        except VerificationFailed as error:
            raise _wrong(entry, error.message, "decision") from None

    def _spend(self, entry: Entry, body: Mapping[str, Any], keys: _Keys, statement: Statement) -> None:
        if body.get("plan") != self.plan.digest or body.get("dataset") != self.plan.study.dataset:
            raise _wrong(entry, "the charge is for another plan", "plan")
        site = str(entry.site)
        if site in self.spends:
            raise _wrong(entry, f"{site} charged twice", "site")
        spent, most = mapping(body.get("privacy")).get("study"), self.permits.get(site, {}).get("epsilon")
        if self.plan.private and not _within(spent, most):
            raise _wrong(entry, f"{site} spent epsilon {spent}, its permit allows {most}", "privacy.study")
        self.spends[site] = statement

    def _model(self, entry: Entry, body: Mapping[str, Any], keys: _Keys, statement: Statement) -> None:
        if self.model is not None or body.get("model") != self.last_model:
            raise _wrong(entry, "it is not the model of the last round", "model")
        if body.get("rounds_completed") != len(self.rounds):
            raise _wrong(entry, f"the log has {len(self.rounds)} rounds", "rounds_completed")
        self.model = statement


def _keys(path: Path, plan: Plan, *, known: bytes | None) -> _Keys:
    """Return who is who; of a masked study as the consortium's roster says."""
    try:
        values = json.loads(path.read_bytes())
        keys = _Keys(
            coordinator=bytes.fromhex(values["coordinator"]),
            consortium=bytes.fromhex(values["consortium"] or ""),
            sites={site: bytes.fromhex(public) for site, public in values["sites"].items()},
            post_quantum={site: bytes.fromhex(public) for site, public in values["post_quantum"].items()},
            second={site: bytes.fromhex(public) for site, public in values["second_signers"].items()},
            quorum=int(values["quorum"]),
            run=str(values["run"]),
            plan=str(values["plan"]),
            roster=b64decode(values["roster"] or "", validate=True),
        )
    except OSError as error:
        raise VerificationFailed(f"the file cannot be read: {error.strerror}") from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise VerificationFailed(f"it does not say who is who ({error})") from None
    if keys.plan != plan.digest:
        raise VerificationFailed("it is of another plan", field="plan")
    if sorted(keys.sites) != sorted(plan.sites):
        raise VerificationFailed("these are not the plan's sites", field="sites")
    if not set(keys.post_quantum) <= set(keys.sites):
        raise VerificationFailed("a key of no site of the run", field="post_quantum")
    if keys.quorum != quorum_of(len(plan.sites), lying_witnesses(plan)):
        raise VerificationFailed(f"{keys.quorum} is not the quorum of the plan", field="quorum")
    if known is not None and keys.consortium != known:
        raise VerificationFailed("this is not the consortium's key that you named", field="consortium")
    if not plan.study.secure_aggregation.enabled:
        return keys
    try:
        listed = open_roster(keys.roster, consortium_key=keys.consortium)
    except ProtocolError as error:
        raise VerificationFailed(error.message, field="roster") from None
    named = {str(member.name): member.verification_key for member in listed.sites}
    for site, public in keys.sites.items():
        if named.get(site) != public:
            raise VerificationFailed(f"the roster has another key for {site}", field="sites")
    return keys


def _signers(plan: Plan, keys: _Keys) -> SignersOf:
    """Return whose statements are whose.

    A decision is of a key that the plan names for its role; the permit of a safety-critical study is of two people.
    """
    usual = usual_signers(keys.coordinator, keys.sites)

    def signers(entry: Entry, body: Mapping[str, Any], named: Collection[str]) -> Iterable[bytes]:
        if entry.kind == "permit" and plan.study.safety_critical:
            second = keys.second.get(str(entry.site))
            if second is None or second in {*keys.sites.values(), keys.coordinator}:
                raise VerificationFailed("a second person must have signed, with a key of their own", field="signers")
            return [*usual(entry, body, named), second]
        if entry.kind != "decision":
            return usual(entry, body, named)
        known = [bytes.fromhex(public) for public in plan.study.signers.get(str(body.get("role")), [])]
        found = [public for public in known if key_id(public) in named]
        if len(found) != 1:
            raise VerificationFailed("the plan names no such signer for this role", field="role")
        return found

    return signers


def _manifest(folder: Path, keys: _Keys) -> Mapping[str, Any]:
    """Return what the coordinator signed at the end; refuse files that are not those the run left."""
    with wrong_in(MANIFEST):
        content = _content(folder / AUDIT / MANIFEST)
        statement = open_statement("manifest", content, [keys.coordinator])
        body = statement.body
        if body.get("run") != keys.run:
            raise VerificationFailed("it is of another run", field="run")
        if content != (json.dumps(json.loads(content), sort_keys=True) + "\n").encode():
            raise VerificationFailed("the envelope is spelt in another way")
        if len(json.loads(content)["signatures"]) != 1:
            raise VerificationFailed("somebody else signed it as well", field="signatures")
    for name, right in mapping(body.get("files")).items():
        if name not in (*_FILES, f"{AUDIT}/{KEYS}"):
            raise VerificationFailed("it names a file that no run leaves", file=MANIFEST, field="files")
        try:
            found = digest((folder / name).read_bytes())
        except OSError as error:
            raise VerificationFailed(f"the file cannot be read: {error.strerror}", file=f"../{name}") from None
        if found != right:
            raise VerificationFailed("the file is not what the run left", file=f"../{name}", field="digest")
    for name in sorted(_FILES):
        if (folder / name).exists() and name not in mapping(body.get("files")):
            raise VerificationFailed("the run left no such file", file=f"../{name}")
    return body


def _check_model(folder: Path, story: _Story) -> None:
    """Refuse a model file that holds other numbers than the log's last model."""
    path = folder / "model.safetensors"
    if not path.exists():
        return
    with wrong_in("model.safetensors"):
        try:
            arrays = load(path.read_bytes())
        except (OSError, SafetensorError, ValueError) as error:
            raise VerificationFailed(f"the file cannot be read: {error}") from None
        except (LookupError, TypeError, ArithmeticError):  # BF16 and the like, which NumPy has not
            raise VerificationFailed("it holds numbers of a kind that no run leaves", field="dtype") from None
        try:
            order = [entry["name"] for entry in json.loads(_content(folder / "model.json"))["tensors"]]
            vector = np.concatenate([np.asarray(arrays[name], np.float32).reshape(-1) for name in order])
        except (KeyError, TypeError, ValueError, RecursionError):
            raise VerificationFailed(
                "model.json and model.safetensors do not fit each other", field="tensors"
            ) from None
        if "sha256:" + hashlib.sha256(vector.tobytes()).hexdigest() != story.last_model:
            raise VerificationFailed("this is not the model that the log names", field="model")


def _check_release(folder: Path, story: _Story, *, finished: bool) -> None:
    """Refuse a run that ended well, or a model that is out, without the word of everybody who must agree."""
    checkpoints, path = story.plan.study.checkpoints, folder / "model.safetensors"
    with _below(AUDIT):
        if finished:
            story.require_due(max([0, *story.rounds, *story.abandoned]))
        if finished or path.exists():
            released = digest(path.read_bytes()) if path.exists() else None
            story.require_approved(RELEASE, roles_before(checkpoints, "release"), model=released)


def _check_summary(summary: Mapping[str, object], story: _Story) -> None:
    """Refuse a summary that says another study, other rounds or better metrics than the log."""
    with wrong_in("summary.json"):
        for key, right in (
            ("study", story.plan.study.study),
            ("plan_digest", story.plan.digest),
            ("sites", list(story.plan.sites)),
            ("question", story.plan.study.question),
            ("seed", story.plan.study.seed),
        ):
            if summary.get(key) != right:
                raise VerificationFailed(f"the plan says {right}", field=key)
        if summary.get("rounds_completed") != len(story.rounds):
            raise VerificationFailed(f"the log has {len(story.rounds)} rounds", field="rounds_completed")
        if sorted(items(summary.get("rounds_abandoned")), key=str) != sorted(story.abandoned, key=str):
            raise VerificationFailed(f"the log has {sorted(story.abandoned)}", field="rounds_abandoned")
        if items(summary.get("checkpoints")) != [one.to_json() for one in story.decisions]:
            raise VerificationFailed("the log has other decisions", field="checkpoints")
        away = [
            ([site, number], str(why).removeprefix(f"{site}: "))
            for number, statement in sorted(story.rounds.items())
            for site, why in statement.body["dropped"].items()
        ]
        masks = mapping(summary, "secure_aggregation")
        for name, at in (("dropped", 0), ("dropped_because", 1)):
            if sorted(items(masks.get(name)), key=str) != sorted((one[at] for one in away), key=str):
                raise VerificationFailed("the log names other sites or reasons", field=f"secure_aggregation.{name}")
        logged, said = mapping(story.measured), mapping(summary, "metrics", "federated")
        for name in sorted({*logged, *said}):
            if not _same(said.get(name), logged.get(name)):
                raise VerificationFailed(
                    f"it says {said.get(name)}, the log {logged.get(name)}", field=f"metrics.federated.{name}"
                )


def _check_rounds(lines: Iterable[Mapping[str, object]], story: _Story, *, cut_off: bool) -> None:
    """Refuse rounds that were otherwise than the log says; a run that was cut off may lack the last."""
    with wrong_in("metrics.jsonl"):
        lines = list(lines)
        asked = len(story.rounds) + len(story.abandoned)
        if not (len(lines) == asked or (cut_off and len(lines) < asked)):
            raise VerificationFailed(f"it holds {len(lines)} rounds, the log {asked}", field="round")
        for number, line in enumerate(lines, start=1):
            if line.get("round") != number:
                raise VerificationFailed("its rounds do not follow each other", field=f"round {number}")
            if (line.get("abandoned") is True) != (number in story.abandoned):
                raise VerificationFailed("the log has another round", field=f"round {number}: abandoned")
            if number in story.abandoned:
                continue
            body = story.rounds[number].body
            if line.get("sites") != len(body["survivors"]):
                raise VerificationFailed(
                    f"the log has {len(body['survivors'])} survivors", field=f"round {number}: sites"
                )
            if sorted(map(str, items(line.get("dropped")))) != sorted(body["dropped"]):
                raise VerificationFailed("the log names other dropped sites", field=f"round {number}: dropped")
            if cut_off and number == asked and story.model is None:  # they were to come with an entry that is not there
                continue
            if not _measured(line.get("metrics"), number, story):
                raise VerificationFailed("the log has other metrics", field=f"round {number}: metrics")


def _measured(said: object, number: int, story: _Story) -> bool:
    """Say whether a round's metrics are those that were logged after it; the last round need not show any."""
    if number + 1 in story.abandoned:  # they came with that round, and went with it
        return True
    if number + 1 in story.rounds:
        return _same(said, story.rounds[number + 1].body.get("metrics_before"))
    return said is None or _same(said, story.measured)


def _check_spends(summary: Mapping[str, object], story: _Story) -> None:
    """Refuse figures of privacy that are not those the sites signed."""
    names = {
        "study": "epsilon_spent_study",
        "enforced_total": "epsilon_enforced_total",
        "budget": "epsilon_budget",
        "noise_multiplier": "noise_multiplier",
        "rounds_charged": "rounds_charged",
        "rdp_study": "rdp_study",
        "rdp_total": "rdp_total",
    }
    closed = {site for site in story.plan.sites if mapping(summary, "privacy", "by_site", site).get("settled") is True}
    if unsigned := sorted(closed - {*story.spends}):
        where = f"privacy.by_site.{unsigned[0]}.settled"
        raise VerificationFailed(f"{unsigned[0]} signed no charge", file="summary.json", field=where)
    if not (story.plan.private and story.rounds):
        return
    scaled = story.plan.study.scaled_by is not None  # then summary.json adds the pass to the study
    for site, statement in sorted(story.spends.items()):
        said, signed = mapping(summary, "privacy", "by_site", site), mapping(statement.body.get("privacy"))
        for name, key in names.items():
            if not (scaled and name == "study") and not _same(said.get(key), signed.get(name)):
                raise VerificationFailed(
                    f"{site} signed {signed.get(name)}, it says {said.get(key)}",
                    file="summary.json",
                    field=f"privacy.by_site.{site}.{key}",
                )
        budget, spent = signed.get("budget"), signed.get("enforced_total")
        if isinstance(budget, float | int) and isinstance(spent, float | int) and spent > budget * (1 + _CLOSE):
            raise VerificationFailed(f"{site} spent {spent} of a budget of {budget}", file="summary.json", field=site)


def _scaling(folder: Path, plan: Plan, consortium: bytes | None) -> Verified | None:
    if plan.study.scaled_by is None:
        return None
    try:
        first = verify_run(folder / SCALING, consortium=consortium)
    except VerificationFailed as error:
        error.file = f"{SCALING}/{error.file}"
        raise
    except InputError as error:
        raise VerificationFailed(error.message, file=SCALING) from None
    if first.plan.digest != plan.study.scaled_by.plan:
        raise VerificationFailed("it is another pass than the plan's", file=SCALING, field="plan")
    return first


def _said(story: _Story, log: VerifiedLog, keys: _Keys, plan: Plan, *, cut_off: bool) -> tuple[str, ...]:
    point = log.newest.checkpoint
    late = sum(len(key.public) > 1000 for key in log.newest.signed_by)
    loose = point.size - (log.kept[-1].checkpoint.size if log.kept else 0)
    lines = [
        f"{len(log.entries)} log entries and their statements, {len(log.kept)} checkpoints with a quorum of "
        f"{keys.quorum} of {len(keys.sites)} sites",
        f"the last checkpoint: {point.size} entries, root {point.root.hex()[:16]}, {late} post-quantum cosignatures",
        f"{len(story.rounds)} rounds: who was in each, receipts, the model after each",
        "cut off: there is no summary.json and no manifest; plan.yaml and metrics over all sites agree with the log, "
        "as far as a checkpoint speaks of it"
        if cut_off
        else "plan.yaml, metrics.jsonl, summary.json and the model are what the run left, and agree with the log",
    ]
    if loose:
        lines.append(f"the last {loose} entries have no quorum: the run was aborted, and only its coordinator says so")
    if plan.study.checkpoints:
        lines.append(f"{len(story.decisions)} signed decisions of people, each where the plan asks for it")
    if plan.private:
        lines.append(f"epsilon of {len(story.spends)} signed charges, recomputed by the accountant from the plan")
    if story.alarmed:
        lines.append(
            f"{len(story.alarmed)} rounds given up since no honest labs have such a sum; whom others left out to find "
            "whose it is, and who is named, follow from the log"
        )
    lines.append(f"{len(story.permits)} permits, field by field against the plan")
    lines.append("not shown by any of this: baselines, metrics of single labs, intervals, records, times, traffic")
    return tuple(lines)


@contextmanager
def _in(file: str, field: str) -> Any:
    """Turn what is wrong with a run's files, however it is called, into a failed verification."""
    try:
        yield
    except VerificationFailed as error:
        error.file, error.field = error.file or file, error.field or field
        raise
    except FedsciError as error:
        raise VerificationFailed(error.message, hint=error.hint, file=file, field=field) from None


@contextmanager
def _below(folder: str) -> Any:
    """Let a failed verification name files from the run folder on."""
    try:
        yield
    except VerificationFailed as error:
        if error.file:
            error.file = error.file.removeprefix("../") if error.file.startswith("../") else f"{folder}/{error.file}"
        raise


def _within(spent: object, most: object) -> bool:
    numbers = [value for value in (spent, most) if isinstance(value, float | int) and not isinstance(value, bool)]
    return len(numbers) == 2 and numbers[0] <= numbers[1] * (1 + _CLOSE)


def _same(one: object, other: object) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return set(one) == set(other) and all(_same(one[key], other[key]) for key in one)
    numbers = [value for value in (one, other) if isinstance(value, float | int) and not isinstance(value, bool)]
    if len(numbers) == 2:
        try:
            return math.isclose(numbers[0], numbers[1], rel_tol=_CLOSE, abs_tol=1e-12)
        except OverflowError:  # a whole number beyond all floats
            return False
    return one == other


def _wrong(entry: Entry, message: str, field: str) -> VerificationFailed:
    return VerificationFailed(
        f"the {entry.kind} at line {entry.index + 1} of the log: {message}",
        file=f"statements/{entry.digest.removeprefix('sha256:')}.json",
        field=field,
    )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise VerificationFailed(f"the file cannot be read: {error.strerror}", file=path.name) from None


def _fingerprint(public: bytes) -> str:
    return "sha256:" + hashlib.sha256(public).hexdigest()
