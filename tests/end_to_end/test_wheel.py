"""What pip installs works from any folder, without the checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ["pyproject.toml", "setup.py", "README.md", "LICENSE", "fedsci", "strategies", "sites", "examples"]


def run(*command, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture
def installed(tmp_path):
    """A fresh environment that holds the wheel, and sees the packages of this one behind it."""
    source = tmp_path / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "data"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "fedsci" / "data", source / "fedsci" / "data", dirs_exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    wheels = tmp_path / "wheels"
    built = run(*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", wheels, source, cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    shutil.rmtree(source)
    home = tmp_path / "venv"
    assert run(sys.executable, "-m", "venv", "--without-pip", home, cwd=tmp_path).returncode == 0
    [wheel] = wheels.glob("fedsci-*.whl")
    python = home / "bin" / "python"
    into = run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    assert into.returncode == 0, into.stderr
    [packages] = home.glob("lib/python*/site-packages")
    (packages / "behind.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return home / "bin"


@pytest.mark.slow
def test_the_demo_runs_from_a_wheel_in_an_empty_folder(installed, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    where = run(installed / "python", "-c", "import fedsci; print(fedsci.__file__)", cwd=elsewhere)
    assert where.stdout.startswith(str(installed.parent)), where.stdout + where.stderr
    fast = ["--set", "training.rounds=2", "--set", "evaluation.baselines=[]"]
    demo = run(installed / "fedsci", "demo", "--json", *fast, cwd=elsewhere)
    assert demo.returncode == 0, demo.stderr
    summary = json.loads(demo.stdout)
    assert (summary["status"], summary["rounds_completed"], len(summary["sites"])) == ("completed", 2, 17)
    shown = run(installed / "fedsci", "strategy", "show", "fedavg", cwd=elsewhere)
    assert "name: fedavg" in shown.stdout
