"""Labs that take the model and give nothing, and labs that leave out their share of the noise.

A free rider (Lin, Du, Liu 2019, Free-riders in Federated Learning, arXiv 1911.12560) does no training and gets the
model all the same; fedsci does not claim to find one. Leaving out noise is another thing: it weakens everybody's
privacy, and is covered up to ``privacy.colluding_sites`` labs.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedsci.config.masking import grid_for
from fedsci.config.study_file import StudyOnOneMachine
from fedsci.privacy.clipping import clip_rows
from fedsci.privacy.randomness import KeyStream
from fedsci.redteam.attackers import Attackers, by_count, mean, not_measured, shown
from fedsci.redteam.cohort import untrainable
from fedsci.redteam.deviating import Asked, Contribution, Deviation, deviating
from fedsci.redteam.finding import Finding
from fedsci.redteam.omitted_noise import omitted_noise
from fedsci.redteam.together import Together, Trained
from fedsci.site.round import Contributor
from fedsci.training.accountant import Share
from fedsci.training.noise_share import with_share

REPEATS = 4  # with other free riders each time: one lab's holdout is small
_CLAIM = "Who gives nothing gets no model: not claimed"


def free_riding(
    study: StudyOnOneMachine, *, seed: int, told: Callable[[str], None] = lambda text: None
) -> tuple[Finding, ...]:
    """Return what free riders gain and cost, and what is left of epsilon where labs leave out their noise."""
    together = Together.of(study)
    why = untrainable(together.plan) or (None if len(together.plan.sites) > 2 else "of two labs one is alone")
    if why is not None:
        return (not_measured("free-riding", _CLAIM, why), *omitted_noise(study, together, seed=seed, told=told))
    return (*_riding(together, seed, told), *omitted_noise(study, together, seed=seed, told=told))


def _riding(together: Together, seed: int, told: Callable[[str], None]) -> tuple[Finding, ...]:
    attackers = Attackers.of(together, seed)
    told("free riding: nobody")
    honest = [together.train() for _ in range(REPEATS)]
    ways: dict[str, Deviation] = {
        "nothing": partial(deviating, act=_nothing),
        "the last step again": _replaying,
    }
    if together.cost is not None and together.cost.share is not None:
        ways["noise only"] = partial(deviating, act=_noise_only)
    counts = tuple(sorted({1, max(attackers.counts)}))
    others: dict[str, dict[int, float | None]] = {}
    own: dict[str, dict[int, float | None]] = {}
    norms: dict[str, dict[int, float | None]] = {}
    for name, deviation in ways.items():
        others[name], own[name], norms[name] = {}, {}, {}
        for count in counts:
            told(f"free riding: {name}, {count} labs")
            runs = [attackers.train(together, deviation, count, repeat=repeat) for repeat in range(REPEATS)]
            others[name][count] = _measured(together, attackers, runs, count, own=False)
            own[name][count] = _measured(together, attackers, runs, count, own=True)
            norms[name][count] = _norm(runs)
    told("free riding: what they reach alone")
    alone = {k: mean([together.alone(attackers.bad(k, repeat=repeat)) for repeat in range(REPEATS)]) for k in counts}
    giving = {k: _measured(together, attackers, honest, k, own=True) for k in counts}
    before = {k: _measured(together, attackers, honest, k, own=False) for k in counts}
    usual = [float(np.mean(run.norms)) for run in honest if run.norms]
    most, got, reached = max(counts), mean([each[1] for each in own.values()]), alone[1]
    if got is None or reached is None or not usual:
        return (not_measured("free-riding", _CLAIM, "training breaks down"),)
    return (
        Finding(
            key="free-riding",
            claim=_CLAIM,
            attack=f"labs that train on nothing and get the model all the same; they send: {', '.join(ways)}",
            result=f"on its own held-out records one free rider gets {attackers.metric} "
            + ", ".join(f"{shown(each[1])} ({name})" for name, each in own.items())
            + f"; alone and without noise it reaches {shown(reached)}, by giving {shown(giving[1])}. With "
            f"{most} of them the others have {shown(before[most])} before, then "
            + ", ".join(f"{shown(each[most])} ({name})" for name, each in others.items())
            + ". Its record count and signatures are those of a lab that gives; the sum's norm is "
            f"{shown(min(usual))} to {shown(max(usual))} before, then "
            + ", ".join(f"{shown(each[most])} ({name})" for name, each in norms.items()),
            verdict="not protected",  # it has the model; what that is worth to it is the result
            measured={
                "metric": attackers.metric,
                "alone": by_count(alone),
                "giving": by_count(giving),
                "own": {name: by_count(each) for name, each in own.items()},
                "others": {name: by_count(each) for name, each in others.items()},
                "others_all_giving": by_count(before),
                "norms": {name: by_count(each) for name, each in norms.items()},
                "norms_all_giving": usual,
            },
            plot=attackers.plot(
                "What free riders leave to the others",
                {name: {0: before[most], **each} for name, each in others.items()},
            ),
        ),
    )


def _measured(
    together: Together, attackers: Attackers, runs: Sequence[Trained], count: int, *, own: bool
) -> float | None:
    """Return the first metric on the free riders' held-out records, or on all others'; the mean over the runs."""
    values = []
    for repeat, run in enumerate(runs):
        bad = attackers.bad(count, repeat=repeat)
        values.append(together.measure(run, {site: t for site, t in together.holdouts.items() if (site in bad) is own}))
    return mean(values)


def _norm(runs: Sequence[Trained]) -> float | None:
    return mean([float(np.mean(run.norms)) if run.norms else None for run in runs])


def _share(worker: Contributor) -> Share | None:
    return worker.share if worker.whole is None else worker.whole.share


def _nothing(asked: Asked) -> Contribution:
    """Return zeros, without noise."""
    width = asked.honest.plan.strategy.width(asked.honest.parameters)
    return np.zeros(width, np.float32) if _share(asked.honest) is None else np.zeros(width, np.int64)


def _noise_only(asked: Asked) -> Contribution:
    """Return the lab's share of noise, and nothing under it."""
    return _hidden(asked.honest, np.zeros(asked.honest.plan.strategy.width(asked.honest.parameters)))


def _replaying(worker: Contributor) -> Contributor:
    """Return the lab that sends the last step of the model, as if it had found it: scaled and noised as it should be.

    Zeros in the first round, and where a strategy sends more than updates.
    """
    last: list[NDArray[np.float32]] = []
    plan, strategy = worker.plan, worker.plan.strategy

    def act(asked: Asked) -> Contribution:
        before = last.pop() if last else asked.received
        last.append(asked.received.copy())
        width = strategy.width(worker.parameters)
        if width != asked.received.size:
            return _nothing(asked)
        step = (asked.received - before).astype(np.float64)
        if strategy.site_work == "gradient":
            step /= plan.training.learning_rate
        return step.astype(np.float32) if _share(worker) is None else _hidden(worker, step)

    return deviating(worker, act)


def _hidden(worker: Contributor, mean_step: NDArray[np.float64]) -> Contribution:
    """Return what a lab would send whose records (or which, as a whole) all said ``mean_step``, clipped and noised."""
    share, plan = _share(worker), worker.plan
    if share is None:
        return mean_step.astype(np.float32)
    records = 1.0 if worker.whole is not None else plan.training.sample_rate * worker.learner.divisor
    clipped = clip_rows(mean_step.astype(np.float32)[None], plan.study.privacy.clipping_norm)[0]
    return with_share(records * clipped, share, grid_for(plan), keystream=KeyStream(os.urandom))
