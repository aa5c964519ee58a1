"""Live progress of a run: a bar on a terminal, a line now and then elsewhere."""

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from fedsci.config.plan import Plan
from fedsci.coordinator.decisions import Question, in_words
from fedsci.coordinator.progress import Progress, RoundResult

_PHASES = {
    "scaling": "labs measure what scales the columns, in a study of its own",
    "preparing": "labs check the study and load their data",
    "training": "training",
    "baselines": "each lab trains its own model, for comparison",
    "pooled": "pooled baseline, for comparison",
    "finishing": "labs settle their budgets",
}
_LINE_EVERY_S = 5.0


class SilentDisplay:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def phase(self, name: str) -> None:
        """Show nothing."""

    def round_finished(self, progress: Progress, result: RoundResult, epsilon: float | None) -> None:
        """Show nothing."""

    def waits(self, question: Question, roles: tuple[str, ...], folder: Path) -> None:
        """Say it all the same: without an answer the run would never end."""
        _say_pause(Console(stderr=True), question, roles, folder)

    def heard(self, text: str) -> None:
        """Say what became of a decision."""
        Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)


class RichDisplay:
    """Round, metric, epsilon spent and seconds left, on stderr."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID = self._bar.add_task("starting", total=plan.training.rounds, status="")
        self._first: float | None = None
        self._last_line = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._bar.stop()

    def phase(self, name: str) -> None:
        """Name the phase."""
        text = _PHASES.get(name, name)
        self._bar.update(self._task, description=text)
        if not self._console.is_terminal:
            self._console.print(text, highlight=False)

    def round_finished(self, progress: Progress, result: RoundResult, epsilon: float | None) -> None:
        """Show the round."""
        parts = [f"round {result.number}/{self._plan.training.rounds}"]
        metrics = result.measured.pooled() if result.measured else None
        name = self._plan.metrics[0]
        value = metrics.get(name) if metrics else None
        if value is not None:
            parts.append(f"{name} {value:.3f}")
        if epsilon is not None:
            parts.append(f"epsilon {epsilon:.2f}")
        wrong = "" if result.norm is None else result.norm.in_words()
        if wrong and result.norm is not None:
            done = "; nothing of it is used" if result.norm.alarm else ""
            line = f"round {result.number}: look at the sum: {wrong}{done}"
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        if result.abandoned:
            parts.append("abandoned")
        if result.dropped:
            parts.append(f"without {', '.join(result.dropped)}")
        left = self._plan.training.rounds - result.number
        if self._first is None:  # the first round pays for imports and says nothing about the others
            self._first = time.monotonic()
        elif left:
            parts.append(f"{(time.monotonic() - self._first) / (result.number - 1) * left:.0f} s left")
        status = ", ".join(parts)
        self._bar.update(self._task, completed=result.number, status=status)
        now = time.monotonic()
        last = result.number == self._plan.training.rounds
        if not self._console.is_terminal and (last or now - self._last_line > _LINE_EVERY_S):
            self._last_line = now
            self._console.print(status, highlight=False)

    def waits(self, question: Question, roles: tuple[str, ...], folder: Path) -> None:
        """Show for whom the run waits, what they decide on, and how."""
        _say_pause(self._console, question, roles, folder)
        self._bar.update(self._task, description=f"waits for {', '.join(roles)}" if roles else _PHASES["training"])

    def heard(self, text: str) -> None:
        """Show what became of a decision."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _say_pause(console: Console, question: Question, roles: tuple[str, ...], folder: Path) -> None:
    for line in pause_lines(question, roles, folder) if roles else ():
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def pause_lines(question: Question, roles: tuple[str, ...], folder: Path) -> list[str]:
    """Return for whom a run waits, what they decide on, and the command by which they do."""
    return [
        f"paused {in_words(question.point.checkpoint)}, {question.rounds} of {question.planned} rounds done: waits for "
        f"{' and '.join(roles)} to decide",
        *(f"  {line}" for line in question.facts()),
        f"  in another terminal: fedsci decide {folder} approve --key FILE   (or: refuse)",
    ]
