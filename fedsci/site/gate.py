"""What a site's policy lets a plan do; asked before any data is touched. No policy means no."""

from fedsci.config.plan import Plan
from fedsci.config.site import Budget, Policy, Site
from fedsci.errors import BudgetRefused, PolicyRefused

#: What a data set with a budget allows unless its site's policy says otherwise.
PRIVATE = ["distributed", "local"]


def check_policy(plan: Plan, site: Site, *, approved: bool = False) -> Policy:
    """Return the policy that lets this plan run.

    Args:
        plan: what is asked.
        site: the site's file.
        approved: whether the operator's approval, where the policy wants one, is seen to elsewhere. It replaces none
            of the other rules.

    Raises:
        PolicyRefused: names the rule that says no, and the key that would have to change.
    """
    study, policy = plan.study, site.policy
    if policy is None:
        raise _refusal(site, "it has no policy, so nothing may run", "add a policy section to the site file")
    if study.safety_critical and not policy.second_signers:
        raise _refusal(
            site,
            "the study is safety-critical, and policy.second_signers names nobody who may sign beside the site",
            "a second person makes a key: fedsci site signer SITE_FILE NAME --key FILE",
        )
    if study.safety_critical and not approved:
        raise _refusal(
            site,
            "the study is safety-critical and needs two signatures, whatever policy.approval says",
            "run it with a coordinator; the lab then signs with fedsci site approve",
        )
    if policy.approval != "auto" and not approved:
        raise _refusal(
            site,
            "every study needs the operator's approval (policy.approval: manual)",
            "for a simulated lab set policy.approval: auto",
        )
    if site.site not in plan.sites:
        raise _refusal(site, "it is not in the study's cohort", "list its site file under sites")
    few = min(len(plan.sites), plan.smallest_sum)
    if few < policy.min_cohort:
        part, way = "the sum", ""
        if few < plan.min_survivors:
            buffered = plan.buffer is not None
            part = "the sum over those that trained on one model" if buffered else "a group sum"
            way = "raise the recipe's together, " if buffered else "lower the recipe's groups, "
        raise _refusal(
            site,
            f"{part} may stand for only {few} sites, policy.min_cohort is {policy.min_cohort}",
            f"{way}raise secure_aggregation.min_survivors, or have more sites join",
        )
    if not study.secure_aggregation.enabled and not policy.unmasked_updates:
        raise _refusal(
            site,
            "updates may not travel unmasked (policy.unmasked_updates is false)",
            "leave secure_aggregation.enabled at true",
        )
    if not study.audit_log.enabled and not policy.unlogged_studies:
        raise _refusal(
            site,
            "what is done must be logged and witnessed (policy.unlogged_studies is false)",
            "leave audit_log.enabled at true",
        )
    source = site.datasets.get(study.dataset)
    if source is None:
        held = ", ".join(site.datasets)
        raise _refusal(site, f"it holds no data set called {study.dataset!r}", f"it holds {held}")
    mechanisms = allowed_mechanisms(site, study.dataset)
    if source.privacy is None and study.privacy.mechanism not in mechanisms:
        raise _refusal(
            site,
            f"data set {study.dataset} has no privacy budget, so no private study can be charged to it",
            "add to the data set in the site file: privacy: {unit: record, epsilon: 8.0, delta: 1.0e-5}",
        )
    if source.privacy is not None and plan.private:
        budget, asked = source.privacy, study.privacy
        if (budget.unit, budget.group_by) != (asked.unit, asked.group_by):
            raise _refusal(
                site,
                f"the budget of {study.dataset} is for each {_unit(budget.unit, budget.group_by)}, "
                f"the study protects each {_unit(asked.unit, asked.group_by)}",
                f"set privacy.unit: {budget.unit}" + (f", group_by: {budget.group_by}" if budget.group_by else ""),
            )
    for key, allowed, wanted in (
        ("strategies", policy.strategies, plan.recipe.name),
        ("models", policy.models, study.model.name),
        ("mechanisms", mechanisms, study.privacy.mechanism),
    ):
        if wanted not in allowed:
            listed = ", ".join(allowed) or "nothing"
            raise _refusal(site, f"policy.{key} does not allow {wanted!r}", f"it allows {listed}")
    privacy = study.privacy
    if privacy.mechanism == "distributed" and privacy.colluding_sites < policy.min_colluding_sites:
        raise _refusal(
            site,
            f"noise must allow for {policy.min_colluding_sites} colluding sites, not {privacy.colluding_sites}",
            "raise privacy.colluding_sites in the study",
        )
    if source.target is not None and source.target != study.task.target:
        raise _refusal(
            site,
            f"data set {study.dataset} may be used to predict {source.target!r} only, not {study.task.target!r}",
            "change the study's task.target, or the data set's target in the site file",
        )
    return policy


def allowed_mechanisms(site: Site, dataset: str) -> list[str]:
    """Return the mechanisms that the site's policy lets a study of ``dataset`` use."""
    if site.policy is None or dataset not in site.datasets:
        return []
    return list(site.policy.mechanisms or (PRIVATE if site.datasets[dataset].privacy else ["none"]))


def allows_no_privacy(site: Site, dataset: str) -> bool:
    """Return whether results without any noise may tell of this data set's training records."""
    return "none" in allowed_mechanisms(site, dataset)


def require_budget(site: Site, dataset: str) -> Budget:
    """Return the data set's budget.

    Raises:
        BudgetRefused: it has none.
    """
    budget = site.datasets[dataset].privacy
    if budget is None:
        raise BudgetRefused(
            f"{site.site}: data set {dataset} has no privacy budget, so no private study can be charged to it",
            hint="add to the data set in the site file: privacy: {unit: record, epsilon: 8.0, delta: 1.0e-5}",
        )
    return budget


def check_cost(plan: Plan, site: Site, policy: Policy, *, epsilon: float) -> None:
    """Pass if the study's cost is inside the policy's limits.

    Args:
        plan: what is asked.
        site: the site's file.
        policy: what let the plan in.
        epsilon: what the whole study costs at the study's delta (add or remove one record).

    Raises:
        PolicyRefused: the limit on one study.
    """
    limit = policy.max_epsilon_per_study
    if limit is None:
        raise _refusal(site, "policy.max_epsilon_per_study is not set", "set it in the site file")
    if not epsilon <= limit:
        raise _refusal(
            site,
            f"the study costs epsilon {epsilon:.2f}, policy.max_epsilon_per_study is {limit:.2f}",
            "lower privacy.epsilon in the study",
        )


def check_delta(plan: Plan, site: Site, *, records: int) -> None:
    """Pass if delta is at most one over the number of records: trained on, or held out if those are more.

    Raises:
        PolicyRefused: it is larger: one record in the data set could be given away whole.
    """
    delta = plan.study.privacy.delta
    if not delta * records <= 1:
        raise _refusal(
            site, f"delta {delta:g} is larger than 1 / {records} records", "lower privacy.delta; 1.0e-5 is usual"
        )


def _unit(unit: str, group_by: str | None) -> str:
    return f"group of records with the same {group_by!r}" if group_by else unit


def _refusal(site: Site, message: str, hint: str) -> PolicyRefused:
    return PolicyRefused(f"{site.site}: {message}", hint=hint, public=message)
