"""``fedsci privacy budget``, ``fedsci privacy ledger``, ``fedsci privacy set``."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsci.errors import InputError

if TYPE_CHECKING:
    from fedsci.config.site import Site
    from fedsci.secagg.profile import Profile
    from fedsci.site.ledger import Ledger
    from fedsci.site.ledger_keeping import Inspection
    from fedsci.site.ledger_report import BudgetReport

SiteFile = Annotated[Path, typer.Argument(help="A site file.", metavar="SITE")]
State = Annotated[
    Path | None,
    typer.Option("--state", envvar="FEDSCI_STATE", help="The site's state folder, or that of fedsci run."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the ledger.")]
Key = Annotated[
    Path | None,
    typer.Option("--key", help="The officer's key file, by default ~/.config/fedsci/officer.key; made at first use."),
]
_SHOWN = 10


def register(group: typer.Typer) -> None:
    """Add the commands to ``fedsci privacy``."""
    group.command("budget", epilog="Example: fedsci privacy budget sites/lab-01.yaml")(budget)
    group.command("ledger", epilog="Example: fedsci privacy ledger sites/lab-01.yaml --dataset digits")(ledger)
    group.command(
        "set", epilog='Example: fedsci privacy set lab.yaml heart --epsilon 10 --reason "board vote of 3 May"'
    )(set_budget)


def budget(site: SiteFile, state: State = None, as_json: AsJson = False) -> None:
    """Show what is left of each data set's budget, what used it, and how many more studies fit."""
    from fedsci.site.ledger_report import budget_reports

    loaded, found = _open(site, state)
    seen = found.inspect()
    if seen.problem is not None:
        raise seen.problem
    reports = budget_reports(loaded, seen.books)
    if as_json:
        typer.echo(
            json.dumps(
                {"site": loaded.site, "ledger": seen.store, "budgets": [asdict(each) for each in reports]}, indent=2
            )
        )
    else:
        _print_budgets(loaded, seen, reports)


def ledger(
    site: SiteFile,
    state: State = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="Only what is about this data set.")] = None,
    as_json: AsJson = False,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Officer: go on with a ledger that was restored, moved or lost its anchor.")
    ] = False,
    reason: Reason = "",
    key: Key = None,
) -> None:
    """Show every charge, and whether chain, signatures and anchor hold (exit code 6 if not).

    With --adopt, the officer takes a ledger that does not fit its anchor, or that another installation wrote, as
    this site's own from now on; what the anchor knows was spent stays spent.
    """
    loaded, found = _open(site, state)
    if adopt:
        signing, said = _key(loaded, key, found.profile)
        what = found.adopt(reason=reason, key=signing)
        typer.echo(
            "\n".join([*said, f"{loaded.site}: adopted, signed by {signing.public.hex()[:16]}…", f"found: {what}"])
        )
        return
    seen = found.inspect()
    entries = [entry for entry in seen.entries if dataset is None or entry.dataset in (dataset, "")]
    if as_json:
        document = {
            "site": loaded.site,
            "ledger": seen.store,
            "anchor": str(seen.anchor),
            "verified": seen.problem is None,
            "problem": None if seen.problem is None else seen.problem.message,
            "entries": [asdict(entry) for entry in entries],
        }
        typer.echo(json.dumps(document, indent=2))
    else:
        _print_entries(loaded, seen, entries)
    if seen.problem is not None:
        raise seen.problem


def set_budget(
    site: SiteFile,
    dataset: Annotated[str, typer.Argument(help="A data set of the site.", metavar="DATASET")],
    epsilon: Annotated[float, typer.Option("--epsilon", help="The new lifetime budget.")],
    reason: Reason,
    delta: Annotated[float | None, typer.Option("--delta", help="The new delta; by default as it is.")] = None,
    key: Key = None,
    state: State = None,
) -> None:
    """Raise or lower a data set's budget, signed by the privacy officer and with a reason; never silently.

    Raised after results were seen, what can be claimed of everything released is the highest budget there ever was.
    """
    loaded, found = _open(site, state)
    signing, said = _key(loaded, key, found.profile)
    old, new = found.change_budget(dataset, epsilon=epsilon, delta=delta, reason=reason, key=signing)
    spending = found.spending(dataset, new)
    said.append(
        f"{loaded.site}: budget of {dataset}: epsilon {old.epsilon:g} -> {new.epsilon:g}, delta {old.delta:g} -> "
        f"{new.delta:g}, signed by {signing.public.hex()[:16]}…"
    )
    if spending.epsilon_enforced >= new.epsilon:
        said.append(f"nothing more is admitted: {spending.epsilon_enforced:.2f} is spent")
    elif new.epsilon > old.epsilon:
        said.append("of everything released, the new and higher epsilon is now what can be claimed")
    said.append(
        f"next: write the same in {site}, or every study is refused: epsilon: {new.epsilon!r}, delta: {new.delta!r}"
    )
    typer.echo("\n".join(said))


def _open(file: Path, state: Path | None) -> "tuple[Site, Ledger]":
    from fedsci.config.site import load_site
    from fedsci.site.ledger import open_ledger

    site = load_site(file)
    base = state or (site.folder / site.state if site.state else Path(".fedsci"))
    # a folder that was made by fedsci site init is this one site's; else it holds one folder a lab, as for fedsci run
    return site, open_ledger(site, base if (base / "site.name").is_file() else base / site.site)


