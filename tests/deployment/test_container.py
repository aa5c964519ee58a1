"""docs/deploy/Containerfile, its steps run as a script in an empty folder: there is no container engine here.

What stands in for the root file system is that folder. Not tried: the base image, ``useradd`` (a stand-in makes the
folder), the image's user where that cannot reach this Python, and the download of the pinned packages: pip installs
fedsci alone, and the packages of this environment stand behind it.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from pathlib import Path

import pytest
import yaml
from fedsci_test_program import Program  # made by conftest.py

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "deploy" / "Containerfile").read_text()
KNOWN = {"FROM", "ENV", "WORKDIR", "COPY", "RUN", "VOLUME", "USER", "STOPSIGNAL", "ENTRYPOINT", "CMD"}
INSIDE = ("/src", "/opt/fedsci", "/var/lib/fedsci")


def steps():
    """The instructions, in order; comments and continued lines resolved."""
    whole = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE))
    return [tuple(line.split(maxsplit=1)) for line in whole.splitlines() if line.strip()]


def test_the_image_holds_no_secrets_and_does_not_run_as_root():
    asked = steps()
    assert {word for word, _ in asked} == KNOWN
    copied = {part for word, rest in asked if word == "COPY" for part in shlex.split(rest)[:-1]}
    assert copied == {
        "pyproject.toml", "setup.py", "constraints.txt", "README.md", "LICENSE", "fedsci", "strategies", "sites",
        "examples/digits", "--from=build", "/opt/fedsci",
    }  # fmt: skip
    assert not re.search(
        "secret|token|passphrase|password", " ".join(rest for word, rest in asked if word == "ENV"), re.I
    )
    after = asked[[word for word, _ in asked].index("USER") :]
    assert after[0] == ("USER", "10001:10001")
    assert {word for word, _ in after[1:]} == {"STOPSIGNAL", "ENTRYPOINT", "CMD"}
    assert ("VOLUME", "/var/lib/fedsci") in asked


def test_every_package_that_the_image_asks_for_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    wanted = [*project["dependencies"], *project["optional-dependencies"]["postgres"]]
    assert {re.match(r"[\w-]+", name)[0].lower() for name in wanted} <= pins


class Image:
    """The folder that the steps fill."""

    def __init__(self, root):
        self.root, self.folder, self.user, self.stage = root, root, None, 0
        self.environment = {"PATH": f"{root / 'stand-ins'}:{Path(sys.executable).parent}:/usr/bin:/bin"}
        self.entry, self.command = [], []
        stand_in = root / "stand-ins" / "useradd"
        stand_in.parent.mkdir()
        stand_in.write_text(
            '#!/bin/sh\nwhile [ "$1" ]; do [ "$1" = --home-dir ] && mkdir -p "$2" && exit; shift; done; exit 1\n'
        )
        stand_in.chmod(0o755)

    def inside(self, text):
        """Put the image's own paths below the folder."""
        return re.sub(rf"(?<![\w/])({'|'.join(INSIDE)})(?![\w-])", rf"{self.root}\1", text)

    def run(self, command, *, user=None, **environment):
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment | environment,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def do(self, word, rest):
        if word == "ENV":
            for name, _, value in (part.partition("=") for part in shlex.split(rest)):
                path = f"{self.inside(value)}:{self.environment['PATH']}" if name == "PATH" else self.inside(value)
                self.environment[name] = path
        elif word == "WORKDIR":
            self.folder = Path(self.inside(rest))
            self.folder.mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            *sources, target = shlex.split(rest)
            if sources[0] == "--from=build":
                assert sources[1] == target
                assert Path(self.inside(target)).is_dir()
                return
            for name in sources:
                into = self.folder / target / (name if target == "./" else "")
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, into, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, into)
        elif word == "RUN":
            offline = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
            done = self.run(["sh", "-c", self.inside(rest)], **offline)
            assert done.returncode == 0, (rest, done.stderr)
            for packages in self.root.glob("opt/fedsci/lib/python*/site-packages"):
                behind = sysconfig.get_paths()["purelib"]
                (packages / "behind.pth").write_text(f"import sys; sys.path.insert(1, {behind!r})\n")
        elif word == "USER":
            self.user = int(rest.partition(":")[0])
        elif word == "ENTRYPOINT":
            self.entry = json.loads(rest)
        elif word == "CMD":
            self.command = json.loads(rest)

    def start(self, *command):
        """What ``podman run`` would start: by the image's user where this test may change users."""
        program = shutil.which(self.entry[0], path=self.environment["PATH"])
        assert program == str(self.root / "opt/fedsci/bin/fedsci")
        may = os.getuid() == 0 and reachable(self.user)
        return self.run([program, *(command or self.command)], user=self.user if may else None)


def reachable(user):
    """Whether another user may run this Python at all."""
    tried = [os.path.realpath(sys.executable), "-c", f"import os; os.listdir({sysconfig.get_paths()['purelib']!r})"]
    try:
        return subprocess.run(tried, user=user, group=user, extra_groups=[], check=False).returncode == 0
    except PermissionError:
        return False


@pytest.mark.slow
def test_the_steps_make_a_site_and_a_coordinator_that_keep_their_state_in_the_volume():
    root = Path(tempfile.mkdtemp(prefix="fedsci-image-"))
    root.chmod(0o755)
    try:
        image = Image(root)
        for word, rest in steps():
            image.do(word, rest)
        state = root / "var/lib/fedsci"
        assert list(state.iterdir()) == []
        assert state.stat().st_mode & 0o777 == 0o700
        if os.getuid() == 0:
            os.chown(state, image.user, image.user)  # useradd's part
        left = {path.suffix for path in root.glob("src/**/*")} | {path.suffix for path in root.glob("opt/fedsci/bin/*")}
        assert left.isdisjoint({".key", ".pem", ".crt", ".sqlite", ".csv"})

        assert "Usage: fedsci" in image.start().stdout
        imported = image.run([root / "opt/fedsci/bin/python", "-c", "import fedsci; print(fedsci.__file__)"])
        assert imported.stdout.startswith(str(root / "opt/fedsci")), imported.stderr

        values = {"site": "lab-1", "datasets": {"tumours": {"builtin": {"name": "breast_cancer", "shard": 1, "of": 3}}}}
        (root / "lab.yaml").write_text(yaml.safe_dump(values | {"policy": {"approval": "manual"}}))
        without = image.start("site", "status", str(root / "lab.yaml"))
        assert without.returncode == 2, without.stderr
        assert "make them with: fedsci site init" in without.stderr
        made = image.start("site", "init", str(root / "lab.yaml"))
        assert made.returncode == 0, made.stderr
        status = image.start("site", "status", str(root / "lab.yaml"), "--json")
        assert json.loads(status.stdout)["certificate_until"] is None
        founded = image.start("coordinator", "init", "--address", "fl.example.org")
        assert founded.returncode == 0, founded.stderr
        assert {path.name for path in state.iterdir()} >= {"identity.key", "tls", "consortium"}
        assert {path.stat().st_uid for path in state.rglob("*")} <= {image.user, os.getuid()}
    finally:
        shutil.rmtree(root)


def test_the_commands_on_the_page_exist(tmp_path):
    page = (ROOT / "docs" / "deploy" / "container.md").read_text()
    commands = re.findall(r"^ +podman run .*? fedsci ((?:site|coordinator) .*)$", page, flags=re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        assert Program(tmp_path)(*shlex.split(command, comments=True), "--help").code == 0, command
