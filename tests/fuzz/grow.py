"""Fuzz one target for a while, keeping inputs that reach new lines of fedsci; a by-hand tool.

    python -m tests.fuzz.grow TARGET --seconds 60 [--seed N] [--keep] [--blind]

Without ``--keep`` nothing is written: the inputs found serve as starting points while it runs. A failure is printed,
with its input, and the next one is looked for; ``--keep`` also writes inputs of new coverage into the corpus.
``--blind`` looks at no lines and is several times as fast: for targets that are a whole study.
"""

import argparse
import hashlib
import random
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import fedsci
from tests.fuzz.engine import CORPUS, LONGEST, FuzzFailure, Tally, Target, hold
from tests.fuzz.mutation import Mutator
from tests.fuzz.targets import TARGETS

_ROOT = str(Path(fedsci.__file__).parent)
_MOST_KEPT_BYTES = 4096


class Coverage:
    """The lines of fedsci that inputs reach. Python 3.11 has no ``sys.monitoring``: this is ``sys.settrace``."""

    def __init__(self, *, blind: bool = False) -> None:
        self._blind = blind
        self.lines: set[tuple[str, int]] = set()
        self._new: set[tuple[str, int]] = set()

    def _call(self, frame: FrameType, event: str, arg: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(_ROOT) else None

    def _line(self, frame: FrameType, event: str, arg: Any) -> Any:
        place = (frame.f_code.co_filename, frame.f_lineno)
        if place not in self.lines:
            self._new.add(place)
        return self._line

    def of(self, target: Target, data: bytes, tally: Tally) -> int:
        """Return how many lines an input reaches that none reached before."""
        self._new = set()
        if self._blind:
            tally.note(hold(target, data))
            return 0
        sys.settrace(self._call)
        try:
            tally.note(hold(target, data))
        finally:
            sys.settrace(None)
        self.lines |= self._new
        return len(self._new)


def grow(target: Target, *, seconds: float, seed: int, keep: bool, blind: bool = False) -> list[FuzzFailure]:
    """Fuzz; return what failed, the first of each kind."""
    coverage, tally, failures, kinds = Coverage(blind=blind), Tally(), list[FuzzFailure](), Counter[str]()
    mutator = Mutator(
        random.Random(f"{seed}|{target.name}"),  # noqa: S311
        list(target.corpus().values()) or [b""],
        tokens=target.tokens,
        headed=target.headed,
    )
    inputs = list(mutator.pool)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        data = inputs.pop() if inputs else mutator.next()[:LONGEST]
        try:
            new = coverage.of(target, data, tally)
        except FuzzFailure as failure:
            kind = _kind(failure)
            kinds[kind] += 1
            if kinds[kind] == 1:
                failures.append(failure)
                print(f"FAILED {kind}\n{failure}\n", flush=True)
            continue
        if new:
            mutator.pool.append(data)
            if keep and len(data) <= _MOST_KEPT_BYTES and data not in target.corpus().values():
                name = f"grown-{hashlib.sha256(data).hexdigest()[:8]}"
                (CORPUS / target.name).mkdir(parents=True, exist_ok=True)
                (CORPUS / target.name / name).write_bytes(data)
    print(f"{target.name}: {tally.inputs} inputs, {tally.accepted} accepted, refused {tally.refused}")
    print(f"{len(coverage.lines)} lines reached, pool of {len(mutator.pool)}, failures {dict(kinds)}", flush=True)
    return failures


def _kind(failure: FuzzFailure) -> str:
    """Return one word for failures of one cause: the innermost line of fedsci, and the error."""
    cause: BaseException | None = failure.__cause__
    where = ""
    trace = cause.__traceback__ if cause is not None else None
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name.startswith(_ROOT) or "/fuzz/targets/" in name:
            where = f"{Path(name).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(cause).__name__} at {where}"


def main() -> int:
    """Run from the command line; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=[*TARGETS, "all"], metavar="TARGET", help=", ".join([*TARGETS, "all"]))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--blind", action="store_true")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}")
    names = list(TARGETS) if chosen.target == "all" else [chosen.target]
    how = {"seconds": chosen.seconds, "seed": chosen.seed, "keep": chosen.keep, "blind": chosen.blind}
    failed = [grow(TARGETS[name], **how) for name in names]
    return int(any(failed))


if __name__ == "__main__":
    sys.exit(main())
