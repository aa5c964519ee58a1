"""What a study would cost and to whom, before anything runs: computed from the plan, site files and ledgers alone.

Every epsilon holds for adding or removing one unit of privacy: a record, a group of records or a site. No data is
opened: numbers of records come from the reader or from an earlier run, and what accuracy the noise leaves is measured
by runs only.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsci.config.plan import Plan
from fedsci.config.scaling import by_the_bounds, pass_before, scaled
from fedsci.config.site import load_site
from fedsci.config.study_file import StudyOnOneMachine
from fedsci.errors import InputError
from fedsci.names import SiteId
from fedsci.privacy.events import neighbouring_of
from fedsci.privacy.meaning import Meaning, meaning_of, plain_words
from fedsci.reporting.collusion import Against, added, collusion_table
from fedsci.reporting.earlier_runs import EarlierRun, earlier_runs
from fedsci.site.charging import cost_for, dimension_of
from fedsci.site.forecast import Forecast, Room, forecast, forecast_both, plan_at
from fedsci.training.accountant import Cost, cost_of, delta_of_all

_EPSILONS = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0)
_SHARES_OF_ROUNDS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How much noise an epsilon needs, in three ways to add it; needs no data.

    Deviations are of one coordinate of the sum of a step, over the clipping norm.

    Attributes:
        epsilon: of the study.
        noise_multiplier: z, what is counted on.
        this_study: in the sum when all labs take part.
        local: had every lab added all the noise itself.
        pooled: had one holder all records.
    """

    epsilon: float
    noise_multiplier: float
    this_study: float
    local: float
    pooled: float


