"""What the report says, drawn from a run's files and typed; None where the run does not say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedsci.privacy.minimum_cohort import least_shown
from fedsci.reporting.alarm_facts import Alarms, alarms_of
from fedsci.reporting.run_folder import RunFolder, count, epsilon, finite, items, mapping, text
from fedsci.reporting.verdict import CHANCE, Measure, Scores, measure_named
from fedsci.reporting.withheld import withhold

_FALLBACK_MEASURES = ("accuracy", "auroc", "r2", "rmse", "mae", "log_loss")
_MEANS = (
    "federated_mean_site",
    "federated",
    "local_mean_site",
    "local_no_dp_mean_site",
    "personalised_mean_site",
    "pooled",
    "pooled_dp",
    "local_noise",
)
_OWN = ("local", "local_no_dp", "personalised")
_COLUMNS = {"joint": "federated", "alone": "local", "alone_no_dp": "local_no_dp", "personalised": "personalised"}
_NOISE = {"federated": "noise_deviation", "federated_mean_site": "noise_deviation_mean_site"}


@dataclass(frozen=True, kw_only=True)
class LabFacts:
    """One lab's line.

    Attributes:
        scores: the deciding metric, on this lab's own test records; empty where too few labs show theirs.
        hidden: the columns (``federated``, ``local``, ``local_no_dp``, ``records``) that the lab does
            not show, as opposed to what was not run.
        epsilon_study, epsilon_total: by PLD, as if all studies had been fixed in advance.
        epsilon_enforced, epsilon_before: by the ledger's rule, with and without this study; None where not stated.
        epsilon_budget: what ``epsilon_enforced`` is compared with. Infinity means no guarantee (or no limit).
        rdp_study, rdp_total: what the ledger adds up: Renyi divergence of this study, and of all with it.
        rounds_charged: of this study.
        settled: whether the lab closed its charge at the end; else that of the whole plan stays. None if not stated.
    """

    site: str
    train: int | None
    holdout: int | None
    scores: Scores
    hidden: frozenset[str]
    epsilon_study: float | None
    epsilon_total: float | None
    epsilon_enforced: float | None
    epsilon_before: float | None
    epsilon_budget: float | None
    rdp_study: float | None
    rdp_total: float | None
    rounds_charged: int | None
    settled: bool | None


@dataclass(frozen=True, kw_only=True)
class RoundFacts:
    """One round's line; ``joint`` and ``mean_site`` are the deciding metric, ``size_bytes`` is up and down.

    Attributes:
        spread: the deciding metric's lowest and highest at a lab, None where too few labs show theirs.
        spread_labs: how many labs that is of.
        survivors: labs in the round's sum; None where not stated.
        dropped: labs that were not.
        abandoned: it was asked for and never applied.
    """

    number: int
    joint: float | None
    mean_site: float | None
    spread: tuple[float, float] | None
    spread_labs: int
    survivors: int | None
    dropped: frozenset[str]
    abandoned: bool
    epsilon_max: float | None
    size_bytes: float | None
    seconds: float | None
    virtual_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Everything the page shows.

    ``status`` is as in ``summary.json``, or ``unfinished`` if no summary was written. ``mechanism`` is
    empty where the run does not name one; a reader must then assume no guarantee. ``noised``: the metrics
    of the joint model carry privacy noise; ``noise`` is its standard deviation in the deciding metric, for
    ``federated`` and ``federated_mean_site``, as far as the run says. ``errors``: standard errors of the means over
    the labs, by their names in :class:`Scores`, from the run's intervals. ``own_layers``: the strategy lets each lab
    use the joint model with layers of its own. ``worst``: the lab at which the joint model
    does worst, and its metric there; None unless every lab shows its own. ``withheld`` says what of single labs is not
    shown since too few show it (:mod:`fedsci.reporting.withheld`), a sentence each. ``makes_model`` is false for
    statistics of the labs' columns. ``epsilon_planned``: what the noise was sized for, over ``rounds_planned``.
    ``scaled``: means and deviations were measured over all labs first; ``scaling_epsilon`` is the planned part of
    epsilon that this cost, None without any.
    """

    study: str
    question: str
    status: str
    reason: str
    engine: str
    seed: str
    plan_digest: str
    strategy: str
    own_layers: bool
    buffered: bool
    versions: Mapping[str, str]
    rounds_completed: int | None
    rounds_planned: int | None
    makes_model: bool
    dataset: str
    measure: Measure | None
    means: Mapping[str, float]
    all_metrics: Mapping[str, Mapping[str, float]]
    noised: bool
    noise: Mapping[str, float]
    errors: Mapping[str, float]
    worst: tuple[str, float] | None
    withheld: Sequence[str]
    labs: Sequence[LabFacts]
    rounds: Sequence[RoundFacts]
    unit: str
    mechanism: str
    delta: float | None
    epsilon_planned: float | None
    accountant: str
    colluding_sites: int | None
    masked: bool | None
    min_survivors: int | None
    smallest_sum: int | None
    scaled: bool
    scaling_epsilon: float | None
    dropped: Sequence[tuple[str, str, str]]
    alarms: Alarms
    bytes_up: int | None
    bytes_down: int | None
    seconds: Mapping[str, float]
    virtual_hours: float | None

    @property
    def private(self) -> bool:
        """Whether the run claims a differential-privacy guarantee."""
        return self.mechanism in {"distributed", "local"}

    @property
    def least_shown(self) -> int:
        """How many labs must show a metric before any single one's is shown."""
        return least_shown(self.min_survivors)

    @property
    def alone_column(self) -> str:
        """Which mean is a lab alone, in a run without privacy: there the two are one."""
        return "local_no_dp_mean_site" if "local_no_dp_mean_site" in self.means else "local_mean_site"

    @property
    def scores(self) -> Scores:
        """The deciding metric, averaged over the labs."""
        return Scores(
            joint=self.means.get("federated_mean_site"),
            alone=self.means.get("local_mean_site"),
            alone_no_dp=self.means.get("local_no_dp_mean_site"),
            personalised=self.means.get("personalised_mean_site"),
            errors=self.errors,
        )


