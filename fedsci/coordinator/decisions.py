"""What people are asked at a checkpoint, and their signed answers: each for one run, plan, point, model and role.

A decision is a statement of kind ``decision`` in a DSSE envelope. It counts if it is for exactly what the run waits
for, signed by a key that the plan names for its role, and in time; there is a refusal for everything else.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Literal

from fedsci.audit.statement import key_id, open_statement, peek, sign_statement
from fedsci.errors import InputError, VerificationFailed, one_line
from fedsci.names import digest, site_id
from fedsci.secagg import SigningKey

KIND = "decision"
TRAINING, RELEASE = "before:training", "before:release"
Answer = Literal["approve", "refuse"]

HOURS = 72.0
_MOST_HOURS = 24.0 * 31
_SKEW_S = 300.0  # how far the clock of who signed may be ahead
_LONGEST = 1000
_CHECKPOINT = re.compile(r"before:(training|release)|round:[1-9][0-9]{0,8}")
_SIGN_THIS = "sign the request that lies in the run's folder now: fedsci decide"


def after_round(number: int) -> str:
    """Return the name of the checkpoint after a round."""
    return f"round:{number}"


def check_names(checkpoint: str, roles: Iterable[str]) -> None:
    """Pass if a checkpoint is one that a run can wait at, and the roles are names: both become names of files.

    Raises:
        InputError: one is not.
    """
    if not _CHECKPOINT.fullmatch(checkpoint):
        raise InputError(
            f"{one_line(checkpoint)[:_LONGEST]} is no checkpoint", hint=f"{TRAINING}, {RELEASE} or round:NUMBER"
        )
    for role in roles:
        site_id(role)


def in_words(checkpoint: str) -> str:
    """Return a checkpoint in words.

    >>> in_words("before:release"), in_words("round:20")
    ('before release', 'after round 20')
    """
    kind, _, what = checkpoint.partition(":")
    return f"{'after round' if kind == 'round' else 'before'} {what}"


@dataclass(frozen=True, kw_only=True)
class Point:
    """What exactly a decision must be on.

    Attributes:
        run, plan, checkpoint: the run, the plan's digest, where in the run.
        model: digest of the model; None where a decision's own was compared before.
        signers: by role that must decide, its public keys in hex.
    """

    run: str
    plan: str
    checkpoint: str
    model: str | None
    signers: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a run waits for people to decide, and what they may want to know for it.

    Attributes:
        point: what the decision is on.
        study, rounds, planned: the study's name, rounds applied, rounds planned.
        metrics: of the shared model over all labs, the last that are known; None if none are.
        measured_after: the round after which they were measured.
        epsilon: the largest spent so far in this run at any lab; None without privacy.
        delta: of the study.
        asked: UTC seconds.
    """

    point: Point
    study: str
    rounds: int
    planned: int
    metrics: Mapping[str, float | None] | None
    measured_after: int | None
    epsilon: float | None
    delta: float
    asked: float

    def facts(self) -> list[str]:
        """Return what there is to know, a line each."""
        lines = []
        if self.metrics is not None:
            known = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items() if value is not None)
            when = "" if self.measured_after is None else f" after round {self.measured_after}"
            lines.append(f"measured{when}: {known or 'nothing that may leave'}")
        else:
            lines.append("measured: nothing yet")
        if self.epsilon is None:
            lines.append("privacy: none")
        else:
            lines.append(f"privacy: epsilon {self.epsilon:.4g} so far, at delta {self.delta:g}")
        lines.append(f"model: {self.point.model}")
        return lines

    def to_bytes(self) -> bytes:
        """Return the content of a request's file."""
        return (json.dumps(asdict(self), indent=2, allow_nan=False) + "\n").encode()


