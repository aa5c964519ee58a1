"""From what an audit measured to its rows: claim, attack, result, verdict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fedsci.config.plan import Plan
from fedsci.redteam.finding import Curve, Finding, Plot, Verdict
from fedsci.redteam.lower_bounds import (
    Scores,
    effect_size,
    epsilon_of_gaussian,
    mu_of_gaussian,
    one_run,
    one_run_gaussian,
)
from fedsci.redteam.noise_checks import (
    NoiseCheck,
    check_noise,
    check_repeats,
    noise_needed,
    shape_chance,
    visible_lack,
)
from fedsci.redteam.notes import Step
from fedsci.redteam.sampling_checks import check_sampling
from fedsci.training.accountant import Cost
from fedsci.training.noised_metrics import sensitivity

_FALSE_ALARMS: Final = 0.01
"""How often an audit may accuse a correct build, all tests together."""
_TESTS: Final = 15
_LEVEL: Final = _FALSE_ALARMS / _TESTS
_POINTS: Final = 120
_ROUNDING: Final = 1e-4  # of C, between a sum and the sum of its parts
_BLIND: Final = 0.5  # a lack of noise that must show, or nothing was measured
_TELLING: Final = 2.0  # times the effect that a claim allows, which must show, or nothing was measured
_FEWEST_BYTES: Final = 160


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What was measured.

    Attributes:
        plan, cost: of the study.
        epsilon: the claim.
        rounds: that were run.
        missing: sites that were in no sum.
        scores: of the canaries.
        noise: of what is to be private: one row a sum, or a release where each site's is.
        counted: how many sites' noise is in a row.
        each: of every release of every site, one a row.
        names: of those rows.
        steps: of each site.
        longest: the longest clipped vector that was found, over C.
        apart: how far a clipped sum of several was from the sum of each one's, over C.
        masked: the highest bytes of each masked upload.
        strays: where something left that was not made of noised sums.
        metrics: noise of measurements; empty where none is noised.
        longest_measured: the longest part of one held-out record in one.
    """

    plan: Plan
    cost: Cost
    epsilon: float
    rounds: int
    missing: int
    scores: Scores
    noise: NDArray[np.float64]
    counted: int
    each: NDArray[np.float64]
    names: Sequence[str]
    steps: Sequence[Sequence[Step]]
    longest: float
    apart: float
    masked: Sequence[NDArray[np.uint8]]
    strays: Sequence[str]
    metrics: NDArray[np.float64]
    longest_measured: float

    @property
    def releases(self) -> int:
        """How many releases a record is in."""
        return self.rounds * self.cost.steps_per_round


def rows(evidence: Evidence, *, confidence: float) -> tuple[tuple[Finding, ...], float | None]:
    """Return the rows of an audit, and the largest epsilon that its canaries refute."""
    canaries, bound = _canaries(evidence, confidence)
    found = [canaries, _noise(evidence, confidence), _labs_noise(evidence, confidence), _fresh(evidence)]
    found += [_pipeline(evidence), _clipping(evidence)]
    if evidence.plan.study.secure_aggregation.enabled:
        found.append(_masks(evidence))
    if evidence.plan.study.privacy.unit != "site":
        found.append(_sampling(evidence))
    if evidence.metrics.size:
        found.append(_metrics(evidence, confidence))
    return tuple(found), bound


