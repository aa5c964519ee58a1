"""Waiting at a checkpoint: the question in ``decisions/`` of the run folder, and the answers that are put beside it.

``<checkpoint>.request.json`` says what is asked while the run waits (``.decided.json`` afterwards); every
``*.decision.json`` beside it is looked at once. Nothing but a decision that counts lets the run go on.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fedsci.audit.statement import MOST_BYTES, peek
from fedsci.config.checkpoints import roles_before
from fedsci.config.plan import Plan
from fedsci.coordinator.decisions import (
    RELEASE,
    Decision,
    Point,
    Question,
    check_names,
    in_words,
    open_decision,
    question_from,
    refuse_replay,
)
from fedsci.coordinator.model_file import model_digest
from fedsci.coordinator.progress import Keeper, Progress
from fedsci.errors import InputError, PolicyRefused, VerificationFailed
from fedsci.names import digest
from fedsci.registry.run_folder import RunFolder

FOLDER = "decisions"
_REQUEST, _DECIDED, _DECISION = ".request.json", ".decided.json", ".decision.json"
_POLL_S = 0.3


class Waiting(Protocol):
    """Who shows that a run waits for people."""

    def waits(self, question: Question, roles: tuple[str, ...], folder: Path) -> None:
        """The run in ``folder`` waits for these roles; empty: it goes on, or is over."""

    def heard(self, text: str) -> None:
        """A decision came, and counted or not; one line."""


def decision_file(checkpoint: str, role: str) -> str:
    """Return the name of a role's decision in the folder of decisions.

    Raises:
        InputError: it would be the name of a file elsewhere.
    """
    check_names(checkpoint, [role])
    return f"{checkpoint.replace(':', '-')}.{role}{_DECISION}"


def open_request(folder: Path) -> Question:
    """Return what the run in ``folder`` waits for.

    Raises:
        InputError: it waits for nobody.
    """
    for path in sorted((folder / FOLDER).glob(f"*{_REQUEST}")):
        if not (folder / "summary.json").exists():
            return question_from(path.read_bytes())
    raise InputError(f"{folder} waits for no decision", hint="fedsci coordinator runs says what runs wait for")


def hand_in(folder: Path, content: bytes) -> Decision:
    """Put a signed decision into the run folder that waits for it, where the run finds it.

    Raises:
        InputError: the run waits for nobody, or its folder cannot be written, or is not a folder of its own.
        VerificationFailed: the run would not count it, and why.
    """
    decision = open_decision(open_request(folder).point, content, now=time.time())
    if (folder / FOLDER).is_symlink():
        raise InputError(f"{folder / FOLDER} leads elsewhere", hint="sign with --out, and send the file back")
    RunFolder(path=folder / FOLDER).write(decision_file(decision.checkpoint, decision.role), content)
    return decision


def decisions_of(plan: Plan, progress: Progress) -> list[Decision]:
    """Return what was decided in this run, the oldest first; every signature is checked again."""
    found = []
    for content in progress.decisions:
        try:
            checkpoint = str(peek(content)[1].get("checkpoint"))
            found.append(open_decision(_point(plan, progress, checkpoint, plan.study.signers, None), content, now=None))
        except VerificationFailed:
            continue  # what was kept is not what was counted
    return found


def counted(plan: Plan, progress: Progress, roles: Collection[str], checkpoint: str) -> dict[str, Decision]:
    """Return what these roles have decided at a checkpoint of this run, by role; a refusal is not taken back."""
    found: dict[str, Decision] = {}
    for said in decisions_of(plan, progress):
        if said.checkpoint == checkpoint and said.role in roles and (said.role not in found or not said.approved):
            found[said.role] = said
    return found


def may_release(plan: Plan, progress: Progress) -> bool:
    """Return whether the model, as it is now, may be written into the run folder: whether all who must have agreed."""
    roles = roles_before(plan.study.checkpoints, "release")
    if not roles:
        return True
    if progress.model is None:
        return False
    said, model = counted(plan, progress, roles, RELEASE), model_digest(plan, progress)
    return all(role in said and said[role].approved and said[role].model == model for role in roles)


@dataclass(kw_only=True)
class Deciding:
    """Holds a run at its checkpoints until everybody who must has approved.

    Attributes:
        plan: what is run.
        folder: the run's.
        shows: told what the run waits for.
        epsilon: says what so many rounds have cost a lab at most; None without privacy.
        pause: waits so many seconds; may raise to end the wait.
        decided: given every decision that counts, once, as soon as it is kept.
    """

    plan: Plan
    folder: Path
    shows: Waiting
    epsilon: Callable[[int], float | None]
    pause: Callable[[float], None] = time.sleep
    decided: Callable[[bytes], None] = lambda envelope: None
    _seen: set[tuple[str, str]] = field(default_factory=set)

    def require(
        self, checkpoint: str, roles: tuple[str, ...], progress: Progress, keep: Keeper, *, measured_after: int | None
    ) -> None:
        """Return when all ``roles`` have approved: now, or before this process was there.

        Raises:
            PolicyRefused: somebody refused.
        """
        model = model_digest(self.plan, progress) if roles else ""
        said = counted(self.plan, progress, roles, checkpoint)
        if checkpoint == RELEASE:
            said = {
                role: decision for role, decision in said.items() if decision.model == model or not decision.approved
            }
        self._refuse(said.values())
        if set(roles) <= said.keys():
            return
        question = self._ask(checkpoint, roles, progress, model, measured_after)
        self._pass_over(progress.decisions)
        self._show(question, said)
        try:
            while not set(roles) <= said.keys():
                for content in self._arrived():
                    decision = self._open(question, content, said)
                    if decision is None:
                        continue
                    progress.decisions.append(content)
                    keep.save(progress)
                    self.decided(content)
                    said[decision.role] = decision
                    self.shows.heard(_heard(decision))
                    self._refuse([decision])
                    self._show(question, said)
                if not set(roles) <= said.keys():
                    self.pause(_POLL_S)
        except PolicyRefused:
            self._close(question)
            raise
        self._close(question)

    def _ask(
        self, checkpoint: str, roles: tuple[str, ...], progress: Progress, model: str, measured_after: int | None
    ) -> Question:
        """Write the question down; one that a process before this one has asked already stays as it was."""
        rounds, study = min(progress.asked, progress.rounds_allowed), self.plan.study
        question = Question(
            point=_point(self.plan, progress, checkpoint, roles, model),
            study=study.study,
            rounds=progress.rounds_completed,
            planned=self.plan.training.rounds,
            metrics=progress.federated.pooled() if progress.federated else None,
            measured_after=measured_after if progress.federated else None,
            epsilon=self.epsilon(rounds),
            delta=self.plan.whole_privacy[1],
            asked=round(time.time()),
        )
        path = self.folder / FOLDER / _file(checkpoint, _REQUEST)
        for other in path.parent.glob(f"*{_REQUEST}"):  # left by a process whose word is not trusted any more
            if other != path:
                other.unlink(missing_ok=True)
        try:
            kept = question_from(path.read_bytes())
            if kept.point == question.point:
                return kept
        except (OSError, InputError):
            pass
        path.parent.mkdir(exist_ok=True)
        RunFolder(path=path.parent).write(path.name, question.to_bytes())
        return question

    def _pass_over(self, envelopes: Iterable[bytes]) -> None:
        """Take the files of decisions that were counted for seen."""
        before = {digest(envelope) for envelope in envelopes}
        for path in self._files():
            with contextlib.suppress(OSError, InputError):
                found = digest(_read(path))
                if found in before:
                    self._seen.add((path.name, found))

    def _files(self) -> list[Path]:
        return sorted((self.folder / FOLDER).glob(f"*{_DECISION}"))

    def _arrived(self) -> list[bytes]:
        """Return what lies in the folder and was not looked at yet."""
        found = []
        for path in self._files():
            try:
                content = _read(path)
            except (OSError, InputError) as error:
                if (path.name, "") not in self._seen:
                    self._seen.add((path.name, ""))
                    self.shows.heard(f"{path.name} does not count: {getattr(error, 'strerror', None) or error}")
                continue
            if (path.name, digest(content)) not in self._seen:
                self._seen.add((path.name, digest(content)))
                found.append(content)
        return found

    def _open(self, question: Question, content: bytes, said: Mapping[str, Decision]) -> Decision | None:
        try:
            decision = open_decision(question.point, content, now=time.time())
            refuse_replay(decision, {role: before.envelope for role, before in said.items()})
        except VerificationFailed as error:
            self.shows.heard(f"a decision does not count: {error.message}")
            return None
        return decision

    def _refuse(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            if not decision.approved:
                reason = f": {decision.reason}" if decision.reason else ""
                raise PolicyRefused(
                    f"{decision.name} ({decision.role}) refused {in_words(decision.checkpoint)}{reason}",
                    hint="the signed decision is kept with the run; what was spent stays spent",
                )

    def _show(self, question: Question, said: Mapping[str, Decision]) -> None:
        missing = tuple(role for role in question.point.signers if role not in said)
        if missing:
            self.shows.waits(question, missing, self.folder)

    def _close(self, question: Question) -> None:
        """Take the question away: the run waits no more."""
        self.shows.waits(question, (), self.folder)
        asked = self.folder / FOLDER / _file(question.point.checkpoint, _REQUEST)
        asked.replace(asked.with_name(_file(question.point.checkpoint, _DECIDED)))


def _point(plan: Plan, progress: Progress, checkpoint: str, roles: Iterable[str], model: str | None) -> Point:
    signers = {role: tuple(plan.study.signers[role]) for role in roles}
    return Point(run=progress.run, plan=plan.digest, checkpoint=checkpoint, model=model, signers=signers)


def _read(path: Path) -> bytes:
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise InputError("this is no decision")
    return path.read_bytes()


def _file(checkpoint: str, suffix: str) -> str:
    return checkpoint.replace(":", "-") + suffix


def _heard(decision: Decision) -> str:
    said = "approved" if decision.approved else "refused"
    return f"{decision.name} ({decision.role}) {said} {in_words(decision.checkpoint)}"