def _key(site: "Site", path: Path | None, profile: "Profile") -> tuple[Any, list[str]]:
    """Return the officer's key, and what to say if it was just made."""
    from fedsci.site.officer import default_key_path, officer_key

    path = path or default_key_path()
    if site.officer and not path.exists():
        raise InputError(
            f"{site.site}: its officer's key is not in {path}", hint="name the file that holds it with --key"
        )
    key, fresh = officer_key(path, profile)
    said = [f"made the officer's key {path}: keep it, and keep it from the site's machine"] if fresh else []
    if not site.officer:
        said.append(f'to let no other key sign, write in the site file: officer: "{key.public.hex()}"')
    return key, said


def _print_budgets(site: "Site", seen: "Inspection", reports: "list[BudgetReport]") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True, markup=False)
    table = Table(title=f"{site.site}: privacy budgets", title_justify="left", box=None, padding=(0, 1, 0, 0))
    for heading in ("data set", "unit"):
        table.add_column(heading, no_wrap=True)
    for heading in ("delta", "budget", "spent", "left", "in advance", "studies", "more fit"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in reports:
        fixed = each.epsilon_fixed_in_advance
        fit = "-" if each.still_fit_last is None else f"{each.still_fit_last} / {each.still_fit_mean}"
        table.add_row(
            each.dataset,
            each.unit,
            f"{each.delta:g}",
            f"{each.epsilon_budget:.2f}",
            f"{each.epsilon_spent:.2f}",
            f"{each.epsilon_left:.2f}",
            "not known" if fixed is None else f"{fixed:.2f}",
            str(len(each.uses)),
            fit,
        )
    console.print(table)
    console.print("  budget, spent, left  epsilon as enforced: holds however studies are chosen after results")
    console.print("  in advance           epsilon had the same studies been fixed in advance; refuses nothing")
    console.print("  more fit             studies like the last one / like the mean one")
    console.print("  of budget            share of what the budget admits: these add up; epsilons do not")
    console.print("  alone                epsilon as enforced, had there been no other study")
    console.print("  open                 it runs, or broke off: charged for all rounds of its plan")
    console.print("  exact metrics        the lab lets exact metric sums leave too; no epsilon counts those")
    console.print("  every epsilon is for adding or removing one unit, at the delta shown")
    for each in reports:
        for line in _remarks(each):
            console.print(f"  {each.dataset}: {line}")
        if each.uses:
            _print_uses(console, each)
    if seen.entries:
        console.print(f"\nledger  {seen.store}, {len(seen.entries)} entries, verified")
    else:
        console.print(f"\nledger  {seen.store}: nothing was charged there yet")


def _remarks(report: "BudgetReport") -> list[str]:
    said = []
    if report.in_site_file is False:
        said.append("the site file says other numbers, so studies are refused: mend it, or fedsci privacy set")
    if report.in_site_file is None:
        said.append("no longer in the site file")
    if report.highest_epsilon > report.epsilon_budget:
        said.append(f"the budget was {report.highest_epsilon:g} once; that is what can be claimed of all releases")
    if report.no_privacy_runs:
        said.append(f"{report.no_privacy_runs} studies ran without any guarantee; no epsilon covers them")
    if report.lost:
        said.append("part of what is spent is known from the anchor only: entries were lost")
    if report.still_fit_last == 0 and report.still_fit_mean == 0:
        said.append("used up: no more studies like those so far")
    if report.delta_share_spent > 0.5:
        said.append(f"{report.delta_share_spent:.0%} of what delta pays for inexact noise is used")
    return said


def _print_uses(console: Any, report: "BudgetReport") -> None:
    from rich.table import Table

    table = Table(title=f"{report.dataset}: what used it", title_justify="left", box=None, padding=(0, 1, 0, 0))
    for heading in ("run", "when (UTC)"):
        table.add_column(heading, no_wrap=True)
    for heading in ("rounds", "of budget", "alone"):
        table.add_column(heading, justify="right")
    table.add_column("", no_wrap=True)
    for use in report.uses[-_SHOWN:]:
        state = "open, charged whole" if use.open else "settled"
        table.add_row(
            use.run[:12],
            _when(use.time),
            str(use.rounds),
            f"{100 * use.share:.1f} %",
            f"{use.epsilon_alone:.2f}",
            state + (", exact metrics" if use.exact_evaluation else ""),
        )
    console.print(table)
    if len(report.uses) > _SHOWN:
        console.print(f"  and {len(report.uses) - _SHOWN} earlier ones: fedsci privacy budget --json")


def _print_entries(site: "Site", seen: "Inspection", entries: list[Any]) -> None:
    from rich.console import Console

    from fedsci.site.ledger_report import in_words

    console = Console(highlight=False, soft_wrap=True, markup=False)
    for entry in entries:
        about = " ".join(part for part in (entry.dataset, entry.run[:12]) if part)
        console.print(f"{entry.sequence:>6}  {_when(entry.time)}  {entry.kind:<10}  {about}  {in_words(entry)}")
    if seen.problem is not None:
        return
    if not seen.entries:
        console.print(f"no ledger in {seen.store} yet: nothing was charged there")
        return
    signed = sum(entry.kind in ("set", "adopt") for entry in seen.entries)
    officer = f", {signed} signed by the officer {seen.books.pinned[:16]}…" if signed else ""
    console.print(f"verified: {len(seen.entries)} entries, the chain and its anchor {seen.anchor} hold{officer}")


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
