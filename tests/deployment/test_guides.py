"""The three guides are one story: every command in them, in the order of STORY, must print what the page says.

Each person has a folder and a shell that stays open. A ``sh`` block must succeed. In a ``console`` block a command is
followed by all that it prints; ``…`` is any text, also over lines, and blanks count as one. A command that fails says
so in the page, by ``$ echo $?`` and the code.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fedsci_test_program import COMMAND  # made by conftest.py

from fedsci.data.builtin import load_builtin

DOCS = Path(__file__).parents[2] / "docs"
COORDINATOR, OPERATOR, OFFICER = "coordinator", "site-operator", "privacy-officer"
#: Sections as they follow each other; those for three labs are done by all. Between them, files that people send.
STORY = (
    (COORDINATOR, 1, 1),
    (OFFICER, 1, 3),
    ("officer-{lab}/{name}.pub", "lab-{lab}", "coordinator"),
    (OPERATOR, 1, 3),
    (OPERATOR, 2, 3),
    (OFFICER, 2, 1),
    (COORDINATOR, 2, 1),
    ("coordinator/lab-{lab}.token", "lab-{lab}"),
    (OPERATOR, 3, 3),
    (COORDINATOR, 3, 1),
    ("coordinator/study.yaml", "officer-1"),
    ("lab-{lab}/lab-{lab}.yaml", "officer-1"),
    (OFFICER, 3, 1),
    (OPERATOR, 4, 1),
    (OPERATOR, 5, 3),
    (OFFICER, 4, 3),
    (OPERATOR, 6, 1),
    (COORDINATOR, 4, 1),
    (COORDINATOR, 5, 1),
    ("coordinator/before-release.request.json", "officer-1"),
    (OFFICER, 5, 1),
    ("officer-1/answer.json", "coordinator"),
    (COORDINATOR, 6, 1),
    (COORDINATOR, 7, 1),
    (COORDINATOR, 8, 1),
    ("coordinator/tumours.zip", "lab-1", "officer-1"),
    (OPERATOR, 7, 1),
    (OFFICER, 6, 1),
    (OFFICER, 7, 1),
    (COORDINATOR, 9, 1),
    (OPERATOR, 8, 1),
    (COORDINATOR, 10, 1),
    (OFFICER, 8, 1),
    (COORDINATOR, 11, 1),
    (OPERATOR, 9, 1),
)
NAMES = ("officer-1", "officer-2", "officer-3")
FOLDER = {COORDINATOR: "coordinator", OPERATOR: "lab-{lab}", OFFICER: "officer-{lab}"}
#: What one repeats until it says what one waits for.
LOOKS = re.compile(r"tail|fedsci (coordinator (status|runs|logs)|site (status|pending)|decide \d+$)")
COLUMNS = ("mean_radius", "mean_texture", "mean_smoothness", "mean_concavity", "benign")
DONE = "-- done --"


class Shell:
    """A shell in a folder, in which background jobs and variables stay."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        folder.mkdir(exist_ok=True)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env=environment,
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def __call__(self, command: str) -> tuple[str, int]:
        """Return what a command prints, and its exit code, which ``$?`` holds afterwards."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        watchdog = threading.Timer(200, self.end)
        watchdog.start()
        self.process.stdin.write(f'(exit ${{code:-0}})\n{{ {command}\n}} </dev/null\ncode=$?; echo "{DONE} $code"\n')
        self.process.stdin.flush()
        said = ""
        for line in self.process.stdout:
            said += line
            if DONE in line:
                break
        watchdog.cancel()
        text, done, code = said.partition(DONE)
        assert done, f"{command}\nnever ended: {said}"
        return text, int(code)

    def end(self) -> None:
        """Ask the shell and what it started to end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)

    def close(self) -> None:
        """Wait until nothing that it started runs any more."""
        self.process.communicate(timeout=60)
        deadline = time.monotonic() + 60
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(self.process.pid, 0)
                time.sleep(0.1)


def sections(page: str) -> dict[int, str]:
    """Return the sections of a guide by number."""
    parts = re.split(r"^## (\d+)\. .*\n", (DOCS / f"guide-{page}.md").read_text(), flags=re.MULTILINE)
    return {int(number): text for number, text in zip(parts[1::2], parts[2::2], strict=True)}


