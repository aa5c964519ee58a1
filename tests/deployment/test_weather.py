"""Studies under weather: slow sites, clocks that are off, full disks, sites that come and go."""

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fedsci.site.keystore import Keystore

pytestmark = pytest.mark.slow

FAKETIME = "libfaketime.so.1"
BURNT = "refused: batch-burnt"
NO_LEDGER = "the site's ledger cannot be used, so nothing is released"


@pytest.fixture(scope="session")
def fake_clock():
    """Return the environment of a process whose clock is so many seconds ahead (behind: negative)."""
    found = [*Path("/usr/lib").glob(f"*/faketime/{FAKETIME}")]
    if not found and os.getuid() == 0 and shutil.which("apt-get"):
        quiet = {"capture_output": True, "timeout": 600, "check": False}
        if subprocess.run(["apt-get", "update", "-q"], **quiet).returncode == 0:
            subprocess.run(["apt-get", "install", "-qy", "libfaketime"], **quiet)
        found = [*Path("/usr/lib").glob(f"*/faketime/{FAKETIME}")]
    if not found:
        pytest.skip("there is no libfaketime here and it cannot be installed: apt-get install libfaketime")

    def make(ahead_s):
        # the monotonic clock goes on as it is: only what the machine says of the day is off
        return {"LD_PRELOAD": str(found[0]), "FAKETIME": f"{ahead_s:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    return make


@pytest.fixture
def small_disk():
    """Give a folder a file system of its own, of so many bytes; needs root."""
    mounted = []

    def mount(folder, size_bytes):
        folder.mkdir(parents=True)
        options = ["-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "tmpfs", str(folder)]
        done = subprocess.run(["mount", *options], capture_output=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"a file system cannot be mounted here: {done.stderr.decode().strip()}")
        mounted.append(folder)

    yield mount
    for folder in mounted:
        for home in folder.glob("home"):
            for run in (home / "runs").glob("*"):
                Keystore(home).forget(run.name)
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    """Leave not a byte."""
    with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    assert os.statvfs(folder).f_bavail == 0


def free(folder):
    (folder / "filler").unlink()


def over(consortium):
    return lambda: consortium.runs()[-1]["state"] in ("completed", "aborted")


def summary_of(consortium):
    return json.loads((consortium.folder / consortium.runs()[-1]["folder"] / "summary.json").read_text())


SLOW_SITE = Path(__file__).parents[1] / "faults" / "slow_site.py"


@pytest.fixture
def slow(tmp_path):
    """Return the environment of a lab's process that takes so many seconds longer for a round while a file is there."""
    shutil.copy(SLOW_SITE, tmp_path / "sitecustomize.py")

    def make(lab, seconds, switch):
        switch.touch()
        path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
        named = {"FEDSCI_TEST_SLOW": lab, "FEDSCI_TEST_SLOW_S": str(seconds), "FEDSCI_TEST_SLOW_WHILE": str(switch)}
        return {"PYTHONPATH": path} | named

    return make


def start_sites(consortium, environments=None):
    for lab in consortium.study.labs:
        consortium.start_site(lab, (environments or {}).get(lab))
    for lab in consortium.study.labs:
        consortium.until(lambda lab=lab: "connected" in consortium.events(lab))


def missed(consortium, lab):
    """The rounds that a lab was not in, and why."""
    about = summary_of(consortium)["secure_aggregation"]
    pairs = zip(about["dropped"], about["dropped_because"], strict=True)
    return {number: why for (name, number), why in pairs if name == lab}


def check_charges(consortium):
    """Every lab paid for the rounds that it began, and its ledger holds."""
    for lab, said in summary_of(consortium)["privacy"]["by_site"].items():
        asked = [line for line in consortium.log(lab) if (line["event"], line.get("action")) == ("request", "train")]
        sat_out = {number for number, why in missed(consortium, lab).items() if why == BURNT}
        begun = {line["round"] for line in asked if not line["error"]} - sat_out
        assert said["settled"]
        assert said["rounds_charged"] == len(begun), lab
        assert consortium.good("privacy", "ledger", f"{lab}.yaml").code == 0


def test_a_site_slower_than_the_deadline_is_left_out_never_falls_behind_and_comes_back(deploy, slow):
    consortium = deploy(labs=4, rounds=16)
    consortium.study.values["training"]["round_deadline_s"] = 6
    consortium.study.write()
    consortium.found()
    switch = consortium.folder / "slow"
    start_sites(consortium, {"lab-4": slow("lab-4", 14, switch)})
    assert consortium.submit().code == 0
    consortium.until(lambda: sum("lab-4" in line["dropped"] for line in rounds_of(consortium)) >= 4)
    switch.unlink()
    consortium.until(over(consortium), seconds=200)
    assert consortium.runs()[-1]["state"] == "completed", consortium.said()
    late = missed(consortium, "lab-4")
    assert set(late.values()) == {"late: no answer within 6 s"}
    assert list(late) == list(range(1, len(late) + 1))  # from the first to the last slow one, and then no more
    assert 4 <= len(late) < 12
    charged = summary_of(consortium)["privacy"]["by_site"]["lab-4"]["rounds_charged"]
    # some were begun and came too late, and are paid for; those that waited meanwhile were not begun
    assert 16 - len(late) < charged < 16
    check_charges(consortium)
    assert "late" in consortium.events("lab-4")


def test_a_site_that_leaves_is_back_when_it_is_back_and_after_a_reboot_from_the_next_batch_on(deploy, slow):
    consortium = deploy(labs=4, rounds=40)
    consortium.found()
    pace = consortium.folder / "pace"
    start_sites(consortium, {"lab-1": slow("lab-1", 3, pace)})  # rounds last long enough to do something meanwhile
    assert consortium.submit().code == 0

    consortium.until(lambda: consortium.runs()[-1]["rounds"] >= 1)
    assert consortium.stop("lab-2") == [0]
    consortium.until(lambda: sum("lab-2" in line["dropped"] for line in rounds_of(consortium)) >= 2)
    consortium.start_site("lab-2")
    consortium.until(lambda: not rounds_of(consortium)[-1]["dropped"])

    assert consortium.stop("lab-2") == [0]
    home = consortium.folder / "state" / "lab-2"
    for run in (home / "runs").glob("*"):
        Keystore(home).forget(run.name)  # what is in memory is gone
    consortium.start_site("lab-2")
    consortium.until(lambda: consortium.events("lab-2").count("connected") == 3)
    assert consortium.runs()[-1]["rounds"] < 26, "the machine is too busy for this test"
    pace.unlink()
    consortium.until(over(consortium), seconds=200)
    assert consortium.runs()[-1]["state"] == "completed", consortium.said()
    away = missed(consortium, "lab-2")
    assert set(away.values()) == {"not connected", BURNT}
    burnt = [number for number, why in away.items() if why == BURNT]
    assert max(burnt) == 32  # the end of the batch
    check_charges(consortium)


@pytest.mark.parametrize("minutes", [5, 50])
def test_sites_whose_clocks_are_off_take_part_and_say_by_how_much(deploy, fake_clock, minutes):
    consortium = deploy(rounds=3)
    consortium.study.values["training"]["round_deadline_s"] = 20
    consortium.study.write()
    consortium.found()
    start_sites(consortium, {"lab-2": fake_clock(60 * minutes), "lab-3": fake_clock(-60 * minutes)})
    outcome = consortium.submit("--wait", "--json")
    assert outcome.code == 0, outcome.err + consortium.said()
    assert summary_of(consortium)["secure_aggregation"]["dropped"] == []
    assert "clock " not in consortium.good("site", "status", "lab-1.yaml").out
    assert consortium.json("site", "status", "lab-1.yaml")["clock_ahead_s"] == 0
    check_charges(consortium)
    for lab, way in (("lab-2", "ahead of"), ("lab-3", "behind")):
        words = (
            f"this machine's clock is {minutes} min {way} the coordinator's; set the clock: timedatectl set-ntp true"
        )
        assert words in consortium.good("site", "status", f"{lab}.yaml").out
        assert consortium.events(lab).count("clock") == 1


def test_a_clock_so_far_behind_that_no_certificate_is_valid_yet_is_named(deploy, fake_clock):
    consortium = deploy()
    consortium.found()
    consortium.start_site("lab-3", fake_clock(-2 * 3600))
    consortium.until(lambda: "disconnected" in consortium.events("lab-3"))
    said = consortium.good("site", "status", "lab-3.yaml").out
    assert "this machine's clock is 2 h behind the coordinator's; set the clock" in said
    assert "by this machine's clock the coordinator's certificate is out of date" in said


def test_a_full_disk_costs_a_site_its_rounds_and_the_study_nothing(deploy, small_disk, slow):
    consortium = deploy(labs=4, rounds=20)
    disk = consortium.folder / "disk"
    small_disk(disk, 4 << 20)
    consortium.study.sites["lab-2"]["state"] = "disk/home"
    consortium.study.write()
    consortium.found()
    pace = consortium.folder / "pace"
    start_sites(consortium, {"lab-1": slow("lab-1", 2, pace)})

    fill(disk)
    refused = consortium.submit("--wait")
    assert refused.code == 2
    assert refused.error_line == "fedsci: lab-2: the site cannot write to its disk"
    assert "disk          no space (0.0 MB free)" in consortium.good("site", "status", "lab-2.yaml").out
    assert list((disk / "home" / "runs").glob("*")) == []
    free(disk)

    assert consortium.submit().code == 0
    consortium.until(lambda: consortium.runs()[-1]["rounds"] >= 2)
    fill(disk)
    consortium.until(lambda: sum("lab-2" in line["dropped"] for line in rounds_of(consortium)) >= 3)
    free(disk)
    consortium.until(lambda: not rounds_of(consortium)[-1]["dropped"])
    pace.unlink()
    consortium.until(over(consortium), seconds=200)
    assert consortium.runs()[-1]["state"] == "completed", consortium.said()
    away = missed(consortium, "lab-2")
    assert set(away.values()) <= {NO_LEDGER, "the site cannot write to its disk"}
    assert list(away) == list(range(min(away), max(away) + 1))
    assert len(away) < 15
    check_charges(consortium)


def rounds_of(consortium):
    """The lines that the coordinator wrote of the newest study's rounds."""
    paths = consortium.folder.glob(f"**/studies/{len(consortium.runs()):06}/log.jsonl")
    lines = [json.loads(line) for path in paths for line in path.read_text().splitlines(keepends=True) if "\n" in line]
    return [line for line in lines if line["event"] == "round"]