@dataclass(frozen=True, kw_only=True)
class PlanFacts:
    """Everything ``fedsci privacy plan`` shows.

    Where the study's scaling is to be measured, ``plan`` and ``cost`` are of what comes after that; epsilon, delta and
    forecasts are of both.

    Attributes:
        cost: None without a privacy mechanism.
        dimension: how many numbers a noised sum has: the model's parameters, or a strategy's statistics.
        forecasts: what each site would answer.
        records: training records in all, and where that number is from; None where not known.
        meaning: for one unit of privacy, None without privacy.
        by_rounds: rounds and their epsilon, at the study's noise.
        by_epsilon: noise for other values of epsilon.
        collusion: with the fewest labs that may finish, and with all.
        ledgers: where spending was read from; None where none was looked for.
        approved: whether the sites answer as if their operators had approved.
        scaling: the pass that measures the scaling first, and its price; None where there is none.
        digest: of the plan as it was asked for.
    """

    plan: Plan
    cost: Cost | None
    dimension: int
    forecasts: tuple[Forecast, ...]
    records: int | None
    records_from: str
    meaning: Meaning | None
    by_rounds: tuple[tuple[int, float], ...]
    by_epsilon: tuple[Noise, ...]
    collusion: tuple[Against, ...]
    earlier: tuple[EarlierRun, ...]
    ledgers: Path | None
    approved: bool
    scaling: tuple[Plan, Cost | None] | None
    digest: str

    @property
    def epsilon(self) -> float:
        """Of the whole study at :attr:`delta`, by PLD; infinite without privacy."""
        return math.inf if self.cost is None else self.epsilon_of_scaling + self.cost.epsilon(self.plan.training.rounds)

    @property
    def epsilon_of_scaling(self) -> float:
        """The part of epsilon that measuring the scaling costs."""
        return _epsilon_of(self.scaling)

    @property
    def delta(self) -> float:
        """Of the whole study."""
        return self.plan.whole_privacy[1]

    @property
    def first_refusal(self) -> Forecast | None:
        """The site whose refusal would end the run; None where no rule is in the way."""
        return next((each for each in self.forecasts if each.refusal is not None), None)

    @property
    def words(self) -> tuple[str, ...]:
        """What the guarantee means for one unit of privacy, in sentences."""
        if self.meaning is None:
            return ("There is no guarantee (privacy.mechanism: none): a single record may be read from the model.",)
        privacy = self.plan.study.privacy
        return plain_words(self.meaning, epsilon=self.epsilon, delta=self.delta, unit=privacy.unit)

    def noise_length(self, deviation: float) -> float | None:
        """Return the length of the noise in one step's mean gradient, over the clipping norm; None without records."""
        if self.records is None or self.cost is None:
            return None
        return deviation * math.sqrt(self.dimension) / (self.cost.sample_rate * self.records)

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON-ready values; infinity is ``"inf"``."""
        privacy, cost = self.plan.study.privacy, self.cost
        refusal = self.first_refusal
        return {
            "study": self.plan.study.study,
            "plan_digest": self.digest,
            "unit": privacy.unit,
            "neighbouring": neighbouring_of(privacy.unit).value,
            "mechanism": privacy.mechanism,
            "delta": self.delta,
            "epsilon": _number(self.epsilon),
            "scaling": self._scaling_json(),
            "would_run": refusal is None,
            "exit_code": 0 if refusal is None else refusal.exit_code,
            "rounds": self.plan.training.rounds,
            "sample_rate": self.plan.training.sample_rate,
            "steps": self.plan.steps_per_round * self.plan.training.rounds,
            "dimension": self.dimension,
            "noise_multiplier": None if cost is None else cost.noise_multiplier,
            "records": self.records,
            "meaning": None
            if self.meaning is None
            else {
                "right_guess_by_epsilon": self.meaning.promised_guess,
                "right_guess": self.meaning.best_guess,
                "detected_at_1_percent_false_alarms": self.meaning.detected,
            },
            "by_site": {each.site: _site_json(each) for each in self.forecasts},
            "epsilon_by_rounds": [{"rounds": rounds, "epsilon": _number(value)} for rounds, value in self.by_rounds],
            "noise_by_epsilon": [
                {
                    "epsilon": each.epsilon,
                    "noise_multiplier": each.noise_multiplier,
                    "deviation_over_clipping_norm": {
                        "this_study": each.this_study,
                        "local": each.local,
                        "pooled": each.pooled,
                    },
                    "noise_length_of_mean_gradient": self.noise_length(each.this_study),
                }
                for each in self.by_epsilon
            ],
            "epsilon_against": [
                {
                    "who": row.who,
                    "colluding": row.colluding,
                    "fewest_labs": _number(row.epsilon[0]),
                    "all_labs": _number(row.epsilon[1]),
                }
                for row in self.collusion
            ],
            "earlier_runs": [
                {key: value for key, value in vars(run).items() if key != "records"} | {"epsilon": _number(run.epsilon)}
                for run in self.earlier
            ],
        }

    def _scaling_json(self) -> dict[str, Any] | None:
        if self.scaling is None:
            return None
        first, cost = self.scaling
        return {
            "plan_digest": first.digest,
            "strategy": first.recipe.name,
            "epsilon": _number(math.inf if cost is None else self.epsilon_of_scaling),
            "delta": first.study.privacy.delta,
            "noise_multiplier": None if cost is None else cost.noise_multiplier,
        }


def plan_facts(
    study: StudyOnOneMachine,
    *,
    state: Path | None,
    records: Mapping[str, int],
    total: int | None,
    runs: Path,
    approved: bool = False,
) -> PlanFacts:
    """Return what the study would cost.

    Args:
        study: plan and site files.
        state: the folder of the labs' ledgers; None: nothing has been spent.
        records: training records of labs, where they are known.
        total: training records in all, where only that is known.
        runs: folder of earlier runs.
        approved: answer as if every site's operator had approved the study.

    Raises:
        InputError: no noise reaches the study's epsilon, or ``records`` names a lab that is not in the study.
    """
    asked, first = study.plan, None
    plan = asked
    if asked.awaits_scaling:
        measuring = pass_before(asked)
        first = (measuring, cost_for(measuring))
        plan = scaled(asked, measuring, by_the_bounds(asked))
    strange = sorted(set(records) - set(plan.sites))
    if strange:
        raise InputError(f"--records {strange[0]}: no lab of the study", hint=f"its labs are {', '.join(plan.sites)}")
    dimension = plan.release_size(dimension_of(plan))
    cost = cost_of(plan, dimension=dimension) if plan.private else None
    earlier = earlier_runs(plan, runs)
    known, all_records, where = _records(plan, records, total, earlier)

    def answer(site: SiteId, file: Path) -> Forecast:
        said, where = load_site(file), None if state is None else state / site
        if first is None:
            return forecast(
                plan, said, cost=cost, dimension=dimension, state=where, records=known.get(site), approved=approved
            )
        plans, costs = (first[0], plan), (first[1], cost)
        dimensions = (dimension_of(first[0]), dimension)
        return forecast_both(
            plans,
            said,
            costs=costs,
            dimensions=dimensions,
            state=where,
            records=known.get(site),
            approved=approved,
        )

    forecasts = tuple(answer(site, file) for site, file in zip(plan.sites, study.site_files, strict=True))
    rounds, meaning = plan.training.rounds, None
    columns = ({plan.min_survivors: rounds}, {len(plan.sites): rounds})
    if cost is not None:
        parts = [(cost, rounds), *([(first[1], 1)] if first is not None and first[1] is not None else [])]
        meaning = meaning_of(
            epsilon=_epsilon_of(first) + cost.epsilon(rounds),
            delta=plan.whole_privacy[1],
            profile=lambda at: delta_of_all(parts, epsilon=at),
        )
    return PlanFacts(
        plan=plan,
        cost=cost,
        dimension=dimension,
        forecasts=forecasts,
        records=all_records,
        records_from=where,
        meaning=meaning,
        by_rounds=()
        if cost is None
        else tuple((number, _epsilon_of(first) + cost.epsilon(number)) for number in _some_rounds(rounds)),
        by_epsilon=() if cost is None else _by_epsilon(plan, dimension),
        collusion=() if cost is None else _collusion(plan, cost, dimension, columns, first),
        earlier=earlier,
        ledgers=state,
        approved=approved,
        scaling=first,
        digest=asked.digest,
    )


def _epsilon_of(scaling: tuple[Plan, Cost | None] | None) -> float:
    return 0.0 if scaling is None or scaling[1] is None else scaling[1].epsilon(1)


def _collusion(
    plan: Plan,
    cost: Cost,
    dimension: int,
    columns: tuple[Mapping[int, int], Mapping[int, int]],
    scaling: tuple[Plan, Cost | None] | None,
) -> tuple[Against, ...]:
    """Return what the study, with what measured its scaling, tells whom."""
    table = collusion_table(plan, cost, dimension=dimension, columns=columns)
    if scaling is None or scaling[1] is None:
        return table
    first, once = scaling[0], tuple(dict.fromkeys(column, 1) for column in columns)
    return added(table, collusion_table(first, scaling[1], dimension=dimension_of(first), columns=once))


def _records(
    plan: Plan, records: Mapping[str, int], total: int | None, earlier: tuple[EarlierRun, ...]
) -> tuple[dict[str, int], int | None, str]:
    """Return the labs' records, their sum if it is known, and where it is from."""
    if total is not None:
        return dict(records), total, "as given"
    if set(records) == set(plan.sites):
        return dict(records), sum(records.values()), "as given"
    for run in reversed(earlier):
        if set(run.records) == set(plan.sites):
            known = run.records | dict(records)
            return known, sum(known.values()), f"from the run {run.name}"
    return dict(records), None, ""