def _canaries(evidence: Evidence, confidence: float) -> tuple[Finding, float | None]:
    plan, delta = evidence.plan, evidence.plan.study.privacy.delta
    unit = plan.study.privacy.unit
    about: dict[str, Any] = {
        "key": "audit-epsilon",
        "claim": f"Who sees everything learns of one {unit} at most epsilon {evidence.epsilon:.4g} (delta {delta:g}).",
        "attack": _adversary(evidence),
    }
    if unit == "site" or len(evidence.scores.values) < 8:
        why = (
            "a whole lab is no record that could be planted" if unit == "site" else "there is room for too few canaries"
        )
        return Finding(
            **about, result=f"Not measured: {why}. The noise itself is, below.", verdict="not measured"
        ), None
    scores = evidence.scores
    each = 1 - (1 - confidence) / 3  # three bounds, of which the largest counts
    effect = effect_size(scores, confidence=each)
    sharp = epsilon_of_gaussian(effect.lowest, delta=delta)
    guesses = one_run(scores, delta=delta, confidence=each)
    gaussian = one_run_gaussian(scores, delta=delta, confidence=each)
    claimed = mu_of_gaussian(evidence.epsilon, delta=delta)
    seen = effect.visible(claimed, level=_LEVEL)
    broken = (
        effect.chance(claimed) < _LEVEL
        or one_run(scores, delta=delta, confidence=1 - _LEVEL) > evidence.epsilon
        or one_run_gaussian(scores, delta=delta, confidence=1 - _LEVEL) > evidence.epsilon
    )
    result = (
        f"{len(scores.values):,} canaries show at least epsilon {_number(sharp)} ({confidence:.0%} confidence, by "
        f"effect size; by one-run guesses {_number(guesses)} for any mechanism, {_number(gaussian)} for a Gaussian)."
    )
    blind = not broken and seen > _TELLING
    if blind:
        result += f" Too few to tell: {_TELLING:g} times the effect that the claim allows would not show."
    elif not broken:
        result += f" {seen:.3g} times the effect that the claim allows would show."
    measured = {
        "epsilon": evidence.epsilon,
        "delta": delta,
        "confidence": confidence,
        "canaries": len(scores.values),
        "effect_size": _finite(effect.mu),
        "visible_effect": _finite(seen),
        "lower_bound_effect_size": _finite(sharp),
        "lower_bound_one_run": _finite(guesses),
        "lower_bound_one_run_gaussian": _finite(gaussian),
    }
    verdict: Verdict = "not measured" if blind else _verdict(broken)
    plot = _roc(scores, evidence.epsilon, delta)
    finding = Finding(**about, result=result, verdict=verdict, measured=measured, plot=plot)
    return finding, max(sharp, guesses, gaussian)


def _adversary(evidence: Evidence) -> str:
    privacy = evidence.plan.study.privacy
    if evidence.cost.share is None:
        return "Canaries at every lab, through the whole pipeline; the adversary sees each lab's own releases."
    missing = f"{evidence.missing} labs missing and {privacy.colluding_sites} colluding"
    return f"Canaries through the whole pipeline, with {missing}; the adversary knows every record but the canary."


def _noise(evidence: Evidence, confidence: float) -> Finding:
    privacy, cost = evidence.plan.study.privacy, evidence.cost
    needed = noise_needed(
        epsilon=evidence.epsilon, delta=privacy.delta, sample_rate=cost.sample_rate, steps=max(1, evidence.releases)
    )
    stated = cost.noise_multiplier * privacy.clipping_norm
    if cost.share is not None:
        stated = cost.share.deviation * cost.share.gamma * math.sqrt(evidence.counted)
    check = check_noise(evidence.noise, needed=needed * privacy.clipping_norm, stated=stated, confidence=confidence)
    return _noise_row(
        check,
        noise=evidence.noise,
        key="audit-noise",
        claim="Every sum carries the noise that its epsilon needs.",
        attack="Chi-square test of what was released, less the exact sum.",
        confidence=confidence,
    )


def _metrics(evidence: Evidence, confidence: float) -> Finding:
    privacy, noise = evidence.plan.study.privacy, evidence.cost.metric_noise
    steps = noise.measurements if noise is not None else 1
    needed = noise_needed(epsilon=evidence.epsilon, delta=privacy.delta, sample_rate=1.0, steps=steps)
    wanted = needed * sensitivity(evidence.plan)
    stated = noise.share.deviation * noise.share.gamma * math.sqrt(evidence.counted) if noise is not None else wanted
    return _noise_row(
        check_noise(evidence.metrics, needed=wanted, stated=stated, confidence=confidence),
        noise=evidence.metrics,
        too_long=evidence.longest_measured > sensitivity(evidence.plan) * (1 + 1e-9),
        key="audit-metrics",
        claim="Measurements on held-out records carry the noise that their epsilon needs.",
        attack="Chi-square test of the noised sums, less the exact ones.",
        confidence=confidence,
    )