def question_from(content: bytes) -> Question:
    """Return the question of a request's file.

    Raises:
        InputError: it is none.
    """
    try:
        values = json.loads(content)
        about = values["point"]
        point = Point(**about | {"signers": {role: tuple(keys) for role, keys in about["signers"].items()}})
        question = Question(**values | {"point": point})
        texts = (point.run, point.plan, point.checkpoint, point.model, question.study, *point.signers)
        if not all(isinstance(text, str) and text == one_line(text) for text in texts):
            raise ValueError
        check_names(point.checkpoint, point.signers)
        _check_figures(question)
        for key in chain.from_iterable(point.signers.values()):
            bytes.fromhex(key)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError):
        raise InputError("this is no request for a decision", hint="it is decisions/*.request.json of a run") from None
    return question


def _check_figures(question: Question) -> None:
    """Pass if every figure of a question is a finite number, or left out where it may be.

    Raises:
        ValueError: one is not.
    """
    if not (question.metrics is None or isinstance(question.metrics, dict)):
        raise ValueError("metrics")
    metrics = question.metrics or {}
    if not all(isinstance(name, str) and name == one_line(name) for name in metrics):
        raise ValueError("metrics")
    optional = (question.epsilon, question.measured_after, *metrics.values())
    for value in (question.rounds, question.planned, question.delta, question.asked, *optional):
        number = type(value) in (int, float) and abs(value) <= sys.float_info.max
        if not number and not (value is None and value in optional):
            raise ValueError("figures")


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A decision that counts.

    Attributes:
        checkpoint, role, name, reason: as signed.
        approved: whether the run may go on.
        model: digest of the model that was decided on.
        at: when it was signed, UTC seconds.
        envelope: as it was signed.
    """

    checkpoint: str
    role: str
    name: str
    approved: bool
    reason: str
    model: str
    at: float
    envelope: bytes

    def to_json(self) -> dict[str, Any]:
        """Return what a summary says of it."""
        decision = "approve" if self.approved else "refuse"
        about = {"checkpoint": self.checkpoint, "role": self.role, "name": self.name, "decision": decision}
        return about | {"reason": self.reason, "model": self.model, "at": self.at}


def sign_decision(
    point: Point,
    *,
    role: str,
    name: str,
    answer: Answer,
    key: SigningKey,
    now: float,
    reason: str = "",
    hours: float = HOURS,
) -> bytes:
    """Return a decision's file, good for so many hours.

    Raises:
        VerificationFailed: the run would not count it, and why.
    """
    body = {
        "run": point.run,
        "plan": point.plan,
        "checkpoint": point.checkpoint,
        "model": point.model,
        "role": role,
        "name": one_line(name)[:_LONGEST],
        "decision": answer,
        "reason": one_line(reason)[:_LONGEST],
        "at": round(now),
        "until": round(now + 3600 * hours),
    }
    content = sign_statement(KIND, body, [key])
    open_decision(point, content, now=now)
    return content


def open_decision(point: Point, content: bytes, *, now: float | None) -> Decision:
    """Return the decision in ``content`` if it is on ``point``.

    Args:
        point: what the run waits for.
        content: from anyone.
        now: UTC seconds; None for one that was counted before, in time.

    Raises:
        VerificationFailed: it does not count; says which rule it breaks.
    """
    kind, body = peek(content)
    if kind != KIND:
        raise VerificationFailed(f"this is a {one_line(kind)}, not a decision")
    _check_form(body)
    for field, what in (("run", "run"), ("plan", "plan")):
        if body[field] != getattr(point, field):
            raise VerificationFailed(
                f"the decision is for {what} {_short(body[field])}, not for {_short(getattr(point, field))}",
                hint=_SIGN_THIS,
            )
    if body["checkpoint"] != point.checkpoint:
        raise VerificationFailed(
            f"the decision is for the checkpoint {one_line(in_words(body['checkpoint']))}, and the run waits "
            f"{in_words(point.checkpoint)}",
            hint=_SIGN_THIS,
        )
    if point.model is not None and body["model"] != point.model:
        raise VerificationFailed(
            f"the decision is on the model {_short(body['model'])}, and the run's is {_short(point.model)}",
            hint=_SIGN_THIS,
        )
    role = body["role"]
    keys = point.signers.get(role)
    if keys is None:
        raise VerificationFailed(
            f"the role {one_line(role)} does not decide {in_words(point.checkpoint)}",
            hint=f"who does: {', '.join(point.signers)}",
        )
    _check_signature(point, role, content)
    if now is not None:
        _check_time(body["at"], body["until"], now)
    return Decision(
        checkpoint=body["checkpoint"],
        role=role,
        name=body["name"],
        approved=body["decision"] == "approve",
        reason=body["reason"],
        model=body["model"],
        at=body["at"],
        envelope=content,
    )


def refuse_replay(decision: Decision, counted: Mapping[str, bytes]) -> None:
    """Pass if the decision says something new; a refusal always does, until the run goes on.

    Args:
        decision: opened.
        counted: the envelopes that approved at this checkpoint, by role.

    Raises:
        VerificationFailed: its role has approved already.
    """
    before = counted.get(decision.role)
    if before is None or not decision.approved:
        return
    again = "this very decision was counted already" if digest(before) == digest(decision.envelope) else ""
    raise VerificationFailed(again or f"{decision.role} has approved already, {in_words(decision.checkpoint)}")


_TEXTS = ("run", "plan", "checkpoint", "model", "role", "name", "decision", "reason")
_TIMES = ("at", "until")


def _check_form(body: Mapping[str, Any]) -> None:
    for field in (*_TEXTS, *_TIMES):
        if field not in body:
            raise VerificationFailed(f"the decision has no field {field}")
        kind = str if field in _TEXTS else int
        if not isinstance(body[field], kind) or isinstance(body[field], bool):
            raise VerificationFailed(f"the decision's {field} is no {'text' if kind is str else 'time'}")
    unknown = sorted(set(body) - {*_TEXTS, *_TIMES})
    if unknown:
        raise VerificationFailed(f"the decision has an unknown field {one_line(unknown[0])}")
    if body["decision"] not in ("approve", "refuse"):
        raise VerificationFailed(f"the decision is {one_line(body['decision'])!r}, neither approve nor refuse")
    for field in ("name", "reason"):
        if body[field] != one_line(body[field]) or len(body[field]) > _LONGEST:
            raise VerificationFailed(f"the decision's {field} is no line of at most {_LONGEST} characters")
    if not body["name"]:
        raise VerificationFailed("the decision does not say who decided")


def _check_signature(point: Point, role: str, content: bytes) -> None:
    """Pass if one of the role's keys has signed."""
    signatures = json.loads(content)["signatures"]
    ids = {signature["keyid"] for signature in signatures}
    if not ids:
        raise VerificationFailed("the decision is not signed", hint="fedsci decide signs it")
    for key in map(bytes.fromhex, point.signers[role]):
        if key_id(key) in ids:
            open_statement(KIND, content, [key])
            return
    for other, keys in point.signers.items():
        if any(key_id(bytes.fromhex(key)) in ids for key in keys):
            raise VerificationFailed(f"the decision is {role}'s, and signed with a key of {other}")
    raise VerificationFailed(
        f"the decision is not signed with a key of {role}", hint="the study's signers say whose keys count"
    )


def _check_time(at: int, until: int, now: float) -> None:
    if at > now + _SKEW_S:
        raise VerificationFailed(
            f"the decision was signed {at - now:.0f} s from now", hint="set the clock of who signed, and sign again"
        )
    if until - at > 3600 * _MOST_HOURS:
        raise VerificationFailed(f"the decision is good for more than {_MOST_HOURS:g} hours", hint="sign with fewer")
    if until <= now:
        raise VerificationFailed(f"the decision expired {now - until:.0f} s ago", hint="sign it again")


def _short(text: str) -> str:
    shown = one_line(text)
    return shown if len(shown) <= 24 else f"{shown[:24]}…"
