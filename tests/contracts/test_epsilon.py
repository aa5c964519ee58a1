"""No epsilon without its neighbouring relation, and none from an accountant that is too low."""

import ast
import re
from pathlib import Path

import fedsci

ROOT = Path(fedsci.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
#: What computes an epsilon; reporting and cli show numbers that these gave them.
COMPUTING = [path for path in SOURCES if path.relative_to(ROOT).parts[0] not in ("reporting", "cli")]
RELATION = re.compile(r"add(ing)?\s+or\s+remov(e|ing)", re.IGNORECASE)


def speaking_of_epsilon(tree):
    """Public functions named after epsilon, each with the texts that may state its relation."""
    for node in tree.body:
        members = node.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_") else [node]
        around = ast.get_docstring(node) or "" if isinstance(node, ast.ClassDef) else ""
        for member in members:
            if isinstance(member, ast.FunctionDef) and "epsilon" in member.name and not member.name.startswith("_"):
                yield member.name, (ast.get_docstring(member) or "") + around


def test_whoever_returns_an_epsilon_says_which_data_sets_are_neighbours():
    for path in COMPUTING:
        for name, text in speaking_of_epsilon(ast.parse(path.read_text())):
            assert RELATION.search(text), f"{path}: {name}() does not say that a record is added or removed"


def test_the_check_sees_functions_and_methods():
    source = 'def epsilon(): "No."\nclass A:\n    "Adding or removing."\n    def epsilon_now(self): "Now."'
    found = list(speaking_of_epsilon(ast.parse(source)))
    assert [(name, bool(RELATION.search(text))) for name, text in found] == [("epsilon", False), ("epsilon_now", True)]
    assert sum(len(list(speaking_of_epsilon(ast.parse(path.read_text())))) for path in COMPUTING) >= 6


def test_opacus_accountants_price_nothing():
    """Its central-limit (GDP) accountant is too low, and its engine would bring it along; tests compare, no more."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom | ast.Import) else []
            assert not any(module.startswith("opacus.accountants") for module in modules), path
            assert not {"PrivacyEngine", "GaussianAccountant"} & set(names), path
