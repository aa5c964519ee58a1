"""What a fuzz target is, and the rule that every input is held to.

A target takes bytes that somebody else could have written. It returns, or raises an error of fedsci's tree. Anything
else is a failure: another exception, more than ten seconds of processor time, or half a gigabyte for one small input.
"""

import atexit
import contextlib
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from fedsci.errors import FedsciError
from tests.fuzz.mutation import Mutator

CORPUS = Path(__file__).with_name("corpus")
LONGEST = 64 * 1024
MOST_CPU_S = 10.0
MOST_NEW_KB = 512 * 1024
_SEED, _SECONDS = "FEDSCI_FUZZ_SEED", "FEDSCI_FUZZ_SECONDS"


@cache
def home() -> Path:
    """A folder for this process, gone when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="fedsci-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def no_seeds() -> Mapping[str, bytes]:
    """Return nothing: all of the target's seeds lie in the corpus."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Target:
    """One parser, or one surface behind which there are several.

    Attributes:
        name: of its folder in the corpus.
        run: returns, or raises an error of fedsci's tree, whatever the bytes.
        seeds: valid inputs, by name; what ``make_seeds`` writes into the corpus, or made anew where ``fresh``.
        tokens: pieces that the format gives a meaning.
        headed: the first line says where the rest goes, and is rarely changed.
        fresh: the seeds are of this process (signed runs, states): they are not kept in the corpus.
        tries: mutated inputs in the fast suite; three times as many in the slow one.
        refused: seeds that are whole and still not what is asked for, and the error that each gets.
    """

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Mapping[str, bytes]] = no_seeds
    tokens: tuple[bytes, ...] = ()
    headed: bool = False
    fresh: bool = False
    tries: int = 60
    refused: Mapping[str, type[FedsciError]] = field(default_factory=dict)

    def valid(self) -> dict[str, bytes]:
        """Return the seeds, kept and fresh: each is taken, but for those in ``refused`` and those called hostile."""
        named = {name.removeprefix("seed-"): data for name, data in self.corpus().items() if _is_seed(name)}
        return {name: data for name, data in named.items() if not name.startswith("hostile-")}

    def corpus(self) -> dict[str, bytes]:
        """Return the kept inputs, and the fresh ones."""
        kept = {path.name: path.read_bytes() for path in sorted((CORPUS / self.name).glob("*"))}
        return {**kept, **(self.seeds() if self.fresh else {})}


def _is_seed(name: str) -> bool:
    return not name.startswith(("regress-", "grown-"))


class Hung(BaseException):
    """An input took too long; no handler of ``Exception`` may swallow it."""


class FuzzFailure(AssertionError):
    """An input that breaks the rule."""


@contextlib.contextmanager
def bounded(seconds: float = MOST_CPU_S) -> Iterator[None]:
    """Raise Hung after so much processor time; only the main thread can be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def hold(target: Target, data: bytes, *, about: str = "") -> FedsciError | None:
    """Give a target one input; return the error it answered with.

    Raises:
        FuzzFailure: it broke the rule; says how to see it again.
    """
    before = _peak_kb(anew=True)
    try:
        with bounded():
            target.run(data)
    except FedsciError as error:
        answer: FedsciError | None = error
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # also a panic of a library in Rust, which is no Exception
        raise FuzzFailure(_report(target, data, f"{type(error).__name__}: {error}", about)) from error
    else:
        answer = None
    grown = _peak_kb() - before
    if grown > MOST_NEW_KB:
        raise FuzzFailure(_report(target, data, f"{grown // 1024} MiB for {len(data)} bytes", about))
    return answer


def _peak_kb(*, anew: bool = False) -> int:
    """Return the most memory that this process took at once, since it was asked ``anew``; 0 where nobody knows."""
    try:
        if anew:
            Path("/proc/self/clear_refs").write_text("5")  # Linux: begin to count from what there is now
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def _report(target: Target, data: bytes, problem: str, about: str) -> str:
    shown = b64encode(data).decode() if len(data) <= 6000 else f"{len(data)} bytes, beginning {data[:200]!r}"
    return f"{target.name}: {problem[:1800]}\n{about}\ninput (base64): {shown}"


def seed_of_run() -> int:
    """Return the seed: ``FEDSCI_FUZZ_SEED``, or always the same, so that CI repeats itself."""
    return int(os.environ.get(_SEED, "20261101"))


def mutations(target: Target, *, seed: int, tries: int | None = None, seconds: float | None = None) -> Iterator[bytes]:
    """Yield mutated inputs of a target; so many, or for so long."""
    pool = list(target.corpus().values()) or [b""]
    # its own numbers, whatever other targets there are
    mutator = Mutator(random.Random(f"{seed}|{target.name}"), pool, tokens=target.tokens, headed=target.headed)  # noqa: S311
    until, made = time.monotonic() + (seconds or 0.0), 0
    while time.monotonic() < until if seconds is not None else made < (tries or 0):
        yield mutator.next()[:LONGEST]
        made += 1


@dataclass
class Tally:
    """What became of a target's inputs.

    Attributes:
        inputs: how many.
        accepted: that were taken without an error.
        refused: by kind of error.
    """

    inputs: int = 0
    accepted: int = 0
    refused: dict[str, int] = field(default_factory=dict)

    def note(self, error: FedsciError | None) -> None:
        """Count one."""
        self.inputs += 1
        if error is None:
            self.accepted += 1
        else:
            self.refused[type(error).__name__] = self.refused.get(type(error).__name__, 0) + 1


def fuzz(target: Target, *, tries: int) -> Tally:
    """Hold a target to the rule on its corpus and on mutated inputs.

    Raises:
        FuzzFailure: at the first input that breaks it.
    """
    tally, seed, asked = Tally(), seed_of_run(), os.environ.get(_SECONDS)
    for name, data in target.corpus().items():
        tally.note(hold(target, data, about=f"corpus input {name}"))
    about = f"{_SEED}={seed} python -m pytest tests/fuzz -k {target.name}"
    for number, data in enumerate(mutations(target, seed=seed, tries=tries, seconds=float(asked) if asked else None)):
        tally.note(hold(target, data, about=f"input {number} of {about}"))
    return tally
