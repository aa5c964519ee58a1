"""The first field in which two documents differ."""

import pytest

from fedsci.reporting.agreement import first_difference, first_line

RIGHT = {"a": {"b": [1, {"c": 0.5}], "d": None}, "e": True}


def test_equal_documents_differ_in_nothing():
    assert first_difference(RIGHT, RIGHT) is None
    assert first_line("a\nb\n", "a\nb\n") is None


@pytest.mark.parametrize(
    ("found", "field"),
    [
        ({"a": {"b": [2, {"c": 0.5}], "d": None}, "e": True}, "a.b.0"),
        ({"a": {"b": [1, {"c": 0.6}], "d": None}, "e": True}, "a.b.1.c"),
        ({"a": {"b": [1], "d": None}, "e": True}, "a.b.1"),
        ({"a": {"b": [1, {"c": 0.5}, 3], "d": None}, "e": True}, "a.b.2"),
        ({"a": {"b": [1, {"c": 0.5}]}, "e": True}, "a.d"),
        ({"a": {"b": [1, {"c": 0.5}], "d": 0}, "e": True}, "a.d"),
        ({**RIGHT, "e": 1}, "e"),
        ({**RIGHT, "f": 1}, "f"),
        ({"a": [], "e": True}, "a"),
        (None, "the document"),
    ],
)
def test_a_difference_is_named(found, field):
    difference = first_difference(found, RIGHT)
    assert difference is not None
    assert difference.field == field
    assert len(str(difference)) < 300


def test_a_long_value_is_cut():
    assert len(str(first_difference({"a": "x" * 10_000}, {"a": 1}))) < 300


@pytest.mark.parametrize(("found", "line"), [("a\nc\n", 2), ("a\nb", 3), ("a\nb\n\n", 4), ("", 1)])
def test_a_line_is_named(found, line):
    assert first_line(found, "a\nb\n") == line
