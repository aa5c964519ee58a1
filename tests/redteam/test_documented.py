"""Whoever reads a row finds it in docs/redteam.md, by the name that the row shows."""

import ast
import re
from pathlib import Path

import fedsci.redteam
from fedsci.redteam.suite import FAMILIES

ROOT = Path(fedsci.redteam.__file__).parents[2]
ROW = re.compile(r"(audit|membership|inversion|property|poisoning|backdoor|free-riding|omitted-noise)(-[a-z]+)*")
FAMILY_ONLY = {"audit"}  # the name of a family and of no row


def keys_in(source):
    """Every row's name that stands in a module, and those that end in -control where one is made from another."""
    texts = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    keys = {text for text in texts if isinstance(text, str) and ROW.fullmatch(text)} - FAMILY_ONLY
    return keys | ({f"{key}-control" for key in keys} if "-control" in texts else set())


def missing(keys, document):
    return {key for key in keys if f"\n| `{key}` |" not in document}


def test_every_row_is_in_the_documentation():
    document = (ROOT / "docs" / "redteam.md").read_text()
    modules = [path.read_text() for path in Path(fedsci.redteam.__file__).parent.glob("*.py")]
    keys = {key for source in modules for key in keys_in(source)}
    assert {"audit-epsilon", "membership-few-control", "property-known-others", "omitted-noise-more"} <= keys
    assert len(keys) >= 25
    assert missing(keys, document) == set()
    assert missing(keys, document.replace("`membership-few`", "`membership`")) == {"membership-few"}


def test_every_family_has_rows_by_its_name():
    document = (ROOT / "docs" / "redteam.md").read_text()
    assert all(f"\n| `{name}" in document for name in FAMILIES)
