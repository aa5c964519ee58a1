"""docs/privacy.md names functions and tests; a name that is gone leaves a lemma that nobody checks."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
TESTS = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")}
CODE = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "fedsci").rglob("*.py"))


def test_every_test_it_names_exists():
    files = set(re.findall(r"`((?:\w+/)+test_\w+\.py)", TEXT))
    names = set(re.findall(r"::(\w+)", TEXT))
    assert len(files) > 10
    assert len(names) > 25
    assert [name for name in sorted(files) if not (ROOT / "tests" / name).exists()] == []
    everything = "\n".join(TESTS.values())
    assert [name for name in sorted(names) if not re.search(rf"(def|class) {name}\b", everything)] == []


def test_every_function_and_constant_it_names_exists():
    named = set(re.findall(r"`((?:[A-Z]\w+\.)?_?[a-z]+(?:_[a-z]+)+|[A-Z]+(?:_[A-Z]+)+)`", TEXT))
    assert len(named) >= 15
    assert [name for name in sorted(named - {"rho_t"}) if not re.search(rf"\b{name.rsplit('.')[-1]}\b", CODE)] == []


def test_every_section_it_speaks_of_exists():
    headings = set(re.findall(r"^## (\d)\.", TEXT, re.MULTILINE))
    assert (
        set(re.findall(r"section (\d)", TEXT.replace("protocol.md) section", "").replace("md, section", "")))
        <= headings
    )