def _some_rounds(rounds: int) -> list[int]:
    return sorted({max(1, round(share * rounds)) for share in _SHARES_OF_ROUNDS})


def _by_epsilon(plan: Plan, dimension: int) -> tuple[Noise, ...]:
    wanted = plan.study.privacy.epsilon
    rows = []
    for epsilon in sorted({*_EPSILONS, wanted or 1.0}):
        at = plan_at(plan, epsilon)
        try:
            cost, alone = cost_of(at, dimension=dimension), cost_of(at, dimension=dimension, alone=True)
        except InputError:  # no noise reaches so small an epsilon
            continue
        sites = math.sqrt(len(plan.sites))
        local = alone.noise_multiplier * sites
        share, norm = cost.share, plan.study.privacy.clipping_norm
        rows.append(
            Noise(
                epsilon=epsilon,
                noise_multiplier=cost.noise_multiplier,
                this_study=local if share is None else share.deviation * share.gamma * sites / norm,
                local=local,
                pooled=alone.noise_multiplier,
            )
        )
    return tuple(rows)


def _site_json(each: Forecast) -> dict[str, Any]:
    return {
        "fits": each.refusal is None,
        "refusal": each.refusal,
        "stops_after": each.stops_after,
        "hint": each.hint or None,
        "exit_code": each.exit_code,
        "epsilon_enforced_before": each.spent,
        "epsilon_enforced_of_this_study_alone": None if each.alone is None else _number(each.alone),
        "epsilon_enforced_after": None if each.after is None else _number(each.after),
        "epsilon_budget": None if each.policy is None else each.policy.epsilon,
        "budget_delta": None if each.policy is None else each.policy.delta,
        "records": each.records,
        "would_fit": None if each.room is None else _room_json(each.room),
    }


def _room_json(room: Room) -> dict[str, Any]:
    return {"rounds": room.rounds, "epsilon_of_rounds": room.epsilon_of_rounds, "epsilon": room.epsilon}


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else "inf"
