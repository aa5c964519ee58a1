"""The error tree drawn in ``errors.py`` is the tree that the code has."""

import re

import pytest

from fedsci import errors

LINE = re.compile(r"^(?P<indent>[\s│├└─]*)(?P<name>[A-Z][A-Za-z]+)\b(?: +exit (?P<code>\d))?")


def drawn_tree() -> dict[str, tuple[str | None, int | None]]:
    """Return name -> (parent, exit code where the drawing gives one)."""
    text = (errors.__doc__ or "").split("::\n", 1)[1].split("\nAn error's text")[0]
    ancestors: list[str] = []
    tree: dict[str, tuple[str | None, int | None]] = {}
    for line in text.splitlines():
        found = LINE.match(line)
        if not found:
            continue
        depth = len(found["indent"]) // 4 - 1
        ancestors[depth:] = [found["name"]]
        parent = ancestors[depth - 1] if depth else None
        tree[found["name"]] = (parent, int(found["code"]) if found["code"] else None)
    return tree


def classes() -> dict[str, type[errors.FedsciError]]:
    return {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.FedsciError)
    }


def test_every_class_is_drawn_under_its_parent():
    built = {name: None if name == "FedsciError" else cls.__bases__[0].__name__ for name, cls in classes().items()}
    assert {name: parent for name, (parent, _) in drawn_tree().items()} == built


def test_exit_codes_are_as_drawn():
    drawn = {name: code for name, (_, code) in drawn_tree().items() if code is not None}
    assert drawn == {name: classes()[name].exit_code for name in drawn}
    assert sorted(drawn.values()) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("name", sorted(classes()))
def test_an_undrawn_exit_code_is_the_parents(name):
    parent, code = drawn_tree()[name]
    if code is None and name != "SiteFailed":
        assert classes()[name].exit_code == classes()[str(parent)].exit_code


def test_every_error_has_its_own_code():
    codes = [cls.code for cls in classes().values()]
    assert len(set(codes)) == len(codes)
