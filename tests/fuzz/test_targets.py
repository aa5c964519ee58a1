"""Whatever the bytes, a parser returns or raises an error of fedsci's tree: on its corpus, and on inputs made from it.

The same inputs every time; FEDSCI_FUZZ_SEED and FEDSCI_FUZZ_SECONDS (of each target) make other and more of them.
"""

import random
from pathlib import Path

import pytest

from fedsci.errors import FedsciError, InputError
from tests.fuzz.engine import CORPUS, FuzzFailure, Target, fuzz, hold, mutations
from tests.fuzz.mutation import Mutator
from tests.fuzz.targets import TARGETS

#: Each of their inputs is a part of a study, or a whole one.
HEAVY = {
    "site-ledger",
    "site-masked",
    "site-plain",
    "replies-masked",
    "replies-plain",
    "run-folder-masked",
    "run-folder-plain",
    "run-folder-signed",
    "log-statements",
}
#: Overflow, a certificate's odd number: what comes of it is looked at, and the libraries' warnings are no failure.
pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Parsed a serial number:UserWarning"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(TARGETS) - HEAVY))
def test_no_bytes_raise_anything_but_fedscis_errors(name):
    fuzz(TARGETS[name], tries=TARGETS[name].tries)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_no_bytes_raise_anything_but_fedscis_errors_at_length(name):
    fuzz(TARGETS[name], tries=TARGETS[name].tries if name in HEAVY else 3 * TARGETS[name].tries)


def check_seeds(target: Target) -> None:
    """Pass if every seed is taken, or gets the error that it is named with: else nothing behind a check is reached."""
    seeds = target.valid()
    assert seeds
    assert set(target.refused) <= set(seeds)
    for name, data in seeds.items():
        error = hold(target, data)
        wanted = target.refused.get(name, type(None))
        assert type(error) is wanted, f"{target.name}/{name}: {type(error).__name__}: {error}"


@pytest.mark.parametrize("name", sorted(set(TARGETS) - HEAVY))
def test_every_seed_is_what_the_code_takes_today(name):
    check_seeds(TARGETS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(HEAVY))
def test_every_seed_that_is_a_part_of_a_study_is_what_the_code_takes_today(name):
    check_seeds(TARGETS[name])


def test_a_seed_that_nothing_takes_is_found():
    def run(data: bytes) -> None:
        raise InputError("no")

    seeds = {"valid": b"x"}
    with pytest.raises(AssertionError, match="made-up/valid: InputError"):
        check_seeds(Target(name="made-up", run=run, seeds=lambda: seeds, fresh=True))
    check_seeds(Target(name="made-up", run=run, seeds=lambda: seeds, fresh=True, refused={"valid": InputError}))
    with pytest.raises(AssertionError, match="made-up/valid: NoneType"):
        check_seeds(
            Target(
                name="made-up", run=lambda data: None, seeds=lambda: seeds, fresh=True, refused={"valid": InputError}
            )
        )


def test_the_corpus_is_small_and_of_known_targets():
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 500_000
    assert {path.parent.name for path in files} <= set(TARGETS)


def target_of(run) -> Target:
    return Target(name="made-up", run=run, tries=5)


@pytest.mark.parametrize("error", [ValueError, RecursionError, MemoryError, BaseException])
def test_another_exception_is_a_failure(error):
    def run(data: bytes) -> None:
        raise error("no")

    with pytest.raises(FuzzFailure, match="made-up"):
        hold(target_of(run), b"x")


def test_an_error_of_fedscis_tree_is_an_answer():
    def run(data: bytes) -> None:
        raise InputError("no")

    assert isinstance(hold(target_of(run), b"x"), FedsciError)


def test_what_never_ends_is_a_failure(monkeypatch):
    def run(data: bytes) -> None:
        while True:
            pass

    monkeypatch.setattr("tests.fuzz.engine.bounded.__wrapped__.__defaults__", (0.2,))
    with pytest.raises(FuzzFailure, match="Hung"):
        hold(target_of(run), b"x")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process its peak anew")
def test_what_takes_memory_without_bound_is_a_failure(monkeypatch):
    monkeypatch.setattr("tests.fuzz.engine.MOST_NEW_KB", 64 * 1024)
    with pytest.raises(FuzzFailure, match="MiB for 1 bytes"):
        hold(target_of(lambda data: print(end=str(len(data * 2**27))[:0])), b"x")


def test_inputs_are_the_same_for_the_same_seed():
    target = TARGETS["plan"]
    first, again, other = (list(mutations(target, seed=seed, tries=30)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_mutation_reaches_into_json_within_json():
    envelope = TARGETS["statement"].corpus()["seed-one-signer"]
    mutator = Mutator(random.Random(1), [envelope])  # noqa: S311
    changed = [mutator.next() for _ in range(300)]
    assert any(data.startswith(b"{") and data != envelope and b'"payloadType"' in data for data in changed)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("statement", "regress-payload-type-is-a-number"),
        ("statement", "regress-payload-type-is-half-a-character"),
        ("decision-request", "regress-metrics-are-a-number"),
        ("decision-request", "regress-delta-is-infinite"),
        ("decision-request", "regress-signer-is-a-number"),
        ("decision-request", "regress-metrics-are-an-empty-list"),
        ("decision-folder", "regress-checkpoint-leads-elsewhere"),
        ("decision-folder", "regress-role-leads-elsewhere"),
        ("run-plan", "regress-no-boolean"),
        ("run-plan", "regress-a-billion-laughs"),
        ("run-plan", "regress-edited"),
        ("search-axis", "regress-value-is-a-day-that-there-is-not"),
        ("search-axis", "regress-value-has-aliases"),
        ("override", "regress-value-is-no-utf8"),
        ("study-file", "regress-text-has-half-a-character"),
        ("npz", "regress-encrypted"),
        ("npz", "regress-larger-than-memory"),
        ("npz", "regress-compression-that-there-is-not"),
        ("npz", "regress-packed-a-millionfold"),
        ("parquet", "regress-repeats-a-value-without-end"),
        *(("parquet", f"regress-{what}") for what in ("day-beyond-the-calendar", "time-zone-that-there-is-not")),
        *(("parquet", f"regress-{what}") for what in ("text-is-no-utf8", "histogram-of-levels-does-not-fit")),
        ("admission", "regress-permit-is-half-a-character"),
        ("yaml", "regress-a-billion-laughs"),
        ("coordinator-folder", "regress-admission-lacks-a-fact"),
        ("queue-folder", "regress-state-has-an-unknown-field"),
    ],
)
def test_what_was_found_is_refused_and_not_only_survived(name, what):
    error = hold(TARGETS[name], (CORPUS / name / what).read_bytes())
    assert error is not None
    assert error.message
