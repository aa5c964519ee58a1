"""A disk that is full: the error names the file, nothing is half written, and nothing is released unpaid."""

import contextlib
import resource
import signal

import pytest


@contextlib.contextmanager
def files_up_to(size_bytes):
    """Let the system refuse every write beyond ``size_bytes`` of a file, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def check_that_the_model_did_not_fit(fedsci, outcome):
    assert outcome.code == 2, outcome.err
    assert outcome.error_line.endswith("model.safetensors: File too large")
    assert "free some space or choose another folder with --out" in outcome.hint_line
    assert "Traceback" not in outcome.err
    summary = fedsci.summary(outcome)
    assert (summary["status"], summary["rounds_completed"]) == ("aborted", 3)
    assert "model.safetensors" in summary["reason"]
    folder = fedsci.folder / outcome.folder
    assert len(fedsci.rounds(folder)) == 3
    files = {path.name for path in folder.iterdir() if path.is_file()}
    assert files == {"plan.yaml", "metrics.jsonl", "summary.json", "report.html"}


@pytest.mark.slow
def test_a_model_that_does_not_fit_leaves_the_rest_of_the_run(fedsci, study):
    study.values["model"] = {"name": "mlp", "hidden": [700, 700]}  # 2 MB
    study.write()
    with files_up_to(1 << 20):
        outcome = fedsci("run", "study.yaml", "--quiet")
    check_that_the_model_did_not_fit(fedsci, outcome)


@pytest.mark.slow
def test_the_same_in_a_process_of_its_own(fedsci, study):
    study.values["model"] = {"name": "mlp", "hidden": [700, 700]}
    study.write()
    limit = (1 << 20, 1 << 20)
    process = fedsci.start("run", "study.yaml", preexec=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    check_that_the_model_did_not_fit(fedsci, fedsci.finish(process))


def test_a_lab_that_cannot_pay_releases_nothing(fedsci, study):
    study.private()
    with files_up_to(12 * 1024):  # enough for the plan, not for a ledger
        outcome = fedsci("run", "study.yaml", "--quiet")
    assert outcome.code == 3
    assert outcome.error_line.startswith("fedsci: lab-1: the ledger ")
    assert "nothing is released without a ledger" in outcome.hint_line
    assert fedsci.summary(outcome)["rounds_completed"] == 0
    assert not (fedsci.folder / outcome.folder / "metrics.jsonl").exists()


def test_a_run_folder_that_cannot_be_written_trains_nothing(fedsci, study):
    study.private()
    with files_up_to(100):
        outcome = fedsci("run", "study.yaml", "--quiet")
    assert outcome.code == 2
    assert "plan.yaml: File too large" in outcome.error_line
    assert not list(fedsci.folder.glob(".fedsci/*/ledger.sqlite"))
