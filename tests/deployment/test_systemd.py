"""The systemd units in docs/deploy: systemd accepts them, the program accepts their commands, and they are hardened."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from fedsci_test_program import Program  # made by conftest.py

DOCS = Path(__file__).parents[2] / "docs" / "deploy"
UNITS = ["fedsci-coordinator.service", "fedsci-site.service"]
EXPOSURE = 20  # tenths, of systemd-analyze's 0 (shut in) to 100; a unit without settings has 95


def analyze(*arguments):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here: apt-get install systemd")
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def unit(tmp_path):
    """Write a unit as documented; only the program's path is another."""

    def write(name, **changes):
        program = tmp_path / "fedsci"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        text = (DOCS / name).read_text()
        assert text.count("/usr/local/bin/fedsci ") == 1
        text = text.replace("/usr/local/bin/fedsci ", f"{program} ")
        for key, value in changes.items():
            text, found = re.subn(rf"^{key}=.*\n", value, text, flags=re.MULTILINE)
            assert found
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("name", UNITS)
def test_systemd_accepts_the_unit(unit, name):
    said = analyze("verify", unit(name))
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


@pytest.mark.parametrize("wrong", ["RestartSecs=5\n", "Restart=whenever\n"])
def test_a_misspelt_unit_would_be_noticed(unit, wrong):
    said = analyze("verify", unit(UNITS[0], Restart=wrong))
    assert said.returncode != 0 or said.stderr


@pytest.mark.parametrize("name", UNITS)
def test_the_program_accepts_the_units_command(name, tmp_path):
    command = re.search(r"^ExecStart=(.*)$", (DOCS / name).read_text(), flags=re.MULTILINE)
    program, *arguments = shlex.split(command[1])
    assert program == "/usr/local/bin/fedsci"
    run = Program(tmp_path)
    assert run(*arguments, "--help").code == 0
    assert run(*arguments, "--no-such-option", "--help").code == 2


@pytest.mark.parametrize("name", UNITS)
def test_the_unit_is_hardened(unit, name):
    offline = ("security", "--offline=yes", f"--threshold={EXPOSURE}", "--no-pager")
    said = analyze(*offline, unit(name))
    if "offline" in said.stderr:
        pytest.skip("this systemd-analyze cannot judge a unit that is not loaded: systemd 250 can")
    assert said.returncode == 0, said.stdout[-300:]
    lax = unit(name, SystemCallFilter="", CapabilityBoundingSet="", ProtectSystem="")
    assert analyze(*offline, lax).returncode != 0


def test_both_units_are_hardened_alike_but_for_shared_memory():
    """A batch's secrets lie in /dev/shm and outlive the site's process; the coordinator has none."""
    site, coordinator = (
        set((DOCS / name).read_text().partition("NoNewPrivileges")[2].splitlines()) for name in reversed(UNITS)
    )
    settings = {line for line in site ^ coordinator if line and not line.startswith("#")}
    assert settings == {"ReadWritePaths=/dev/shm", "RemoveIPC=no"}
