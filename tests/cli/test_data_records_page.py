"""docs/data-records.md: its site file is one, its commands work in the order they stand there, its keys exist."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

import fedsci as package
from fedsci.data.record_profile import read_record

ROOT = Path(package.__file__).parents[1]
TEXT = (ROOT / "docs" / "data-records.md").read_text(encoding="utf-8")


@pytest.fixture
def garden(tmp_path):
    """The site file of the page, and data for it."""
    block = re.search(r"    site: lab-a\n(?:    .*\n)+", TEXT)
    assert block is not None
    (tmp_path / "lab-a.yaml").write_text(re.sub("^    ", "", block[0], flags=re.MULTILINE))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "plants.csv").write_text("height,leaf\n" + "12.5,round\n80,pointed\n" * 6)
    shutil.copytree(ROOT / "examples" / "heart", tmp_path / "examples" / "heart", ignore=shutil.ignore_patterns("data"))
    return tmp_path


def commands():
    text = TEXT.replace("\\\n", " ")
    indented = re.findall(r"^    (fedsci data .+)$", text, flags=re.MULTILINE)
    return [shlex.split(line)[1:] for line in (*indented, *re.findall(r"`(fedsci data catalogue ex[^`]+)`", text))]


@pytest.mark.slow
def test_the_commands_do_what_the_page_says(fedsci, garden):
    done = 0
    for command in commands():
        if "1.1.0" in command:
            with (garden / "data" / "plants.csv").open("a") as file:
                file.write("33,round\n")
            assert fedsci("data", "check", "lab-a.yaml").code == 6
            assert fedsci("data", "describe", "lab-a.yaml", "plants").code == 2
        outcome = fedsci(*command)
        assert (outcome.code, outcome.err) == (0, ""), command
        done += 1
        if done == 1:
            site = garden / "lab-a.yaml"
            assert "        record: plants.croissant.json\n" in TEXT
            site.write_text(site.read_text().rstrip() + "\n    record: plants.croissant.json\n")
            assert "1 data set of 5" in fedsci("data", "catalogue", ".", "--unit", "cm").out
        if "mm Hg" in command:
            assert "4 data sets of 4" in outcome.out
    assert done == 7
    assert read_record(garden / "plants.croissant.json").version == "1.1.0"


def test_every_key_of_the_table_is_one_of_the_profile():
    profile = (ROOT / "fedsci" / "data" / "croissant_profile.schema.json").read_text()
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \| [^|]+ \|$", TEXT, flags=re.MULTILINE)[1:]
    keys = [key for row in rows for key in re.findall(r"`([A-Za-z:]+)`", row) if key not in ("urn:uuid:",)]
    assert len(keys) > 15
    assert all(json.dumps(key) in profile for key in keys), keys


def test_the_records_of_the_heart_example_are_whole():
    found = sorted((ROOT / "examples" / "heart" / "records").glob("*.croissant.json"))
    assert [read_record(path).name for path in found] == [
        f"Heart disease, {place}" for place in ("Cleveland", "Budapest", "Zurich and Basel", "Long Beach")
    ]
