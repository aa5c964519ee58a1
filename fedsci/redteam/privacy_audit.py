"""``fedsci privacy audit``: what a study promises of a record, against what can be measured of it.

Everything is measured on whole runs: sampling, clipping and noise at the sites, masks, and the sums that the
coordinator opens. Of the adversary the promise is taken at its word: it knows every record but one, sees every sum, and
has ``colluding_sites`` sites on its side, while as many others are missing as may be.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedsci.config.masking import grid_for
from fedsci.config.study_file import StudyOnOneMachine
from fedsci.names import SiteId
from fedsci.redteam.audit_rows import Evidence, rows
from fedsci.redteam.audited_run import AuditedRun, audited_run, plan_of_audit
from fedsci.redteam.finding import Finding, Overall, overall
from fedsci.redteam.lower_bounds import Scores
from fedsci.redteam.notes import Step

CONFIDENCE: Final = 0.99


@dataclass(frozen=True, kw_only=True)
class PrivacyAudit:
    """What an audit found.

    Attributes:
        study: its name.
        epsilon, delta: the claim: the least that the study, or a ledger after the run, says a record was charged.
        lower_bound: the largest epsilon that is refuted at :data:`CONFIDENCE`; None where nothing could be planted.
        findings: row by row.
    """

    study: str
    epsilon: float
    delta: float
    lower_bound: float | None
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against the claim."""
        return self.verdict != "broken"

    @property
    def verdict(self) -> Overall:
        """What the rows say together."""
        return overall(finding.verdict for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the audit, JSON-ready."""
        bound = self.lower_bound
        return {
            "study": self.study,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "confidence": CONFIDENCE,
            "lower_bound": None if bound is None else bound if math.isfinite(bound) else "inf",
            "verdict": self.verdict,
            "findings": [finding.to_json() for finding in self.findings],
        }


def audit_privacy(
    study: StudyOnOneMachine, *, seed: int, runs: int = 1, told: Callable[[str], None] = lambda text: None
) -> PrivacyAudit:
    """Return what ``runs`` audited runs of the study say of its promise.

    Budgets and ledgers are fresh ones: nothing is charged to the labs' own. Nothing of the records leaves but whether
    the promise holds: what is looked at is noise, and canaries.

    Args:
        study: a private study with simulated labs.
        seed: tosses the canaries' coins.
        runs: more canaries than one run has room for; each costs one run's time.
        told: hears how far it is.

    Raises:
        InputError: the study promises no epsilon, or cannot be audited.
        FedsciError: a run did not complete.
    """
    audited, rng = plan_of_audit(study), np.random.default_rng(seed)
    found = []
    for number in range(1, runs + 1):
        which = f"audit, run {number} of {runs}: " if runs > 1 else "audit: "
        found.append(audited_run(audited, rng, told=partial(_told, told, which)))
    evidence = gather(found)
    findings, bound = rows(evidence, confidence=CONFIDENCE)
    return PrivacyAudit(
        study=audited.plan.study.study,
        epsilon=evidence.epsilon,
        delta=audited.plan.study.privacy.delta,
        lower_bound=bound,
        findings=findings,
    )


def _told(told: Callable[[str], None], which: str, text: str) -> None:
    told(which + text)


def gather(runs: Sequence[AuditedRun]) -> Evidence:
    """Return what the notes of some runs of one study come to."""
    first = runs[0]
    each = [_site_noise(run) for run in runs]
    names = [f"{'' if len(runs) == 1 else f'run {n}, '}{name}" for n, (_, own) in enumerate(each, 1) for name in own]
    noise = np.concatenate([found for found, _ in each])
    scores = [_scores(run) for run in runs]
    steps = [
        [step for number in sorted(run.sums) for step in run.notes.of(site, number).steps]
        for run in runs
        for site in run.canaries
    ]
    return Evidence(
        plan=first.plan,
        cost=first.cost,
        epsilon=min(run.epsilon for run in runs),
        rounds=first.rounds,
        missing=len(first.plan.sites) - len(first.survivors.get(1, ())),
        scores=Scores(
            values=np.concatenate([one.values for one in scores]),
            present=np.concatenate([one.present for one in scores]),
        ),
        noise=np.concatenate([_noise_of_sums(run) for run in runs]) if first.shared else noise,
        counted=len(first.honest) if first.shared else 1,
        each=noise,
        names=names,
        steps=steps,
        longest=max(_most(run, "longest") for run in runs),
        apart=max(_most(run, "apart") for run in runs),
        masked=[found for run in runs for found in _masked(run)],
        strays=[stray for run in runs for stray in _strays(run)],
        metrics=np.concatenate([_noise_of_metrics(run) for run in runs]),
        longest_measured=max(_longest_measured(run) for run in runs),
    )


def _scores(run: AuditedRun) -> Scores:
    """Return one score a canary: its coordinate of all that was released, less everybody else's part, over C."""
    bound, values, present = run.plan.study.privacy.clipping_norm, [], []
    whole = np.sum(_less_data(run), axis=0) if run.shared and run.sums else np.zeros(len(run.columns))
    for site, canaries in run.canaries.items():
        seen = whole
        if not run.shared:
            releases = [step.released - step.data for step in _steps(run, site)]
            seen = np.sum(releases, axis=0) if releases else np.zeros(len(run.columns))
        values.append(seen[np.searchsorted(run.columns, canaries.columns)] * canaries.signs / bound)
        present.append(canaries.present)
    if run.plan.study.privacy.unit == "site":  # a site is no record that could be planted
        return Scores(values=np.zeros(0), present=np.zeros(0, np.bool_))
    return Scores(values=np.concatenate(values), present=np.concatenate(present))


def _less_data(run: AuditedRun) -> list[NDArray[np.float64]]:
    """Return each round's sum in units of gradients, less colluders' releases and honest sites' own records."""
    sign = -1.0 if run.plan.strategy.site_work == "gradient" else 1.0
    found = []
    for number, total in sorted(run.sums.items()):
        seen = sign * total
        for site in run.survivors[number]:
            for step in run.notes.of(site, number).steps:
                seen = seen - (step.data if site in run.honest else step.released)
        found.append(seen)
    return found


def _noise_of_sums(run: AuditedRun) -> NDArray[np.float64]:
    """Return what is left of each round's sum without records and canaries: the noise that counts."""
    canaries = [
        sum(
            (step.canaries for site in run.honest for step in run.notes.of(site, number).steps),
            np.zeros(len(run.columns)),
        )
        for number in sorted(run.sums)
    ]
    return np.array([seen - own for seen, own in zip(_less_data(run), canaries, strict=True)]).reshape(
        -1, len(run.columns)
    )


def _site_noise(run: AuditedRun) -> tuple[NDArray[np.float64], list[str]]:
    """Return the noise of every release of every site, and what to call it."""
    found, names = [], []
    for site in run.plan.sites:
        for number in sorted(run.sums):
            for step in run.notes.of(site, number).steps:
                found.append(step.noise)
                names.append(f"{site} in round {number}")
    return np.array(found).reshape(-1, len(run.columns)), names


def _steps(run: AuditedRun, site: SiteId) -> list[Step]:
    return [step for number in sorted(run.sums) for step in run.notes.of(site, number).steps]


def _most(run: AuditedRun, what: str) -> float:
    found = (getattr(run.notes.of(site, number), what) for site in run.plan.sites for number in run.sums)
    return max(found, default=0.0)


def _masked(run: AuditedRun) -> list[NDArray[np.uint8]]:
    """Return the highest bytes of each masked upload."""
    uploads = (run.notes.of(site, number).masked for site in run.plan.sites for number in sorted(run.sums))
    return [upload for upload in uploads if upload is not None]


def _longest_measured(run: AuditedRun) -> float:
    """Return the longest part of one held-out record in a noised measurement."""
    return max((one.longest for site in run.plan.sites for one in run.notes.measurements(site)), default=0.0)


def _strays(run: AuditedRun) -> list[str]:
    """Return where something left that was not made of noised sums, in words."""
    found = [
        f"{site}, round {number}"
        for number in sorted(run.sums)
        for site in run.survivors[number]
        if not run.notes.of(site, number).follows or len(run.notes.of(site, number).steps) != run.cost.steps_per_round
    ]
    found += [
        f"{site}, round {number}: its reply also held {run.notes.of(site, number).extra}"
        for number in sorted(run.sums)
        for site in run.plan.sites
        if run.notes.of(site, number).extra
    ]
    found += run.notes.exact
    share, grid = run.cost.share, grid_for(run.plan)
    for number, total in sorted(run.sums.items()):
        expected, slack = np.zeros(len(run.columns)), 0.0
        for site in run.survivors[number]:
            sent = run.notes.of(site, number).sent
            if sent is None:
                continue
            expected = expected + sent * (share.gamma if share is not None else run.weights[site])
            slack += 0.0 if share is not None or not run.plan.study.secure_aggregation.enabled else grid.error_bound
        slack += 1e-6 * float(np.abs(expected).max(initial=0.0))
        if not np.allclose(total, expected, rtol=0.0, atol=slack):
            found.append(f"the sum of round {number}")
    return found


def _noise_of_metrics(run: AuditedRun) -> NDArray[np.float64]:
    """Return the noise of each noised measurement's sum over the sites that count."""
    told = [run.notes.measurements(site) for site in run.honest]
    count = min((len(one) for one in told), default=0)
    if count == 0:
        return np.zeros((0, 0))
    if not run.shared:
        return np.array([each.released - each.exact for one in told for each in one[:count]])
    return np.array([sum(one[i].released - one[i].exact for one in told) for i in range(count)])
