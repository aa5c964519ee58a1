"""A study's audit log as the coordinator keeps it: what happened is signed, logged, and cosigned before it goes on.

The sites are the witnesses. After every round they are shown the new checkpoint, a proof that the log only grew, and
the round's statement; the next round's requests carry the quorum's cosignatures, without which no site takes part. A
site that missed an exchange is shown what it missed along with the next request to it.
"""

import contextlib
import json
import secrets
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.audit.entries import SHOWN
from fedsci.audit.log import AuditLog, statement_file
from fedsci.audit.quorum import quorum_of
from fedsci.audit.statement import Statement, open_statement, sign_statement
from fedsci.config.masking import lying_witnesses
from fedsci.config.plan import Plan
from fedsci.coordinator.admission import MOST_STATEMENT, read_privacy
from fedsci.coordinator.aggregation import Collected
from fedsci.coordinator.norm_check import Norm
from fedsci.coordinator.progress import Progress
from fedsci.errors import RoundAborted, SiteFailed, VerificationFailed
from fedsci.identity.files import write_private
from fedsci.names import SiteId, digest, is_unicode
from fedsci.registry.run_folder import RunFolder
from fedsci.secagg import Seed, SigningKey
from fedsci.secagg.profile import Profile
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Reply, Request

_CARRIES = frozenset({"train", "begin", "evaluate", "alone"})
_PATIENCE_S, _PAUSE_S = 60.0, 0.5
KEYS, MANIFEST = "keys.json", "manifest.json"


