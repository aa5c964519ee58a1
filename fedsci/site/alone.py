"""What a lab that does not join could run instead of a study: the comparison that says whether joining pays."""

from dataclasses import replace

from fedsci.config.plan import Plan
from fedsci.config.scaling import on_its_own, scaled_by_own
from fedsci.data.rescaling import own_moments, rescaled
from fedsci.site.dataset import SiteData
from fedsci.training.schema import schema_of


def alone_with(plan: Plan, data: SiteData, *, private: bool) -> tuple[Plan, SiteData]:
    """Return the study as this lab could run it by itself, and its records scaled for that.

    Where a pass over all labs measured the scaling, a lab alone has no part in it. With privacy it scales by the public
    bounds, which cost nothing, and so has the whole of the study's epsilon for training; without, by means and
    deviations of its own training records.
    """
    if plan.study.scaled_by is None:
        return plan, data
    schema = schema_of(plan.study)
    own = on_its_own(plan) if private else scaled_by_own(plan, own_moments(data.train, schema))
    other = schema_of(own.study)
    train, holdout = (rescaled(table, schema, other) for table in (data.train, data.holdout))
    return own, replace(data, train=train, holdout=holdout)