def facts_of(run: RunFolder) -> RunFacts:
    """Return what ``run`` says; never raises, whatever the files hold."""
    summary = run.summary
    study = _study_plan(run.plan)
    privacy = {**mapping(study, "privacy"), **mapping(summary, "privacy")}
    masking = {**mapping(study, "secure_aggregation"), **mapping(summary, "secure_aggregation")}
    metrics = mapping(summary, "metrics")
    measure = _measure(metrics, run.rounds)
    name = measure.name if measure else ""
    means = {key: finite(mapping(metrics, key).get(name)) for key in _MEANS}
    noise = {key: finite(mapping(metrics, source).get(name)) for key, source in _NOISE.items()}
    enabled = masking.get("enabled")
    noised = isinstance(metrics.get("noise_deviation"), Mapping)
    min_survivors = count(masking.get("min_survivors"))
    labs, withheld = withhold(_labs(summary, study, means, name), least=least_shown(min_survivors), noised=noised)
    columns_withheld = {each.column for each in withheld}
    return RunFacts(
        study=text(summary.get("study")) or text(study.get("study")) or text(study.get("name")) or run.name,
        question=text(summary.get("question")) or text(study.get("question")),
        status=(text(summary.get("status")) or "unknown") if run.has_summary else "unfinished",
        reason=text(summary.get("reason")),
        engine=text(summary.get("engine")),
        seed=_plain(summary.get("seed", study.get("seed"))),
        plan_digest=text(summary.get("plan_digest")),
        strategy=_strategy_name(study.get("strategy")),
        own_layers=text(mapping(run.plan, "strategy").get("name")) == "fedbn",
        buffered=text(mapping(run.plan, "strategy").get("name")) == "fedbuff",
        versions=_versions(summary),
        rounds_completed=_rounds_completed(summary, run.rounds),
        rounds_planned=_first_count(
            mapping(study, "training").get("rounds"), mapping(run.plan, "strategy", "training").get("rounds")
        ),
        makes_model=_strategy_name(run.plan.get("strategy")) != "feature_statistics",
        dataset=text(study.get("dataset")),
        measure=measure,
        means={key: value for key, value in means.items() if value is not None},
        all_metrics=_all_metrics(metrics),
        noised=noised,
        noise={key: value for key, value in noise.items() if value is not None},
        errors=_errors(
            mapping(metrics, "intervals"),
            {each: f"{column}_mean_site" for each, column in _COLUMNS.items()},
            means,
            name,
        ),
        worst=None if "joint" in columns_withheld else _worst(mapping(metrics, "federated_worst_site", name)),
        withheld=[each.sentence for each in withheld],
        labs=labs,
        rounds=_rounds(run.rounds, name, least_shown(min_survivors)),
        unit=text(privacy.get("unit")) or "record",
        mechanism=text(privacy.get("mechanism")),
        delta=finite(privacy.get("delta")),
        epsilon_planned=_epsilon_planned(study),
        accountant=text(privacy.get("accountant")),
        colluding_sites=count(privacy.get("colluding_sites")),
        masked=enabled if isinstance(enabled, bool) else None,
        min_survivors=min_survivors,
        smallest_sum=count(masking.get("smallest_sum")),
        scaled=bool(mapping(summary, "scaling")),
        scaling_epsilon=finite(mapping(summary, "scaling").get("epsilon")),
        dropped=_dropped(masking, run.rounds),
        alarms=alarms_of(summary),
        bytes_up=count(mapping(summary, "traffic_bytes").get("up")),
        bytes_down=count(mapping(summary, "traffic_bytes").get("down")),
        seconds=_numbers(mapping(summary, "seconds")),
        virtual_hours=finite(summary.get("virtual_hours")),
    )