def _labs_noise(evidence: Evidence, confidence: float) -> Finding:
    """Of every lab's own releases: one without its share would hide among the others'."""
    share = evidence.cost.share
    own = evidence.cost.noise_multiplier * evidence.plan.study.privacy.clipping_norm
    stated = own if share is None else share.deviation * share.gamma
    return _noise_row(
        check_noise(evidence.each, needed=stated, stated=stated, confidence=confidence),
        noise=evidence.each,
        key="audit-labs-noise",
        claim="Every lab adds its share of the noise in every round, and it is Gaussian.",
        attack="Chi-square and kurtosis of what each lab released, less its exact sum.",
        confidence=confidence,
    )


def _masks(evidence: Evidence) -> Finding:
    """Of masked uploads: uniform in their highest byte, where a sum without masks has hardly any."""
    about: dict[str, Any] = {
        "key": "audit-masks",
        "claim": "What a lab sends is masked: to whoever lacks the others' secrets it looks like chance.",
        "attack": "Chi-square test of the highest byte of each number of every upload, for each and all together.",
    }
    numbers = sum(len(upload) for upload in evidence.masked)
    if numbers == 0:
        return Finding(**about, result="The study asks for masks, and not one upload was masked.", verdict="broken")
    if numbers < _FEWEST_BYTES:
        return Finding(**about, result=f"Not measured: {numbers} numbers are too few.", verdict="not measured")
    views = [np.concatenate(evidence.masked), *(one for one in evidence.masked if len(one) >= 80)]
    chance = min(1.0, len(views) * min(_uniform(view) for view in views))
    result = f"{numbers:,} numbers of {len(evidence.masked):,} uploads are as uniform as chance (p = {chance:.2g})."
    if chance < _LEVEL:
        result = f"{numbers:,} numbers of {len(evidence.masked):,} uploads are not uniform: something is not masked."
    return Finding(
        **about, result=result, verdict=_verdict(chance < _LEVEL), measured={"numbers": numbers, "p": chance}
    )


def _uniform(values: NDArray[np.uint8]) -> float:
    """Return the p-value of a chi-square test, over 16 bins: each is expected five times or more."""
    counts = np.bincount(values >> 4, minlength=16)
    return float(stats.chisquare(counts).pvalue)


def _noise_row(
    check: NoiseCheck,
    *,
    noise: NDArray[np.float64],
    key: str,
    claim: str,
    attack: str,
    confidence: float,
    too_long: bool = False,
) -> Finding:
    little, odd = check.too_little < _LEVEL, check.unexplained < _LEVEL
    shape, seen = shape_chance(noise), visible_lack(check.numbers, level=_LEVEL / 3)
    result = f"{check.numbers:,} numbers: {check.ratio:.4g} times the noise that is needed"
    if too_long:
        result += "; but one record's part is longer than the noise is made for."
    elif shape < _LEVEL and not little:
        result += "; its tails are not a Gaussian's."
    elif little:
        result += (
            f", at most {check.highest:.4g} ({confidence:.0%} confidence), or too little in some coordinate or round."
        )
    elif odd:
        result += ": more than the plan states, so what was noised is not the sum of clipped records."
    else:
        result += f"; a lack of {seen:.2g} of it would show." if seen < _BLIND else "; too few to tell."
    measured = {
        "numbers": check.numbers,
        "visible_lack": seen,
        "p_shape": shape,
        "ratio": check.ratio,
        "highest": check.highest,
        "p_too_little": check.too_little,
        "p_unexplained": check.unexplained,
    }
    broken = little or odd or too_long or shape < _LEVEL
    verdict: Verdict = "broken" if broken else "holds" if seen < _BLIND else "not measured"
    return Finding(key=key, claim=claim, attack=attack, result=result, verdict=verdict, measured=measured)


def _fresh(evidence: Evidence) -> Finding:
    check = check_repeats(evidence.each, evidence.names)
    inside = check_repeats(evidence.each.T, [f"number {at}" for at in range(evidence.each.shape[1])])
    check = min(check, inside, key=lambda one: one.chance) if check.pairs else check
    broken = check.chance < _LEVEL
    restarted = 1 <= evidence.plan.training.rounds // 2 < evidence.rounds  # in a single round there is no half-way
    result = f"{check.pairs:,} pairs of releases compared: largest correlation {check.largest:.3f}"
    result += (
        f", between {check.where[0]} and {check.where[1]}: noise that is used again." if broken else ", as by chance."
    )
    return Finding(
        key="audit-fresh-noise",
        claim="Noise is never used twice: not by two labs, in two rounds or within one"
        + (", or after a restart." if restarted else "."),
        attack="Correlation of the noise of all releases, and of all coordinates; "
        + ("a restart half-way." if restarted else "no restart, as no round came after one half-way."),
        result=result if check.pairs else "Not measured: there is one release, or they are too short.",
        verdict=_verdict(broken) if check.pairs else "not measured",
        measured={"pairs": check.pairs, "largest": check.largest, "p": check.chance},
    )


