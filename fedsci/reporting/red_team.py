"""``redteam.json`` as a reader sees it: a table of claims, attacks and results, and their plots."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fedsci.errors import InputError
from fedsci.reporting.comparison_plots import Series, small_plot, style_of, swatch
from fedsci.reporting.page import DASH, box, esc, page, paragraph, section, table
from fedsci.reporting.run_folder import finite, items, mapping, text
from fedsci.reporting.whole_file import write_whole

RED_TEAM: Final = "redteam.json"
VERDICTS: Final = {
    "holds": "holds",
    "broken": "BROKEN",
    "control": "works, protection off",
    "not protected": "not protected",
    "not measured": "not measured",
}
_OVERALL: Final = {
    "holds": "every claim stood",
    "broken": "BROKEN",
    "incomplete": "nothing is broken, but not everything was measured",
}
_HEADS: Final = ("Claim", "Attack", "Result", "Verdict")
_MEANING: Final = (
    "<strong>holds</strong>: the claim stood this attack. <strong>BROKEN</strong>: it did not, which is a fault. "
    "<strong>works, protection off</strong>: the same attack where the protection was taken away, to show that it is a "
    "real one. <strong>not protected</strong>: the attack works, and nothing else is claimed. "
    "<strong>not measured</strong>: no claim was tested, and the row says why; it is not a pass. What each row looks "
    "at is in docs/redteam.md, under the short name that stands before its claim."
)


def read_red_team(folder: Path) -> Mapping[str, object] | None:
    """Return what ``redteam.json`` in a run folder says, unchecked; None where there is none that can be read."""
    try:
        return mapping(json.loads((folder / RED_TEAM).read_bytes())) or None
    except (OSError, ValueError, RecursionError):
        return None


def red_team(found: Mapping[str, object] | None, *, plan_digest: str | None = None) -> str:
    """Return the section; empty text where nothing was attacked.

    ``plan_digest`` is the run's: attacks on another plan say nothing of it, and are not shown.
    """
    if found is None:
        return ""
    if plan_digest is not None and text(found.get("plan_digest")) != plan_digest:
        note = "The attacks whose results lie in this folder were on another plan: they are not shown."
        return section("redteam", "What attacks came to", box("caution", note, ""))
    findings = [mapping(one) for one in items(found.get("findings"))]
    rows = [
        [_claim(one), *(esc(text(one.get(key))) or DASH for key in ("attack", "result")), _verdict(one)]
        for one in findings
    ]
    plots = "".join(_plot(mapping(one.get("plot"))) for one in findings)
    return section(
        "redteam",
        "What attacks came to",
        paragraph("<br>".join(esc(line) for line in in_all(found))),
        paragraph(_MEANING),
        paragraph(
            '<span class="muted">On runs of the same plan with simulated labs; not part of the signed log. '
            "<code>fedsci redteam</code> does it again.</span>"
        ),
        table("What is claimed, what was tried, and what came of it.", _HEADS, rows, text_columns=4),
        f'<div class="plots">{plots}</div>' if plots else "",
    )


def in_all(found: Mapping[str, object]) -> list[str]:
    """Return what all rows say together, line by line, with the rows that are no pass and the families left out."""
    rows = [mapping(one) for one in items(found.get("findings"))]
    said = text(found.get("verdict"))
    lines = [f"verdict: {_OVERALL.get(said, said) or 'not known'}"]
    for verdict in ("broken", "not protected", "not measured"):
        keys = [text(row.get("key")) for row in rows if text(row.get("verdict")) == verdict]
        lines += [f"{VERDICTS[verdict]}: {', '.join(keys)}"] if keys else []
    left_out = [text(name) for name in items(found.get("left_out"))]
    return lines + ([f"left out: {', '.join(left_out)} (--only chose others)"] if left_out else [])


def write_red_team_page(found: Mapping[str, Any], target: Path, *, title: str) -> None:
    """Write a page of the findings alone, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    head = f'<header><p class="eyebrow">{esc(title)}</p><h1>{esc(text(found.get("study")))}</h1></header>'
    try:
        write_whole(target, page(f"{text(found.get('study'))}: {title}", f"{head}\n{red_team(found)}"))
    except OSError as error:
        raise InputError(
            f"cannot write {target}: {error.strerror or error}", hint="choose another file with --out"
        ) from None


def _claim(finding: Mapping[str, object]) -> str:
    """Return the claim, under the short name that the documentation has it by."""
    key, claim = esc(text(finding.get("key"))), esc(text(finding.get("claim"))) or DASH
    return f"<code>{key}</code><br>{claim}" if key else claim


def _verdict(finding: Mapping[str, object]) -> str:
    verdict = text(finding.get("verdict"))
    words = esc(VERDICTS.get(verdict, verdict)).replace(", ", ",<br>").replace(" ", "&nbsp;") or DASH
    return f"<strong>{words}</strong>" if verdict in ("broken", "not protected") else words


def _plot(plot: Mapping[str, object]) -> str:
    series, names = [], []
    for number, curve in enumerate(mapping(one) for one in items(plot.get("curves"))):
        points = _points(items(curve.get("points")))
        if points:
            series.append(Series(letter="", style=style_of(number), points=points, runs=()))
            names.append(f"<li>{swatch(style_of(number))}<span>{esc(text(curve.get('name')))}</span></li>")
    drawn = small_plot(series, metric=text(plot.get("y")), across=text(plot.get("x")))
    if not drawn:
        return ""
    key = f'<ul class="key">{"".join(names)}</ul>'
    return f"<figure>{drawn}<figcaption>{esc(text(plot.get('title')))}{key}</figcaption></figure>"


def _points(values: Sequence[object]) -> list[tuple[float, float]]:
    """Return what of the values are points, from left to right: a cloud is drawn as a line, too."""
    pairs = [[finite(number) for number in items(value)] for value in values]
    points = [(pair[0], pair[1]) for pair in pairs if len(pair) == 2 and pair[0] is not None and pair[1] is not None]
    return sorted(points, key=lambda point: point[0])
