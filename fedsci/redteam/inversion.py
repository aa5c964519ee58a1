"""Can a record be rebuilt from what a lab sends? Gradient inversion on what the coordinator sees of a real run.

A first layer of weights W and bias b that sees the whole record x has, of that record, the gradients ``d x`` and
``d``, one d a unit: their quotient is the record (Phong et al. 2018, IEEE TIFS 13; Zhu et al. 2019, arXiv 1906.08935;
Geiping et al. 2020, arXiv 2003.14053). The same holds of an update by any number of steps on one record. Over units and
rounds the quotient is taken by least squares: ``sum b W / sum b^2``.

The attacker knows what records are like: a guess without any update is the mean of other labs' records of the same
class. An error is measured against the guess's: 1 is no better, 0 is the record itself.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.config.masking import grid_for, terms_for
from fedsci.config.plan import Plan
from fedsci.config.study_file import StudyOnOneMachine
from fedsci.data.table import Table, concatenate
from fedsci.errors import FedsciError
from fedsci.names import SiteId
from fedsci.redteam.cohort import untrainable, worker_of
from fedsci.redteam.finding import Curve, Finding, Plot, Verdict, words_for
from fedsci.redteam.wiretap import Heard, read_along, variant
from fedsci.site.charging import cost_for, dimension_of
from fedsci.training.learner import module_for
from fedsci.training.models import layout_of

Vector = NDArray[np.float64]

#: Rounds of the noised run, at the study's epsilon: what a record tells in all of them is the same with more.
ROUNDS = 10
VICTIMS = 40
#: The control works if errors are this small a part of the guess's.
_REBUILT = 0.1
_LARGEST = 1e12
_CLAIMS = {
    "inversion-control": "None: an update without mask and noise may show the record it was made from",
    "inversion-masked": "What a lab sends under secure aggregation shows nothing of its records",
    "inversion-sum": "None: masks hide a lab among the others, not from who knows what the others sent",
    "inversion": "No single record can be rebuilt from what the coordinator sees of the study",
}
_ATTACKS = {
    "inversion-control": "the coordinator divides gradients of weights by those of biases; labs of one record each",
    "inversion-masked": "the same, on the masked uploads of labs of one record each, without noise",
    "inversion-sum": "the same, on the opened sum without noise, by a coordinator that knows all other labs' records",
    "inversion": "the same, on {view} of all {rounds} rounds with the study's noise, by a coordinator that knows all "
    "other records",
}


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """Records and what the attack made of them, row by row, encoded; float64 ``(victims, inputs)``.

    Attributes:
        records: the real ones.
        found: the attack's.
        guesses: the mean of other labs' records of the same class.
    """

    records: Vector
    found: Vector
    guesses: Vector

    @property
    def errors(self) -> Vector:
        """The attack's squared error over the guess's, ``(victims,)``."""
        wrong, guessed = (np.square(each - self.records).sum(1) for each in (self.found, self.guesses))
        errors: Vector = np.clip(wrong / np.maximum(guessed, 1e-12), 1 / _LARGEST, _LARGEST)
        return errors

    @property
    def error(self) -> tuple[float, float, float]:
        """The geometric mean of the errors, and its 95 % interval."""
        logs = np.log(self.errors)
        width = 1.96 * logs.std(ddof=1) / math.sqrt(len(logs)) if len(logs) > 1 else 2 * math.log(_LARGEST)
        mean, low, high = (float(np.exp(v)) for v in (logs.mean(), logs.mean() - width, logs.mean() + width))
        return mean, low, high

    def likeness(self, of: Vector, to: Vector | None = None) -> float:
        """Return the mean correlation of ``of`` with the real records, or ``to``; what is constant has none, 0."""
        to = self.records if to is None else to
        pairs = zip(of - of.mean(1, keepdims=True), to - to.mean(1, keepdims=True), strict=True)
        lengths = [(float(a @ b), float(np.linalg.norm(a) * np.linalg.norm(b))) for a, b in pairs]
        return float(np.mean([product / norm if norm > 1e-12 else 0.0 for product, norm in lengths]))

    def to_json(self) -> dict[str, Any]:
        """Return it for ``Finding.measured``; nothing of a record itself, which the results must not show."""
        value, low, high = self.error
        return {
            "victims": len(self.records),
            "error_over_guess": {"value": value, "low": low, "high": high},
            "correlation": self.likeness(self.found),
            "correlation_of_guess": self.likeness(self.guesses),
            "correlation_beyond_guess": self.likeness(self.found, self.records - self.guesses),
        }

    def __str__(self) -> str:
        value, low, high = self.error
        return (
            f"error {value:.2g} of the best guess's ({low:.2g} to {high:.2g}) over {len(self.records)} records; "
            f"correlation with the record {self.likeness(self.found):.2f}, the guess {self.likeness(self.guesses):.2f}"
        )


def rebuild(parts: Iterable[NDArray[Any]], *, units: int, inputs: int) -> Vector:
    """Return the record that gradients or updates of a first layer were made from, float64 ``(inputs,)``.

    Args:
        parts: one vector a round, each beginning with weights ``(units, inputs)`` and biases ``(units,)``.
        units, inputs: of the layer.
    """
    top, bottom = np.zeros(inputs), 0.0
    for part in parts:
        weights = part[: units * inputs].astype(np.float64).reshape(units, inputs)
        bias = part[units * inputs : units * (inputs + 1)].astype(np.float64)
        top, bottom = top + bias @ weights, bottom + float(bias @ bias)
    return top / bottom if bottom > 0 else top


@dataclass(frozen=True, kw_only=True, eq=False)
class Attacker:
    """Who has heard a run, and knows what records of other labs are like."""

    plan: Plan
    heard: Heard

    @property
    def sites(self) -> Sequence[SiteId]:
        """The labs that were heard."""
        return sorted(self.heard.tables)

    @property
    def rounds(self) -> Sequence[int]:
        """The rounds that were heard."""
        return sorted(self.heard.received)

    def from_uploads(self) -> Rebuilt:
        """Return the first record of each lab, rebuilt from its upload of the first round, masked or not."""
        return self._judged(
            [(site, 0) for site in self.sites], [[self._plain(self.heard.uploads[site, 1])] for site in self.sites]
        )

    def knowing_all_others(self, victims: Sequence[tuple[SiteId, int]], *, masked: bool) -> Rebuilt:
        """Return records (lab, row), each rebuilt by who knows all others and subtracts what they would have sent.

        Masked, from the sum over labs; else from the lab's own upload.
        """
        known = {
            (site, number): self._computed(site, self.heard.tables[site], number)
            for site in self.sites
            for number in self.rounds
        }
        opened = {key: self._unmasked(*key) for key in known}
        parts = []
        for site, row in victims:
            table = self.heard.tables[site]
            rest = table.where(np.arange(table.rows) != row)
            of = self.sites if masked else [site]
            parts.append(
                [
                    sum(opened[lab, number] - known[lab, number] for lab in of)
                    + known[site, number]
                    - self._computed(site, rest, number)
                    for number in self.rounds
                ]
            )
        return self._judged(victims, parts)

    def some(self, victims: int, rng: np.random.Generator) -> list[tuple[SiteId, int]]:
        """Return at most so many records of all labs, as lab and row."""
        every = [(site, row) for site in self.sites for row in range(self.heard.tables[site].rows)]
        return [every[at] for at in rng.permutation(len(every))[:victims]]

    def _computed(self, site: SiteId, table: Table, number: int) -> Vector:
        """Return what the lab would contribute with these records, without noise; as a sum over records."""
        if table.rows == 0:
            return np.zeros(dimension_of(self.plan))
        public = self.heard.counts[site]
        worker = worker_of(self.plan, table, records=public, name=site, quiet=True)
        mean = worker.contribution(self.heard.received[number], number, memory={})
        gradient = not self.plan.private and self.plan.strategy.site_work == "gradient"
        return mean.astype(np.float64) * (table.rows if gradient else public)

    def _unmasked(self, site: SiteId, number: int) -> Vector:
        """Return what the lab did contribute, as a sum over records."""
        hidden = self.heard.hidden[site, number]
        cost = cost_for(self.plan)
        if hidden.dtype.kind == "i" and cost is not None and cost.share is not None:
            return np.asarray(hidden * cost.share.gamma, np.float64)
        return np.asarray(hidden * float(self.heard.counts[site]), np.float64)

    def _plain(self, upload: NDArray[Any]) -> NDArray[Any]:
        """Return an upload as numbers; of ring elements those next to zero that they may stand for."""
        return grid_for(self.plan).ring.to_signed(upload) if upload.dtype.kind == "u" else upload

    def _judged(self, victims: Sequence[tuple[SiteId, int]], parts: Sequence[Sequence[NDArray[Any]]]) -> Rebuilt:
        inputs = self.heard.tables[self.sites[0]].features.shape[1]
        units = layout_of(module_for(self.plan, inputs=inputs)).entries[1][1][0]
        everything = concatenate([self.heard.tables[site] for site in self.sites]).features
        low, high = everything.min(), everything.max()  # for the schema's bounds, which are public
        records, found, guesses = [], [], []
        for (site, row), part in zip(victims, parts, strict=True):
            table = self.heard.tables[site]
            records.append(table.features[row])
            found.append(np.clip(rebuild(part, units=units, inputs=inputs), low, high))
            guesses.append(self._guess(site, table.target[row]))
        rows = [np.array(each, np.float64) for each in (records, found, guesses)]
        return Rebuilt(records=rows[0], found=rows[1], guesses=rows[2])

    def _guess(self, victim: SiteId, target: Any) -> Vector:
        others = concatenate([self.heard.alike[site] for site in self.sites if site != victim])
        alike = others.features
        if self.plan.study.task.kind != "regression" and (others.target == target).any():
            alike = others.features[others.target == target]
        return np.asarray(alike.mean(0), np.float64)


def inversion(
    study: StudyOnOneMachine,
    *,
    seed: int,
    told: Callable[[str], None] = lambda text: None,
    victims: int = VICTIMS,
    most_rounds: int = ROUNDS,
) -> tuple[Finding, ...]:
    """Return what the attack rebuilds of plain uploads, of masked ones, of their sum, and of the study as it is.

    Args:
        study: its plan and labs.
        seed: of the choice of victims.
        told: hears how far it is.
        victims: records that are attacked in the study as it is.
        most_rounds: of it; fewer than the study's have less noise, so that the epsilon is the same.
    """
    plan, rows = study.plan, list[Finding]()
    reason = untrainable(plan) or _unfit(plan)
    if reason is not None:
        return (_unmeasured("inversion", reason),)
    try:
        told("inversion: a run of labs with one record each, without mask and noise")
        bare = _read(study, rounds=1, private=False, masked=False, records=1).from_uploads()
        works = bare.error[2] < _REBUILT
        rows.append(_finding("inversion-control", bare, "control" if works else "not measured"))
        unmaskable = _unmaskable(plan)
        if unmaskable is None:
            told("inversion: the same run, masked")
            attacker = _read(study, rounds=1, private=False, masked=True, records=1)
            rows.append(_judged("inversion-masked", attacker.from_uploads(), control=bare, works=works))
            known = attacker.knowing_all_others([(site, 0) for site in attacker.sites], masked=True)
            works = known.error[2] < _REBUILT
            rows.append(_finding("inversion-sum", known, "control" if works else "not measured"))
        else:
            rows.append(_unmeasured("inversion-masked", unmaskable))
        if plan.private and plan.study.privacy.unit == "site":
            rows.append(_unmeasured("inversion", "the study hides whole labs, which a record's update is a part of"))
        elif plan.private:
            told("inversion: the study as it is")
            masked, rounds = plan.study.secure_aggregation.enabled, min(most_rounds, plan.training.rounds)
            attacker = _read(study, rounds=rounds, private=True, masked=masked)
            chosen = attacker.some(victims, np.random.default_rng(seed))
            found = attacker.knowing_all_others(chosen, masked=masked)
            words = {"rounds": rounds, "view": "the opened sums" if masked else "a lab's uploads"}
            rows.append(_judged("inversion", found, control=bare, works=works, words=words))
    except FedsciError as error:
        rows.append(_unmeasured("inversion", f"a run did not complete: {words_for(error)}"))
    return tuple(rows)


def _read(
    study: StudyOnOneMachine, *, rounds: int, private: bool, masked: bool, records: int | None = None
) -> Attacker:
    changed = variant(study, rounds=rounds, private=private, masked=masked)
    return Attacker(plan=changed.plan, heard=read_along(changed, records=records))


def _unfit(plan: Plan) -> str | None:
    if plan.strategy.site_work == "statistics" or not plan.strategy.plain:
        return f"what labs send under {plan.strategy.name} is not a plain update"
    if plan.study.model.name == "cnn":
        return "no layer of a cnn sees the whole record, so this closed form rebuilds none"
    return "the first layer's bias is normalised away" if plan.study.model.normalised else None


def _unmaskable(plan: Plan) -> str | None:
    if plan.strategy.sees == "each":
        return f"{plan.strategy.name} must see each update, so none can be masked"
    try:
        terms_for(plan)
    except FedsciError as error:
        return error.message
    return None


def _judged(
    key: str, found: Rebuilt, *, control: Rebuilt, works: bool, words: Mapping[str, Any] | None = None
) -> Finding:
    """Return the finding on something protected: broken if its records are rebuilt better than guessed."""
    verdict: Verdict = "broken" if found.error[2] < 1 else "holds" if works else "not measured"
    lines = []
    for name, one in (("without mask and noise", control), ("as protected", found)):
        errors = np.sort(np.log10(one.errors))
        lines.append(Curve(name=name, points=tuple((at / len(errors), float(v)) for at, v in enumerate(errors, 1))))
    lines.append(Curve(name="the best guess", points=((0.0, 0.0), (1.0, 0.0))))
    plot = Plot(
        title="How near rebuilt records come to the real ones",
        x="share of the records, the best rebuilt first",
        y="squared error, log10 of the best guess's",
        curves=tuple(lines),
    )
    return _finding(key, found, verdict, words=words, plot=plot)


def _finding(
    key: str,
    found: Rebuilt,
    verdict: Verdict,
    *,
    words: Mapping[str, Any] | None = None,
    plot: Plot | None = None,
) -> Finding:
    weak = "the attack does not work even without protection: " if verdict == "not measured" else ""
    return Finding(
        key=key,
        claim=_CLAIMS[key],
        attack=_ATTACKS[key].format(**(words or {})),
        result=f"{weak}{found}",
        verdict=verdict,
        measured=found.to_json(),
        plot=plot,
    )


def _unmeasured(key: str, reason: str) -> Finding:
    attack = "rebuild records from gradients of weights and biases"
    return Finding(key=key, claim=_CLAIMS[key], attack=attack, result=reason, verdict="not measured")
