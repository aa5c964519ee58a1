"""Several studies at once: beside each other where no site is in both, and none behind one that only waits."""

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def consortium(deploy):
    """Six labs that run; lab-2 wants to be asked."""
    made = deploy(labs=6, rounds=2)
    made.study.values["privacy"]["epsilon"] = 1.0
    for values in made.study.sites.values():
        values["datasets"]["tumours"]["privacy"]["epsilon"] = 20.0
    made.study.sites["lab-2"]["policy"]["approval"] = "manual"
    made.study.write()
    made.found()
    for lab in made.study.labs:
        made.start_site(lab)
    made.until(lambda: set(made.json("coordinator", "status")["sites"].values()) == {"online"})
    return made


def submit(consortium, name, *labs, rounds=2, extra=()):
    sites = ",".join(f"lab-{number}" for number in labs)
    changes = ["--set", f"study={name}", "--set", f"training.rounds={rounds}"]
    outcome = consortium.fedsci("coordinator", "submit", "study.yaml", "--sites", sites, *changes, *extra)
    assert outcome.code == 0, outcome.err
    return outcome


def run_of(consortium, name):
    return next(run for run in consortium.runs() if run["study"] == name)


def is_(consortium, name, state, *, rounds=0):
    def holds():
        run = run_of(consortium, name)
        return run["state"] == state and run["rounds"] >= rounds

    return holds


def test_a_study_that_waits_blocks_nobody_and_can_be_stopped(consortium):
    submit(consortium, "asks", 1, 2, 3)
    consortium.until(lambda: "approval" in run_of(consortium, "asks")["waiting"].get("lab-2", ""))
    assert consortium.stop("lab-6") == [0]
    submit(consortium, "away", 1, 5, 6)
    consortium.until(lambda: run_of(consortium, "away")["waiting"].get("lab-6") == "is not connected")
    behind = submit(consortium, "runs", 3, 4, 5, extra=["--wait", "--json"])  # lab-3 and lab-5 are in those that wait
    assert '"status": "completed"' in behind.out
    assert run_of(consortium, "asks")["state"] == run_of(consortium, "away")["state"] == "waiting"

    consortium.good("coordinator", "stop", "away")  # nothing runs
    consortium.until(is_(consortium, "away", "aborted"), seconds=20)
    assert "stopped by " in run_of(consortium, "away")["reason"]
    assert run_of(consortium, "asks")["state"] == "waiting"
    consortium.good("site", "approve", "lab-2.yaml", "asks")
    consortium.until(is_(consortium, "asks", "completed"))

    twice = submit(consortium, "runs", 3, 4, 5)
    assert "note: run 3 (completed) is the very same study; run 4 is charged" in twice.err
    submit(consortium, "runs", 3, 4, 5, rounds=3)
    consortium.until(lambda: all(run["state"] in ("completed", "aborted") for run in consortium.runs()))
    assert [run["state"] for run in consortium.runs()] == ["completed", "aborted", *["completed"] * 3]
    assert consortium.json("site", "status", "lab-3.yaml")["studies"] == {}


def test_two_run_beside_each_other_a_third_has_its_sites_kept_and_all_outlive_a_restart(consortium):
    submit(consortium, "left", 1, 3, 4, rounds=200)
    consortium.until(is_(consortium, "left", "running", rounds=1))
    submit(consortium, "wide", 3, 4, 5)  # of these only lab-5 is free, and it is kept
    consortium.until(lambda: "lab-4" in run_of(consortium, "wide")["waiting"])
    status = consortium.good("coordinator", "status").out
    assert "waits for lab-3, lab-4, each of which is in study left (run 1)" in status
    table = consortium.good("coordinator", "runs").out
    assert "lab-3, lab-4 (is in study left (run 1))" in table
    consortium.good("site", "status", "lab-5.yaml")
    submit(consortium, "late", 2, 5, 6)
    consortium.until(lambda: "approval" in run_of(consortium, "late")["waiting"].get("lab-2", ""))
    consortium.good("site", "approve", "lab-2.yaml", "late")
    consortium.until(lambda: run_of(consortium, "late")["waiting"] == {"lab-5": "is kept for study wide (run 2)"})
    consortium.good("coordinator", "stop", "wide")
    consortium.until(is_(consortium, "wide", "aborted"), seconds=20)
    consortium.until(is_(consortium, "late", "completed"))  # beside the one that goes on
    assert run_of(consortium, "left")["state"] == "running"

    submit(consortium, "right", 2, 5, 6, rounds=50)
    consortium.until(lambda: "approval" in run_of(consortium, "right")["waiting"].get("lab-2", ""))
    consortium.good("site", "approve", "lab-2.yaml", "right")
    consortium.until(is_(consortium, "right", "running", rounds=1))
    submit(consortium, "next", 3, 4, 5)
    consortium.until(lambda: set(run_of(consortium, "next")["waiting"]) == {"lab-3", "lab-4", "lab-5"})
    assert {run["state"] for run in consortium.runs() if run["study"] in ("left", "right")} == {"running"}

    assert consortium.stop("coordinator") == [0]
    assert [run_of(consortium, name)["state"] for name in ("left", "right", "next")] == [
        "running",
        "running",
        "waiting",
    ]
    said = consortium.good("coordinator", "stop", "left").out
    assert "when the coordinator is started" in said
    consortium.start_coordinator()
    consortium.until(lambda: consortium.events("coordinator").count("started") == 2)
    consortium.until(is_(consortium, "left", "aborted"))
    assert "stopped by " in run_of(consortium, "left")["reason"]
    consortium.until(is_(consortium, "right", "completed", rounds=45), seconds=300)  # less what was under way
    consortium.until(is_(consortium, "next", "completed"), seconds=300)
    for lab in consortium.study.labs:
        assert consortium.json("site", "status", f"{lab}.yaml")["studies"] == {}
        assert consortium.good("privacy", "ledger", f"{lab}.yaml").code == 0
    assert len(list((consortium.folder / "runs").iterdir())) == 5