@dataclass(kw_only=True)
class StudyLog:
    """The log of one run, in the run folder's ``audit/``.

    Attributes:
        folder: the run's.
        plan: what is run.
        key: signs the log; sites know the coordinator by it.
        roster, consortium: the signed roster of a masked study and the key that signed it, for who verifies later.
        patience_s: how long a quorum is waited for.
    """

    folder: RunFolder
    plan: Plan
    key: SigningKey
    roster: bytes = b""
    consortium: bytes = b""
    patience_s: float = _PATIENCE_S
    _log: AuditLog | None = None
    _link: SiteLink | None = None
    _run: str = ""
    _seen: dict[SiteId, int] = field(default_factory=dict)
    _late: set[SiteId] = field(default_factory=set)

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.folder.path / "audit"

    def ask_fields(self) -> dict[str, str]:
        """What a request to ``prepare`` says of the log."""
        return {"log_key": self.key.public.hex()}

    def open(self, link: SiteLink, progress: Progress, model: NDArray[np.float32], sends: NDArray[np.float32]) -> None:
        """Begin the log of a study that all sites let in, or go on with the one that a process before this one kept.

        Args:
            link: to the sites; from now on its requests carry the log along.
            progress: what sites said of themselves.
            model: the model that rounds begin from, or began from.
            sends: what sites are sent of it.

        Raises:
            VerificationFailed: the log in the folder is not what was signed.
            RoundAborted: no quorum of sites witnesses it.
        """
        self._run, self._link = progress.run, link
        keys = {str(site): bytes.fromhex(said.key) for site, said in progress.sites.items()}
        quorum = quorum_of(len(keys), lying_witnesses(self.plan))
        origin = f"fedsci/{progress.run}"
        self._log = AuditLog(self.path, origin=origin, signer=self.key, sites=keys, quorum=quorum)
        for site, said in progress.sites.items():
            if said.late_key:
                self._log.trust(site, bytes.fromhex(said.late_key))
        if not any(entry.kind == "sites" for entry in self._log.entries()):  # the last that a log begins with
            self._begin(self._log, progress, keys, quorum, model, sends)
        link.riding, link.behind = self._riding, self._behind
        self.witness()

    def round(
        self,
        number: int,
        collected: Collected | None,
        model: NDArray[np.float32],
        sends: NDArray[np.float32],
        *,
        metrics: Mapping[str, float | None] | None = None,
        norm: Norm | None = None,
    ) -> None:
        """Log a round, durably: who was in it, what came out; one that was given up has nothing collected.

        ``metrics`` are those of the model that the round began from, where they were measured; ``norm`` is the sum's.
        One whose sum cannot be honest sites' is logged with all that it is of, and as given up.
        """
        if self._log is None:
            return
        body: dict[str, Any] = {"run": self._run, "round": number, "model": _digest(model), "sends": _digest(sends)}
        if collected is None:
            body |= {"abandoned": True, "survivors": [], "dropped": {}, "receipts": {}}
        else:
            body |= {
                "survivors": sorted(collected.survivors),
                "dropped": dict(sorted(collected.dropped.items())),
                "receipts": dict(sorted(collected.receipts.items())),
                "sum": _digest(collected.contribution),
                "weight": collected.weight,
            }
        if metrics is not None:
            body["metrics_before"] = dict(metrics)
        if norm is not None:
            body["norm"] = norm.to_json()["sum"]
            body |= {} if norm.alarm is None else {"abandoned": True, "alarm": norm.alarm}
        self._append("round", body, round=number)
        self._late = set() if collected is None else set(collected.dropped)
        for site, reason in sorted(collected.dropped.items()) if collected is not None else ():
            said = {"run": self._run, "round": number, "site": site, "reason": reason}
            self._append("refusal", said, round=number, site=site)
        self._log.checkpoint()

    def note(self, kind: str, body: Mapping[str, Any], *, round: int | None = None) -> None:  # noqa: A002
        """Log something that the coordinator says; the next exchange with the witnesses shows it."""
        if self._log is not None:
            self._append(kind, {"run": self._run, **body}, round=round)

    def keep(self, kind: str, envelope: str, *, site: SiteId | None = None) -> None:
        """Log what somebody else signed; whether it is theirs is the caller's to check."""
        if self._log is not None and envelope:
            self._log.append(kind, envelope.encode(), site=site)

    def good_spend(self, progress: Progress, site: SiteId, reply: Reply) -> bool:
        """Say whether a site signed what it charged, and what it signed is what it told.

        One that did not would spoil the log for all: its charge stays open, as if it had not answered.
        """
        envelope = str(reply.fields.get("spend", ""))
        told = {name: value for name, value in read_privacy(reply.fields.get("privacy")).items() if value is not None}
        right = {"run": progress.run, "site": site, "plan": self.plan.digest, "dataset": self.plan.study.dataset}
        with contextlib.suppress(VerificationFailed, ValueError):
            said = _only_signed_by("spend", envelope, [bytes.fromhex(progress.sites[site].key)])
            return said.body == right | {"privacy": told} and len(envelope) <= MOST_STATEMENT
        return False

    def witness(self, *, last: bool = False) -> None:
        """Have the sites cosign the newest checkpoint; at the end also with their post-quantum keys.

        Who was missing from the round is not waited for, unless it takes its cosignature: it may still be at work.

        Raises:
            RoundAborted: no quorum did.
        """
        log, link = self._log, self._link
        if log is None or link is None:
            return
        log.checkpoint()
        deadline, reasons = time.monotonic() + self.patience_s, dict[SiteId, str]()
        late = set() if last else self._late
        while True:
            left = {site for site in self.plan.sites if site not in log.cosigners() or (last and site not in reasons)}
            asked, late = sorted(left - late or left), set()
            if asked:
                reasons |= self._take(log, self._ask(link, asked, last=last))
            if log.has_quorum():
                return
            if time.monotonic() >= deadline or all(_is_final(reasons.get(site, "")) for site in asked):
                missing = "; ".join(reasons[site] for site in asked if reasons.get(site))
                raise RoundAborted(
                    f"only {len(log.cosigners())} of {len(self.plan.sites)} sites witness the audit log, "
                    f"{log.quorum} must ({missing})",
                    hint="see the sites' own logs; two histories of a log never get a quorum",
                )
            link.check()
            time.sleep(_PAUSE_S)

    def finish(self, progress: Progress, spends: Mapping[SiteId, str]) -> None:
        """Log what sites charged and the model that came out, and have that witnessed for good.

        Raises:
            RoundAborted: no quorum witnesses it.
        """
        if self._log is None:
            return
        for site, envelope in spends.items():
            self.keep("spend", envelope, site=site)
        if progress.model is not None:
            measured = progress.federated.pooled() if progress.federated is not None else None
            body = {"model": _digest(progress.model), "rounds_completed": progress.rounds_completed}
            self.note("model", body | ({"metrics": dict(measured)} if measured else {}))
        self.witness(last=True)

    def close(self, files: Mapping[str, bytes]) -> None:
        """Sign what the run leaves, next to the log and bound to its end, and let the log go."""
        log, self._log = self._log, None
        if log is None:
            return
        log.checkpoint()
        point = log.newest().checkpoint
        kept = self.folder.contents([f"{self.path.name}/{KEYS}"])
        body = {
            "run": self._run,
            "size": point.size,
            "root": b64encode(point.root).decode(),
            "files": {name: digest(content) for name, content in sorted((dict(files) | kept).items())},
        }
        self.folder.write_audit(MANIFEST, sign_statement("manifest", body, [self.key]))
        log.close()

    def _begin(
        self,
        log: AuditLog,
        progress: Progress,
        keys: Mapping[str, bytes],
        quorum: int,
        model: NDArray[np.float32],
        sends: NDArray[np.float32],
    ) -> None:
        """Log the plan, what sites signed when they let it in, and who witnesses."""
        said = progress.sites
        about = {
            "coordinator": self.key.public.hex(),
            "sites": {site: key.hex() for site, key in keys.items()},
            "post_quantum": {site: one.late_key for site, one in said.items() if one.late_key},
            "second_signers": {site: one.second_key for site, one in said.items() if one.second_key},
            "quorum": quorum,
            "run": progress.run,
            "plan": self.plan.digest,
            "consortium": self.consortium.hex(),
            "roster": b64encode(self.roster).decode() if self.roster else None,
        }
        self.folder.write_audit(KEYS, (json.dumps(about, indent=2) + "\n").encode())
        self._append("plan", {"run": progress.run, "plan": self.plan.to_bytes().decode(), "digest": self.plan.digest})
        for site, one in said.items():
            for kind, envelope in one.statements.items():
                second = [one.second_key] if kind == "permit" and self.plan.study.safety_critical else []
                try:
                    signed = _only_signed_by(kind, envelope, [bytes.fromhex(key) for key in (one.key, *second)])
                    if signed.body.get("site") != site:
                        raise VerificationFailed("it is another site's", field="site")
                    if kind == "permit" and not permit_terms(self.plan).items() <= signed.body.items():
                        raise VerificationFailed("it permits another study than the plan's", field="plan")
                except VerificationFailed as error:
                    error.message = f"{site}: its {kind} is not one that the log can hold: {error.message}"
                    raise
                self.keep(kind, envelope, site=site)
        names = ("coordinator", "sites", "post_quantum", "second_signers", "quorum", "run", "plan")
        witnesses = {name: about[name] for name in names} | {"model": _digest(model), "sends": _digest(sends)}
        self._append("sites", witnesses)

    def _append(self, kind: str, body: Mapping[str, Any], *, round: int | None = None, site: str | None = None) -> None:  # noqa: A002
        if self._log is not None:
            self._log.append(kind, sign_statement(kind, body, [self.key]), round=round, site=site)

    def _ask(self, link: SiteLink, sites: list[SiteId], *, last: bool) -> dict[SiteId, Reply | SiteFailed]:
        replies = link.ask({site: self._request(site, last=last) for site in sites})
        behind = {}
        for site, answer in replies.items():
            size = answer.fields.get("size") if isinstance(answer, Reply) else None
            if type(size) is int and self._log is not None and 0 <= size <= len(self._log):
                self._seen[site] = size
                behind[site] = self._request(site, last=last)
        return replies | (link.ask(behind) if behind else {})

    def _request(self, site: SiteId, *, last: bool = False) -> Request:
        return Request(action="witness", fields={**self._news(site), **({"last": True} if last else {})})

    def _news(self, site: SiteId) -> dict[str, Any]:
        """What a site is shown: the newest checkpoint, and what is new since the one that it cosigned last."""
        log, seen = self._log, self._seen.get(site, 0)
        if log is None:
            return {}
        entries = [
            {"line": entry.line.decode(), "proof": _packed(log.inclusion_proof(entry.index))}
            | ({"envelope": (self.path / statement_file(entry.digest)).read_text()} if entry.kind in SHOWN else {})
            for entry in log.entries()[seen : log.newest().checkpoint.size]
        ]
        return {
            "run": self._run,
            "note": log.newest().content.decode(),
            "old_size": seen,
            "proof": _packed(log.consistency_proof(seen)),
            "entries": entries,
        }

    def _take(self, log: AuditLog, answers: Mapping[SiteId, Reply | SiteFailed]) -> dict[SiteId, str]:
        """Keep sites' cosignatures; return why there is none, for each site, or an empty text."""
        reasons, lines = dict[SiteId, str](), dict[str, list[str]]()
        for site, answer in answers.items():
            said = answer.fields.get("cosignatures") if isinstance(answer, Reply) else None
            if (
                isinstance(said, list)
                and len(said) <= 2
                and all(isinstance(one, str) and is_unicode(one) for one in said)
            ):
                lines[site] = said
            reasons[site] = str(answer) if isinstance(answer, SiteFailed) else ""
        refused = log.add_cosignatures(lines)
        cosigned = set(log.cosigners())
        for site in answers:
            if site in refused:
                reasons[site] = f"{site}: {refused[site].message}"
            elif site in cosigned:
                self._seen[site] = log.newest().checkpoint.size
            reasons[site] = reasons[site] or ("" if site in cosigned else f"{site}: it cosigned nothing")
        return reasons

    def _behind(self, site: SiteId, size: int) -> bool:
        """Note what a site has seen; return whether it was known wrongly."""
        if self._log is None or not 0 <= size <= len(self._log) or self._seen.get(site, 0) == size:
            return False
        self._seen[site] = size
        return True

    def _riding(self, site: SiteId, request: Request) -> Mapping[str, Any]:
        if self._log is None or request.action not in _CARRIES:
            return {}
        newest = self._log.newest()
        behind = {} if self._seen.get(site) == newest.checkpoint.size else {"log": self._news(site)}
        return {"checkpoint": newest.content.decode(), **behind}


