"""A lab that is slower than the study's deadline: rounds go on without it, what is late is not begun, it comes back."""

import contextlib
import importlib.util
import json
import os
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from fedsci.site.round import Contributor

LATE = "lab-3"
SLOW_SITE = Path(__file__).with_name("slow_site.py")
ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")


@pytest.fixture
def study(study):
    study = type(study)(study.folder, labs=4)
    study.values["training"]["rounds"] = 6
    study.values["secure_aggregation"] = {"min_survivors": 3}
    study.private()
    return study


def check_that_it_came_back(fedsci, folder, *, deadline_s):
    summary = json.loads((fedsci.folder / folder / "summary.json").read_text())
    assert (summary["status"], summary["rounds_completed"]) == ("completed", 6)
    about, spent = summary["secure_aggregation"], summary["privacy"]["by_site"]
    missed = [number for lab, number in about["dropped"] if lab == LATE]
    assert about["dropped"] == [[LATE, number] for number in missed]
    assert set(about["dropped_because"]) == {f"late: no answer within {deadline_s:g} s"}
    assert missed[:2] == [1, 2]  # computed too late; and still at it when the next was asked for
    assert len(missed) < 6
    with contextlib.closing(sqlite3.connect(fedsci.folder / ".fedsci" / LATE / "ledger.sqlite")) as ledger:
        entries = ledger.execute("SELECT body FROM entries WHERE kind = 'step' ORDER BY sequence")
        computed = [json.loads(body)["round"] for (body,) in entries]
    assert computed == [1] + [number for number in range(2, 7) if number not in missed]
    assert {lab: about["rounds_charged"] for lab, about in spent.items()} == dict.fromkeys(spent, 6) | {
        LATE: len(computed)
    }
    report = (fedsci.folder / folder / "report.html").read_text()
    assert f"late: no answer within {deadline_s:g} s" in report


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("masked", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_late_lab_is_in_a_later_round_again(fedsci, study, monkeypatch, masked):
    whole = Contributor.contribution

    def contribution(self, model, number, **about):
        if self.name == LATE and number == 1:
            time.sleep(3.75)
        return whole(self, model, number, **about)

    monkeypatch.setattr(Contributor, "contribution", contribution)
    study.values["training"]["round_deadline_s"] = 1.5
    study.values["secure_aggregation"]["enabled"] = masked
    study.write()
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert outcome.code == 0, outcome.err
    check_that_it_came_back(fedsci, outcome.folder, deadline_s=1.5)


@ray
@pytest.mark.whole_machine
@pytest.mark.slow
def test_also_where_labs_are_processes_of_ray(fedsci, study, monkeypatch):
    shutil.copy(SLOW_SITE, fedsci.folder / "sitecustomize.py")
    monkeypatch.setenv("PYTHONPATH", f"{fedsci.folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("FEDSCI_TEST_SLOW", LATE)
    monkeypatch.setenv("FEDSCI_TEST_SLOW_S", "15")
    study.values["training"]["round_deadline_s"] = 6
    study.write()
    outcome = fedsci.finish(fedsci.start("run", "study.yaml", "--quiet", "--engine", "ray"))
    assert outcome.code == 0, outcome.err
    check_that_it_came_back(fedsci, outcome.folder, deadline_s=6)
