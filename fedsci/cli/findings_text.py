"""Findings of the red team as a table in the terminal."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedsci.redteam.finding import Finding
from fedsci.reporting.red_team import VERDICTS

_LONGEST_KEY = 24
_VERDICT = 12  # wide enough for "not measured"
_BETWEEN = 12  # columns, at the most
_WIDTH = 140  # where the output goes to a file
_STYLES = {"broken": "bold red", "not protected": "yellow", "holds": "green"}


def print_findings(findings: Sequence[Finding]) -> None:
    """Print claim, attack, result and verdict of each; before the claim, what the documentation has it by."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    shown = Table(box=box.HORIZONTALS, show_lines=True, pad_edge=False)
    words = console.width - _VERDICT - _BETWEEN
    first = max(_LONGEST_KEY, words // 3)
    rest = max(1, (words - first) // 2)
    for heading, width in (("claim", first), ("attack", rest), ("result", rest), ("verdict", _VERDICT)):
        shown.add_column(heading, width=width, overflow="fold")
    for finding in findings:
        verdict = Text(VERDICTS[finding.verdict], style=_STYLES.get(finding.verdict, ""))
        claim = Text.assemble((finding.key, "bold"), "\n", finding.claim)
        shown.add_row(claim, Text(finding.attack), Text(finding.result), verdict)
    console.print(shown)