def permit_terms(plan: Plan) -> dict[str, Any]:
    """Return what every site's permit says of the study, whatever else it says."""
    privacy, private = plan.study.privacy, plan.private
    return {
        "study": plan.study.study,
        "plan": plan.digest,
        "rounds": plan.training.rounds,
        "epsilon": privacy.epsilon if private else None,
        "delta": privacy.delta if private else None,
        "min_cohort": min(len(plan.sites), plan.smallest_sum),
        "safety_critical": plan.study.safety_critical,
    }


def log_key(folder: Path, profile: Profile) -> SigningKey:
    """Return the key that signs a coordinator's logs, of a crypto profile, kept in its folder."""
    path = folder / "log.key"
    if not path.exists():
        write_private(path, secrets.token_bytes(profile.seed_bytes))
    return SigningKey(Seed(path.read_bytes()))


def _only_signed_by(kind: str, envelope: str, keys: list[bytes]) -> Statement:
    """Return a statement that exactly these have signed, spelt as fedsci does; refuses any other."""
    said = open_statement(kind, envelope.encode(), keys)
    values = json.loads(envelope)
    if len(values["signatures"]) != len(keys) or envelope != json.dumps(values, sort_keys=True) + "\n":
        raise VerificationFailed("somebody else signed it as well, or it is spelt in another way", field="signatures")
    return said


def _is_final(reason: str) -> bool:
    """Say whether asking a site again changes nothing: it looked at the log, and would not cosign it."""
    return "audit log" in reason or "two histories" in reason or "never admitted" in reason


def _digest(vector: NDArray[Any]) -> str:
    return digest(vector.tobytes())


def _packed(hashes: Any) -> list[str]:
    return [b64encode(one).decode() for one in hashes]
