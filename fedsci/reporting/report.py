"""Writes ``report.html``: one page about one run, with a view for each person, that opens offline."""

from collections.abc import Callable, Mapping
from pathlib import Path

from fedsci.errors import VerificationFailed
from fedsci.reporting import officer_view, operator_view, participation, protection, results, running
from fedsci.reporting.audit_facts import AUDIT, AuditFacts, read_audit
from fedsci.reporting.facts import facts_of
from fedsci.reporting.page import esc, facts_list, name, page, paragraph, tabs, view
from fedsci.reporting.red_team import read_red_team, red_team
from fedsci.reporting.run_folder import RunFolder, read_run_folder
from fedsci.reporting.verify import verify_run
from fedsci.reporting.whole_file import write_whole

REPORT = "report.html"
_VIEWS = (("coordinator", "Coordinator"), ("officer", "Privacy officer"), ("operator", "Site operator"))
_LEADS = {
    "coordinator": "Whether joining pays, how training went, who took part, and what it took.",
    "officer": "What was promised, what is left of each budget, who allowed and refused what, and what proves it.",
    "operator": "What each lab did in this study, what was measured for it, what left it, and what to do next.",
}
_MEANWHILE = {
    "coordinator": "Do not publish or go on with this run. Find the copy that labs cosigned, and compare.",
    "officer": "Count nothing of this run as proven. What was charged is in the labs’ own ledgers, untouched by this.",
    "operator": "Do not use this model. Your own ledger and log say what left your lab.",
}


def write_report(run_folder: Path, *, verified: Callable[[Path], object] = verify_run) -> Path:
    """Write the report of the run in ``run_folder`` and return its path; the same files give the same page.

    An aborted or half-written run gives a page that says so. A run whose log does not check out gives a page that says
    where, and shows none of its numbers. The page is written whole or not at all.

    Args:
        run_folder: the run's.
        verified: passes where the folder's log checks out, else raises VerificationFailed; asked where there is a log.

    Raises:
        InputError: if ``run_folder`` is missing or is no run folder.
    """
    run = read_run_folder(run_folder)
    target = run_folder / REPORT
    try:
        if (run_folder / AUDIT).exists():
            verified(run_folder)
        html = render_report(run, read_audit(run_folder), read_red_team(run_folder))
    except VerificationFailed as failure:
        html = render_failure(run.name, failure)
    write_whole(target, html)
    return target


def render_report(run: RunFolder, audit: AuditFacts | None, attacks: Mapping[str, object] | None = None) -> str:
    """Return the page as text; ``attacks`` is what ``redteam.json`` says, if there is one."""
    facts = facts_of(run)
    checked = "" if audit is None else f"Its audit log of {len(audit.entries):,} entries was checked for this page."
    coordinator = [
        results.answer(facts),
        results.rounds(facts),
        participation.participation(facts),
        results.labs(facts),
        running.every_metric(facts),
        running.time_and_traffic(facts),
        running.how_it_ran(facts, run.plan_text, run.notes, logged=audit is not None),
    ]
    officer = [
        protection.privacy(facts),
        officer_view.burn_down(facts),
        results.spending(facts),
        officer_view.refusals(audit),
        officer_view.permissions(audit),
        officer_view.log(audit),
        protection.masking(facts),
        red_team(attacks, plan_digest=facts.plan_digest),
    ]
    operator = [operator_view.index(facts), *operator_view.lab_blocks(facts, audit)]
    bodies = {"coordinator": coordinator, "officer": officer, "operator": operator}
    views = [view(anchor, title, _LEADS[anchor], *bodies[anchor]) for anchor, title in _VIEWS]
    return page(
        f"{facts.study}: report of a federated study",
        "\n".join([results.masthead(facts, checked), tabs(_VIEWS), *views]),
    )


def render_failure(run: str, failure: VerificationFailed) -> str:
    """Return the page of a run whose log does not check out: where it fails, what to do, and no number of it."""
    banner = (
        '<div class="banner" role="alert"><strong>This run’s evidence does not check out. '
        f"Its numbers are not shown.</strong><p>{esc(failure.message)}</p>"
    )
    where = facts_list([("File", esc(getattr(failure, "file", ""))), ("Field", esc(getattr(failure, "field", "")))])
    banner += (where if "<dd>" in where else "") + "</div>"
    head = f'<header><p class="eyebrow">Report of a federated study</p><h1>{name(run)}</h1>{banner}</header>'
    advice = paragraph(
        "<code>fedsci verify RUN</code> checks the run again, and names the first file and field that fails."
    )
    views = [view(anchor, title, "", paragraph(_MEANWHILE[anchor]), advice) for anchor, title in _VIEWS]
    return page(f"{run}: evidence that does not check out", "\n".join([head, tabs(_VIEWS), *views]))