def blocks(section: str) -> Iterator[tuple[str, str | None]]:
    """Yield commands with what they print, None where the page does not say."""
    for kind, text in re.findall(r"^```(\w+)\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL):
        if kind == "sh":
            yield text, None
            continue
        assert kind == "console"
        for each in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, said = each.partition("\n")
            yield command, said


def agrees(found: str, expected: str) -> bool:
    """Compare what was printed with what the page says."""
    parts = [r"\s+".join(map(re.escape, part.split())) for part in expected.split("…")]
    return re.fullmatch(r"\s*" + ".*".join(parts) + r"\s*", found, flags=re.DOTALL) is not None


def follow(shell: Shell, section: str) -> None:
    steps = list(blocks(section))
    for index, (command, expected) in enumerate(steps):
        fails = index + 1 < len(steps) and steps[index + 1][0] == "echo $?"
        deadline = time.monotonic() + 120
        while True:
            text, code = shell(command)
            right = agrees(text, expected) if expected is not None else True
            if right or not LOOKS.match(command) or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        assert right, f"$ {command}\nprinted\n{text}\nnot\n{expected}"
        assert (code != 0) == fails, f"$ {command}\nended with {code}: {text}"


def test_every_section_is_in_the_story_once():
    for page in (COORDINATOR, OPERATOR, OFFICER):
        told = sorted(step[1] for step in STORY if step[0] == page)
        assert told == sorted(sections(page))


def test_other_words_do_not_agree():
    assert agrees("a: 1  b\nc", "a: … b\n…\n")
    assert not agrees("a: 1 b\nd\n", "a: …\nc\n")
    assert not agrees("a\nb\n", "a\n")


@pytest.mark.slow
def test_the_guides_work_as_written(free_ports):
    folder = Path(tempfile.mkdtemp(prefix="fedsci-test-"))
    enrolment, fleet = free_ports
    (folder / "bin").mkdir()
    (folder / "bin" / "fedsci").write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    (folder / "bin" / "fedsci").chmod(0o755)
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    for name in ("FEDSCI_STATE", "FEDSCI_COORDINATOR", "FEDSCI_DEBUG", "COLUMNS"):
        environment.pop(name, None)
    write_data(folder)
    pages = {page: sections(page) for page in (COORDINATOR, OPERATOR, OFFICER)}
    shells: dict[str, Shell] = {}
    try:
        for step in STORY:
            if isinstance(step[1], str):
                send(folder, *step)
                continue
            page, number, labs = step
            for lab in range(1, labs + 1):
                home = FOLDER[page].format(lab=lab)
                if home not in shells:
                    shells[home] = Shell(folder / home, environment)
                text = as_lab(pages[page][number], lab)
                if (page, number) == (COORDINATOR, 1):  # only the ports are this test's own
                    text = text.replace("127.0.0.1\n", f"127.0.0.1:{enrolment} --fleet-port {fleet}\n", 1)
                follow(shells[home], text)
    finally:
        for shell in shells.values():
            shell.end()
        for shell in shells.values():
            shell.close()
        shutil.rmtree(folder, ignore_errors=True)


def write_data(folder: Path) -> None:
    """Give each lab a third of the tumours, lab-1 the first record."""
    table = load_builtin("breast_cancer")
    for lab in range(3):
        (folder / f"lab-{lab + 1}").mkdir()
        rows = zip(*(table.columns[name][lab::3] for name in COLUMNS), strict=True)
        lines = [",".join(COLUMNS), *(",".join(f"{float(value):g}" for value in row) for row in rows)]
        (folder / f"lab-{lab + 1}" / "tumours.csv").write_text("\n".join(lines) + "\n")


def send(folder: Path, source: str, *to: str) -> None:
    for lab, name in enumerate(NAMES, start=1):
        for target in to:
            file = folder / source.format(lab=lab, name=name)
            place = folder / target.format(lab=lab)
            place.mkdir(exist_ok=True)
            shutil.copy(file, place)


def as_lab(text: str, lab: int) -> str:
    """Return a section as another lab's people follow it."""
    own = re.sub("lab-1(?!, lab-2)", f"lab-{lab}", text)
    return re.sub(r"\bofficer-1\b", NAMES[lab - 1], own)