def _study_plan(plan: Mapping[str, object]) -> Mapping[str, object]:
    """A plan may carry the study's keys at its top or under ``study``."""
    inner = plan.get("study")
    return {**plan, "study": None, **mapping(inner)} if isinstance(inner, Mapping) else plan


def _measure(metrics: Mapping[str, object], rounds: Sequence[Mapping[str, object]]) -> Measure | None:
    higher = metrics.get("higher_is_better")
    primary = text(metrics.get("primary"))
    if primary:
        return measure_named(primary, higher if isinstance(higher, bool) else None)
    seen = [mapping(metrics, key) for key in _MEANS] + [mapping(entry, "metrics") for entry in rounds]
    known = next((name for name in _FALLBACK_MEASURES if any(name in each for each in seen)), None)
    return measure_named(known) if known else None


def _labs(
    summary: Mapping[str, object],
    study: Mapping[str, object],
    means: Mapping[str, float | None],
    name: str,
) -> list[LabFacts]:
    by_site = mapping(summary, "metrics", "by_site")
    spent = mapping(summary, "privacy", "by_site")
    named = [site for site in items(summary.get("sites")) if isinstance(site, str)]
    if not named:
        named = [_planned_site(site) for site in items(study.get("sites"))]
    sites = [site for site in dict.fromkeys([*named, *by_site, *spent]) if site]
    run = {
        column
        for column, mean in ((column, f"{column}_mean_site") for column in _OWN)
        if means.get(mean) is not None or any(mapping(by_site, site, column) for site in sites)
    }
    shows = bool(by_site)
    return [_lab(site, by_site.get(site), mapping(spent, site), name, run, shows) for site in sites]


def _errors(
    intervals: Mapping[str, object], columns: Mapping[str, str], values: Mapping[str, float | None], name: str
) -> dict[str, float]:
    """Return standard errors by :class:`Scores` name from 95 % intervals, which may be cut at a metric's limits."""
    found = {}
    for each, column in columns.items():
        value, ends = values.get(column), [finite(end) for end in items(mapping(intervals, column).get(name))]
        if value is not None and len(ends) == 2 and None not in ends:
            found[each] = max(abs((end or 0.0) - value) for end in ends) / CHANCE
    return found


def _worst(said: Mapping[str, object]) -> tuple[str, float] | None:
    site, value = text(said.get("site")), finite(said.get("value"))
    return None if not site or value is None else (site, value)


def _planned_site(site: object) -> str:
    """A plan names a site, or its file (``../sites/lab-01.yaml``), or holds the file's content."""
    name = text(site) or text(mapping(site).get("site"))
    return name.rsplit("/", maxsplit=1)[-1].removesuffix(".yaml")


def _lab(
    site: str, entry: object, spent: Mapping[str, object], name: str, baselines: set[str], shows: bool
) -> LabFacts:
    known = mapping(entry)
    measured = {"federated", "records", *baselines} if shows else set()
    values = {column: finite(mapping(known, column).get(name)) for column in _COLUMNS.values()}
    settled = spent.get("settled")
    return LabFacts(
        site=site,
        train=count(mapping(known, "records").get("train")),
        holdout=count(mapping(known, "records").get("holdout")),
        scores=Scores(
            joint=finite(mapping(known, "federated").get(name)),
            alone=finite(mapping(known, "local").get(name)),
            alone_no_dp=finite(mapping(known, "local_no_dp").get(name)),
            personalised=finite(mapping(known, "personalised").get(name)),
            errors=_errors(mapping(known, "intervals"), _COLUMNS, values, name),
        ),
        hidden=frozenset(column for column in measured if known.get(column) is None),
        epsilon_study=epsilon(spent.get("epsilon_spent_study")),
        epsilon_total=epsilon(spent.get("epsilon_spent_total")),
        epsilon_enforced=epsilon(spent.get("epsilon_enforced_total")),
        epsilon_before=epsilon(spent.get("epsilon_enforced_before")),
        epsilon_budget=epsilon(spent.get("epsilon_budget")),
        rdp_study=epsilon(spent.get("rdp_study")),
        rdp_total=epsilon(spent.get("rdp_total")),
        rounds_charged=count(spent.get("rounds_charged")),
        settled=settled if isinstance(settled, bool) else None,
    )


