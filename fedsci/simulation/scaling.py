"""Whether simulated labs would let in both a pass that measures the scaling and the study after it, asked first."""

from pathlib import Path

from fedsci.config.plan import Plan
from fedsci.config.scaling import by_the_bounds, scaled
from fedsci.config.site import load_site
from fedsci.errors import BudgetRefused, PolicyRefused
from fedsci.site.charging import cost_for, dimension_of
from fedsci.site.forecast import forecast_both


def require_both(first: Plan, asked: Plan, site_files: tuple[Path, ...], state: Path | None) -> None:
    """Pass if every lab's policy and budget hold both studies, so that none pays for half of them.

    Args:
        first: the pass.
        asked: the study whose scaling it measures.
        site_files: of the labs, in the order of the plan's sites.
        state: parent of their state folders; None where nothing has been spent.

    Raises:
        PolicyRefused: a lab's policy does not let one of them run.
        BudgetRefused: a budget does not hold both.
    """
    second = scaled(asked, first, by_the_bounds(asked))
    plans = (first, second)
    costs, dimensions = (cost_for(first), cost_for(second)), (dimension_of(first), dimension_of(second))
    for name, file in zip(asked.sites, site_files, strict=True):
        where = None if state is None else state / name
        said = forecast_both(plans, load_site(file), costs=costs, dimensions=dimensions, state=where)
        if said.refusal is not None:
            kind = BudgetRefused if said.exit_code == BudgetRefused.exit_code else PolicyRefused
            raise kind(f"{name}: {said.refusal}", hint=said.hint)
