"""Pieces of the page: escaping, tables, boxes and the frame around them.

Names, questions and reasons come from other labs, so every value passes through :func:`esc`. The page
loads nothing and runs nothing; its content policy holds it to that.
"""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from html import escape

from fedsci.reporting.style import STYLE

NOT_SHOWN = '<span class="muted">not shown by the lab</span>'
DASH = '<span class="muted">–</span>'


def esc(value: object) -> str:
    """Return ``value`` as text that is safe in HTML; invisible control characters become �.

    >>> esc('<b title="x">')
    '&lt;b title=&quot;x&quot;&gt;'
    >>> esc("lab\\u202e01")
    'lab�01'
    """
    shown = "".join(
        "\ufffd" if unicodedata.category(char) in {"Cc", "Cf", "Cs"} and char not in "\n\t" else char
        for char in str(value)
    )
    return escape(shown, quote=True)


def name(value: object) -> str:
    """Return a name, kept apart from the direction of the text around it."""
    return f"<bdi>{esc(value)}</bdi>"


def epsilon_words(value: float) -> str:
    """Return an epsilon for a reader.

    >>> [epsilon_words(value) for value in (1.9, 0.0123, 12345.6, float("inf"))]
    ['1.90', '0.0123', '12,346', '∞']
    """
    if math.isinf(value):
        return "∞"
    return f"{value:.3g}" if 0 < value < 0.1 else f"{value:.2f}" if value < 1000 else f"{value:,.0f}"


def paragraph(*sentences: str) -> str:
    """Return a paragraph of HTML sentences."""
    return f"<p>{' '.join(sentences)}</p>"


def box(kind: str, title: str, body: str) -> str:
    """Return a set-off box; ``kind`` is ``danger``, ``caution`` or ``good``."""
    heading = f"<strong>{title}</strong>" if title else ""
    return f'<div class="box {kind}" role="note">{heading}{body}</div>'


def section(anchor: str, title: str, *parts: str, style: str = "") -> str:
    """Return one section of the page; ``style`` is a class of the style sheet."""
    heading = f'<h2 id="{anchor}-title">{title}</h2>'
    body = "\n".join(filter(None, [heading, *parts]))
    kind = f' class="{style}"' if style else ""
    return f'<section{kind} id="{anchor}" aria-labelledby="{anchor}-title">{body}</section>'


def tile(label: str, value: str, remark: str = "") -> str:
    """Return one big number with its name."""
    below = f'<span class="remark">{remark}</span>' if remark else ""
    return f'<div class="tile"><span class="label">{label}</span><span class="big">{value}</span>{below}</div>'


def facts_list(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a list of names and HTML values; empty values are left out."""
    rows = "".join(f"<div><dt>{esc(term)}</dt><dd>{value}</dd></div>" for term, value in pairs if value)
    return f"<dl>{rows}</dl>"


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> str:
    """Return a table of HTML cells; the first ``text_columns`` columns are set left, the rest right."""

    def cell(tag: str, column: int, html: str) -> str:
        scope = ' scope="row"' if tag == "td" and column == 0 else ' scope="col"' if tag == "th" else ""
        side = "" if column < text_columns else ' class="number"'
        return f"<{'th' if scope else tag}{scope}{side}>{html}</{'th' if scope else tag}>"

    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(cell(tag, column, html) for column, html in enumerate(cells)) + "</tr>"

    body = "\n".join(line("td", row) for row in rows)
    return (
        f'<div class="scroll"><table><caption>{caption}</caption><thead>{line("th", head)}</thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def figure(svg: str, caption: str) -> str:
    """Return a plot with its caption."""
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def details(title: str, body: str) -> str:
    """Return something folded away until it is asked for."""
    return f"<details><summary>{title}</summary>{body}</details>"


def tabs(views: Iterable[tuple[str, str]]) -> str:
    """Return links to a page's views, by anchor and title."""
    links = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title in views)
    return f'<nav class="tabs" aria-label="Views">{links}</nav>'


def view(anchor: str, title: str, lead: str, *parts: str) -> str:
    """Return one person's view of the page; the style sheet shows the one that the address names, and print all."""
    body = "\n".join(filter(None, parts))
    return (
        f'<article class="view" id="{anchor}" aria-labelledby="{anchor}-who">'
        f'<h2 class="who" id="{anchor}-who">{title}</h2><p class="muted">{lead}</p>\n{body}</article>'
    )


def page(title: str, body: str) -> str:
    """Return the whole page."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{esc(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
