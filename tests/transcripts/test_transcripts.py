"""Runs the transcripts in this folder; README.md says how to read them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).parent


def cases() -> Iterator[Any]:
    for file in sorted(HERE.glob("*.txt")):
        for case in re.split(r"^## ", file.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            heading, _, body = case.partition("\n")
            yield pytest.param(body.splitlines(), id=f"{file.stem}: {heading}")


@pytest.mark.parametrize("lines", list(cases()))
def test_the_program_answers_as_written(lines, fedsci, study):
    commands = 0
    while lines:
        line = lines.pop(0)
        if line.startswith("$ fedsci "):
            outcome = fedsci(*shlex.split(line.removeprefix("$ fedsci ")))
            expected = take(lines, lambda text: text.startswith(("fedsci: ", "hint: ")))
            exit_line = lines.pop(0)
            assert exit_line == f"exit {outcome.code}", outcome.err
            check(outcome, expected)
            commands += 1
        elif line:
            change(fedsci.folder, study, line, lines)
    assert commands


def check(outcome, expected):
    assert "Traceback" not in outcome.err + outcome.out
    assert "Warning" not in outcome.err
    if outcome.code == 0:
        assert not expected
        return
    found = [outcome.error_line, outcome.hint_line]
    assert outcome.err.splitlines()[-2:] == found
    assert outcome.out == ""
    pattern = "\n".join(".*".join(map(re.escape, line.split("…"))) for line in expected)
    assert re.fullmatch(pattern, "\n".join(found)), "\n".join(["found", *found, "expected", *expected])


def take(lines, wanted):
    taken = []
    while lines and wanted(lines[0]):
        taken.append(lines.pop(0))
    return taken


def change(folder, study, line, lines):
    verb, name, *rest = line.split(maxsplit=2)
    if verb == "use":
        study.use_csv()
    elif verb == "write":
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(text[4:] + "\n" for text in take(lines, lambda text: text.startswith("    "))))
    elif verb == "remove":
        (folder / name).unlink()
    elif verb in ("set", "drop"):
        dotted, _, value = rest[0].partition(": ")
        edit(folder / name, dotted.split("."), yaml.safe_load(value), remove=verb == "drop")
    else:
        raise ValueError(f"no transcript line: {line}")


def edit(file, keys, value, *, remove):
    values = yaml.safe_load(file.read_text())
    section = values
    for key in keys[:-1]:
        section = section[key]
    if remove:
        del section[keys[-1]]
    else:
        section[keys[-1]] = value
    file.write_text(yaml.safe_dump(values, sort_keys=False))


def test_a_wrong_transcript_fails(fedsci, study):
    with pytest.raises(AssertionError):
        test_the_program_answers_as_written(
            ["$ fedsci run nope.yaml", "fedsci: …", "hint: buy more memory", "exit 2"], fedsci, study
        )