def _rounds(rounds: Sequence[Mapping[str, object]], name: str, least: int) -> list[RoundFacts]:
    return [
        RoundFacts(
            number=number,
            joint=finite(mapping(entry, "metrics").get(name)),
            mean_site=finite(mapping(entry, "mean_site").get(name)),
            spread=_spread(mapping(entry, "spread", name), least),
            spread_labs=count(mapping(entry, "spread", name).get("labs")) or 0,
            survivors=count(entry.get("sites")),
            dropped=frozenset(text(site) for site in items(entry.get("dropped"))),
            abandoned=entry.get("abandoned") is True,
            epsilon_max=epsilon(mapping(entry, "epsilon").get("max")),
            size_bytes=_bytes(mapping(entry, "traffic_bytes")),
            seconds=finite(entry.get("seconds")),
            virtual_seconds=finite(entry.get("virtual_seconds")),
        )
        for entry in rounds
        if (number := count(entry.get("round"))) is not None
    ]


def _spread(said: Mapping[str, object], least: int) -> tuple[float, float] | None:
    lowest, highest, labs = finite(said.get("lowest")), finite(said.get("highest")), count(said.get("labs"))
    if lowest is None or highest is None or labs is None or labs < least or lowest > highest:
        return None
    return lowest, highest


def _epsilon_planned(study: Mapping[str, object]) -> float | None:
    """What the plan's noise was sized for, with what measuring its scaling took."""
    planned = finite(mapping(study, "privacy").get("epsilon"))
    before = finite(mapping(study, "scaled_by").get("epsilon"))
    return None if planned is None else planned + (before or 0.0)


def _first_count(*values: object) -> int | None:
    return next((number for value in values if (number := count(value)) is not None), None)


def _bytes(traffic: Mapping[str, object]) -> float | None:
    up, down = finite(traffic.get("up")), finite(traffic.get("down"))
    return None if up is None or down is None else up + down


def _rounds_completed(summary: Mapping[str, object], rounds: Sequence[Mapping[str, object]]) -> int | None:
    stated = count(summary.get("rounds_completed"))
    return stated if stated is not None else (len(rounds) or None)


def _dropped(masking: Mapping[str, object], rounds: Sequence[Mapping[str, object]]) -> list[tuple[str, str, str]]:
    """Lab, round and reason (may be empty), from the summary; from the rounds where there is no summary."""
    pairs = [items(each) for each in items(masking.get("dropped"))]
    if "dropped" not in masking:
        pairs = [[site, entry.get("round")] for entry in rounds for site in items(entry.get("dropped"))]
    reasons = items(masking.get("dropped_because"))
    known = reasons if len(reasons) == len(pairs) else [""] * len(pairs)
    return [
        (str(pair[0]), _plain(pair[1]), text(reason))
        for pair, reason in zip(pairs, known, strict=True)
        if len(pair) == 2
    ]


def _versions(summary: Mapping[str, object]) -> dict[str, str]:
    versions = {"fedsci": _plain(summary.get("fedsci"))}
    versions |= {name: _plain(version) for name, version in mapping(summary, "versions").items()}
    return {name: version for name, version in versions.items() if version}


def _strategy_name(strategy: object) -> str:
    return text(strategy) or text(mapping(strategy).get("name"))


def _all_metrics(metrics: Mapping[str, object]) -> dict[str, dict[str, float]]:
    found = {key: _numbers(mapping(metrics, key)) for key in _MEANS}
    return {key: values for key, values in found.items() if values}


def _numbers(values: Mapping[str, object]) -> dict[str, float]:
    return {key: number for key, value in values.items() if (number := finite(value)) is not None}


def _plain(value: object) -> str:
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
