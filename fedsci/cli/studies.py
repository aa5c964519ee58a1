"""What commands about a study's attacks share: which study, options, and a line of progress."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from fedsci.config.study_file import StudyOnOneMachine

Overrides = Annotated[list[str] | None, typer.Option("--set", help="Replace a value: --set training.rounds=10")]
AttackSeed = Annotated[int, typer.Option("--seed", min=0, help="Of the attacks' own randomness; noise has none.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

_LINE_EVERY_S = 10.0


def loaded_study(study: str, overrides: list[str] | None) -> StudyOnOneMachine:
    """Return the study of a file, or the built-in one for ``demo`` (unless a file has that name)."""
    from fedsci.config.shipped import shipped
    from fedsci.config.study_file import load_study

    demo = study == "demo" and not Path(study).exists()
    return load_study(shipped("examples") / "digits" / "study.yaml" if demo else Path(study), overrides=overrides)


@contextlib.contextmanager
def telling(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Give what shows progress on stderr: a line that changes on a terminal, one now and then elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if quiet:
        yield lambda text: None
    elif console.is_terminal:
        with console.status("attacking") as status:
            yield status.update
    else:
        last = [time.monotonic()]

        def told(text: str) -> None:
            if time.monotonic() - last[0] >= _LINE_EVERY_S:
                last[0] = time.monotonic()
                console.print(text, highlight=False, markup=False, soft_wrap=True)

        yield told