def _pipeline(evidence: Evidence) -> Finding:
    strays = list(evidence.strays)
    result = (
        "What each lab sent was made again from its noised sums alone, bit for bit; the coordinator's sums are theirs."
    )
    if strays:
        more = f" and {len(strays) - 1} more" if len(strays) > 1 else ""
        result = f"Not so: {strays[0]}{more}. Something left without passing through the noise."
    return Finding(
        key="audit-pipeline",
        claim="No update leaves a lab but noised sums, each once, and no metrics without the noise they need.",
        attack="Each contribution is made again without any record, from what was released inside, and compared.",
        result=result,
        verdict=_verdict(bool(strays)),
        measured={"rounds": evidence.rounds, "strays": len(strays)},
    )


def _clipping(evidence: Evidence) -> Finding:
    about: dict[str, Any] = {
        "key": "audit-clipping",
        "claim": f"No {evidence.plan.study.privacy.unit} moves a sum by more than the clipping norm.",
        "attack": "Single records, as they are and a thousand times out of bounds, through the lab's own clipping.",
    }
    if evidence.plan.study.privacy.unit == "site":
        result = "Not measured one by one: what a lab's update was clipped to shows in the noise, above."
        return Finding(**about, result=result, verdict="not measured")
    broken = evidence.longest > 1 or not evidence.longest > 0 or evidence.apart > _ROUNDING
    result = f"The longest that was found is {evidence.longest:.6f} times the clipping norm"
    result += ", and several together are the sum of each." if evidence.apart <= _ROUNDING else "; but in company: not."
    return Finding(**about, result=result, verdict=_verdict(broken), measured={"longest": evidence.longest})


def _sampling(evidence: Evidence) -> Finding:
    check = check_sampling(evidence.steps, sample_rate=evidence.cost.sample_rate)
    broken = check.twice > 0 or check.chance < _LEVEL
    result = (
        f"{check.steps:,} samples: a record is in {check.rate:.4g} of them, {evidence.cost.sample_rate:.4g} is charged"
    )
    if check.twice:
        result += f"; {check.twice:,} times a record was counted twice."
    else:
        result += f"; {check.odd} is not as charged." if broken else "; no record twice."
    return Finding(
        key="audit-sampling",
        claim="Who is in a step is decided as it is charged: each record by a coin of its own, once at most.",
        attack="Rate, sizes and overlaps of all samples, against those of Poisson sampling.",
        result=result,
        verdict=_verdict(broken),
        measured={"steps": check.steps, "rate": check.rate, "twice": check.twice, "p": check.chance},
    )


def _roc(scores: Scores, epsilon: float, delta: float) -> Plot:
    order = np.argsort(-scores.values, kind="stable")
    hits, alarms = np.cumsum(scores.present[order]), np.cumsum(~scores.present[order])
    at = np.unique(np.linspace(0, len(order) - 1, _POINTS).astype(np.int64))
    seen = [(0.0, 0.0)] + [(float(alarms[i] / max(1, alarms[-1])), float(hits[i] / max(1, hits[-1]))) for i in at]
    x = np.linspace(0.0, 1.0, _POINTS)
    most = np.minimum(1.0, np.minimum(np.exp(epsilon) * x + delta, 1 - np.exp(-epsilon) * (1 - delta - x)))
    return Plot(
        title="How well canaries are told apart",
        x="canaries that are not there, called present",
        y="canaries that are there, found",
        curves=(
            Curve(name="measured", points=tuple(seen)),
            Curve(name="most that the claim allows", points=tuple(zip(x.tolist(), most.tolist(), strict=True))),
            Curve(name="by chance", points=((0.0, 0.0), (1.0, 1.0))),
        ),
    )


def _verdict(broken: bool) -> Verdict:
    return "broken" if broken else "holds"


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "infinite"


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else "inf"
