"""Reads the files a run leaves behind, whole or half written.

A run can be aborted, killed or still going, so only one thing is refused: a folder that holds none of
a run's files. Everything else that is missing or damaged becomes a note for the reader of the report.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from fedsci.config.loading import NOT_YAML, parse_value
from fedsci.errors import InputError

PLAN = "plan.yaml"
SUMMARY = "summary.json"
METRICS = "metrics.jsonl"


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """What a run's files say, unchecked.

    Attributes:
        name: the folder's name.
        plan_text: ``plan.yaml`` as written, empty if there is none.
        plan: the same, parsed; empty if it cannot be.
        summary: ``summary.json``; empty if it is missing or damaged.
        has_summary: whether a readable summary was there.
        rounds: the readable lines of ``metrics.jsonl``, in the file's order.
        notes: what was missing or damaged, one plain sentence each.
    """

    name: str
    plan_text: str
    plan: Mapping[str, object]
    summary: Mapping[str, object]
    has_summary: bool
    rounds: Sequence[Mapping[str, object]]
    notes: Sequence[str]


def read_run_folder(folder: Path) -> RunFolder:
    """Return what the run in ``folder`` wrote; raise :class:`InputError` if it is no run folder."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder",
            hint="give the folder that `fedsci run` wrote, such as runs/heart-disease-…",
        )
    if not any((folder / name).is_file() for name in (PLAN, SUMMARY, METRICS)):
        raise InputError(
            f"{folder}: no run folder, it holds none of {PLAN}, {SUMMARY} and {METRICS}",
            hint="give one run's own folder (it lies inside runs/), not the folder of all runs",
        )
    notes: list[str] = []
    plan_text = _read_text(folder / PLAN, notes)
    plan = _parse_plan(plan_text, notes)
    summary = _parse_summary(_read_text(folder / SUMMARY, notes), notes)
    rounds = _parse_rounds(_read_text(folder / METRICS, notes), notes)
    return RunFolder(
        name=folder.resolve().name,
        plan_text=plan_text,
        plan=plan,
        summary=summary or {},
        has_summary=summary is not None,
        rounds=rounds,
        notes=notes,
    )


def mapping(value: object, *path: str) -> Mapping[str, object]:
    """Return the mapping at ``path`` inside ``value``, or an empty one.

    >>> mapping({"a": {"b": {"c": 1}}}, "a", "b")
    {'c': 1}
    >>> mapping({"a": None}, "a", "b")
    {}
    """
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def items(value: object) -> list[object]:
    """Return ``value`` if it is a list, else an empty one."""
    return list(value) if isinstance(value, list | tuple) else []


def text(value: object) -> str:
    """Return ``value`` if it is text, else empty text."""
    return value if isinstance(value, str) else ""


def finite(value: object) -> float | None:
    """Return ``value`` as a float, or None if it is no finite number (true and false are none).

    >>> finite(3), finite("3"), finite(float("nan")), finite(True), finite(10**400)
    (3.0, None, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def count(value: object) -> int | None:
    """Return ``value`` as a whole number that is not negative, or None."""
    number = finite(value)
    return int(number) if number is not None and number >= 0 else None


def epsilon(value: object) -> float | None:
    """Return an epsilon: a number, infinity for a run without privacy, None if it is not known.

    >>> epsilon(1.5), epsilon("inf"), epsilon(None), epsilon(-1)
    (1.5, inf, None, None)
    """
    if value == math.inf or (isinstance(value, str) and value.strip().lower() in {"inf", "infinity", ".inf"}):
        return math.inf
    number = finite(value)
    return number if number is not None and number >= 0 else None


def _read_text(path: Path, notes: list[str]) -> str:
    try:
        return path.read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        notes.append(f"{path.name} is missing.")
    except OSError as error:
        notes.append(f"{path.name} could not be read ({error.strerror}).")
    return ""


def _parse_plan(plan_text: str, notes: list[str]) -> Mapping[str, object]:
    try:
        plan = parse_value(plan_text)  # no aliases: written out they may be larger than memory
    except (yaml.YAMLError, *NOT_YAML):
        notes.append(f"{PLAN} is damaged; it is shown below as it was found.")
        return {}
    return mapping(plan)


def _parse_summary(summary_text: str, notes: list[str]) -> Mapping[str, object] | None:
    if not summary_text:
        return None
    try:
        summary = json.loads(summary_text)
    except (ValueError, RecursionError):
        summary = None
    if not isinstance(summary, dict):
        notes.append(f"{SUMMARY} is damaged, so the results it held are not shown.")
        return None
    return mapping(summary)


def _parse_rounds(metrics_text: str, notes: list[str]) -> list[Mapping[str, object]]:
    rounds: list[Mapping[str, object]] = []
    lines = [line for line in metrics_text.splitlines() if line.strip()]
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if isinstance(entry, dict):
            rounds.append(mapping(entry))
        elif number == len(lines):
            notes.append(f"The last line of {METRICS} is cut off; that round is not shown.")
        else:
            notes.append(f"Line {number} of {METRICS} is damaged; that round is not shown.")
    return rounds
