"""Writes ``report.html``: one page about one run, for people, that opens with the network unplugged."""

from pathlib import Path

from fedsci.reporting import protection, results, running
from fedsci.reporting.facts import facts_of
from fedsci.reporting.page import page
from fedsci.reporting.run_folder import RunFolder, read_run_folder
from fedsci.reporting.whole_file import write_whole

REPORT = "report.html"


def write_report(run_folder: Path) -> Path:
    """Write the report of the run in ``run_folder`` and return its path; the same files give the same page.

    An aborted or half-written run gives a page that says so. The page is written whole or not at all.

    Raises:
        InputError: if ``run_folder`` is missing or is no run folder.
    """
    html = render_report(read_run_folder(run_folder))
    target = run_folder / REPORT
    write_whole(target, html)
    return target


def render_report(run: RunFolder) -> str:
    """Return the page as text."""
    facts = facts_of(run)
    parts = [
        results.masthead(facts),
        results.answer(facts),
        results.rounds(facts),
        results.spending(facts),
        results.labs(facts),
        running.every_metric(facts),
        protection.privacy(facts),
        protection.masking(facts),
        running.time_and_traffic(facts),
        running.how_it_ran(facts, run.plan_text, run.notes),
    ]
    return page(f"{facts.study}: report of a federated study", "\n".join(filter(None, parts)))
