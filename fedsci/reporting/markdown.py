"""Pieces of a Markdown document: sections, lists, tables, and text of others that shows as it was written."""

import unicodedata
from collections.abc import Iterable, Sequence


def section(title: str, body: str) -> str:
    """Return a section of the second level."""
    return f"## {title}\n\n{body}"


def bullets(lines: Iterable[str]) -> str:
    """Return a list."""
    return "\n".join(f"- {line}" for line in lines)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown already."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def plain(words: str) -> str:
    r"""Return text from a file as one line that Markdown shows as it is.

    >>> plain("*better* | <b>\n# x")
    '\\*better\\* \\| \\<b\\>�\\# x'
    """
    shown = "".join("\ufffd" if unicodedata.category(char) in {"Cc", "Cf", "Cs"} else char for char in words)
    return "".join(f"\\{char}" if char in "\\`*_[]<>#|" else char for char in shown)


def code(words: str) -> str:
    """Return text from a file as one line of code.

    >>> code("breast_cancer"), code("a`b")
    ('`breast_cancer`', "`a'b`")
    """
    shown = "".join("\ufffd" if unicodedata.category(char) in {"Cc", "Cf", "Cs"} else char for char in words)
    return f"`{shown.replace('`', chr(39))}`"
