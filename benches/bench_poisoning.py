"""Three of the 17 labs of the built-in digits study turn their updates round: what is left of the accuracy.

Usage: python benches/bench_poisoning.py [--seeds 5] [--rounds 60] [--bad 3] [--scale 1 5]

An attacker trains as all do, and sends minus ``scale`` times its update. Without privacy and in one process: the same
contributions and rules as in a study, no messages. Accuracy is over all labs' holdouts; the mean over the seeds, each
with attackers of its own, and the worst seed. ``kept`` is against FedAvg without attackers.
"""

import argparse
from dataclasses import replace

import numpy as np

from fedsci.config.plan import Plan
from fedsci.config.shipped import shipped
from fedsci.config.site import load_site
from fedsci.config.study_file import load_study
from fedsci.data.table import concatenate
from fedsci.errors import RoundAborted
from fedsci.site.dataset import SiteData, load_site_data
from fedsci.site.round import Work, contributor
from fedsci.strategies.base import Survivor, WeightedSum
from fedsci.training.device import CPU
from fedsci.training.evaluation import evaluate
from fedsci.training.metrics import finish, half_range
from fedsci.training.models import initial_vector

RECIPES = [
    ("fedavg", {}),
    ("coordinate_median", {}),
    ("trimmed_mean", {}),
    ("krum", {}),
    ("krum", {"multi": 1.0}),
    ("coordinate_median_groups", {"groups": 3.0}),
    ("coordinate_median_groups", {"groups": 5.0}),
    ("coordinate_median_groups", {"groups": 8.0}),
    ("trimmed_mean_groups", {"groups": 8.0, "trim": 0.38}),
]


def digits(recipe: str, options: dict[str, float], *, seed: int, rounds: int) -> tuple[Plan, list[SiteData]]:
    """Return the plan with this recipe, and every lab's records."""
    settings = [f"strategy={recipe}", "privacy.mechanism=none", "evaluation.metrics=[accuracy]"]
    settings += ["secure_aggregation={enabled: false}", f"training={{rounds: {rounds}}}"]
    study = load_study(shipped("examples") / "digits" / "study.yaml", overrides=settings, seed=seed)
    changed = study.plan.recipe.model_copy(update={"options": {**study.plan.recipe.options, **options}})
    plan = replace(study.plan, recipe=changed)
    sites = [load_site(file) for file in study.site_files]
    return plan, [load_site_data(plan, site, split_key=b"") for site in sites]


def accuracy(plan: Plan, labs: list[SiteData], *, bad: set[int], scale: float) -> float:
    """Return the accuracy of the final model, with these labs as attackers; 0 where training broke down."""
    workers = [
        contributor(plan, str(site), lab.train, cost=None, device=CPU, random_bytes=lambda n: bytes(n))
        for site, lab in zip(plan.sites, labs, strict=True)
    ]
    strategy, records = plan.strategy, sum(lab.train_count for lab in labs)
    state = strategy.start(initial_vector(workers[0].learner.module, seed=plan.study.seed))
    memories: list[dict[str, np.ndarray]] = [{} for _ in workers]
    for number in range(1, plan.training.rounds + 1):
        sent, each, survivors, total = strategy.sends(state), {}, [], np.zeros(strategy.width(state.model.size))
        for place, (worker, lab) in enumerate(zip(workers, labs, strict=True)):
            steps = plan.local_steps(lab.train_count)
            work = Work(contributor=worker, received=sent, number=number, memory=memories[place], steps=steps)
            contribution = strategy.contribute(work) * np.float32(-scale if place in bad else 1)
            weight = lab.train_count / records
            each[place], total = contribution, total + weight * contribution
            survivors.append(Survivor(position=place, weight=weight, steps=work.steps))
        summed = WeightedSum(
            vector=total.astype(np.float32), weight=1.0, survivors=tuple(survivors), each=each, momentum=0.0
        )
        try:
            state = strategy.apply(state, summed)
        except RoundAborted:
            return 0.0
    sums = evaluate(plan, state.model, concatenate([lab.holdout for lab in labs]), device=CPU)
    return float(finish(sums, half_range=half_range(plan.study))["accuracy"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--bad", type=int, default=3)
    parser.add_argument("--scale", type=float, nargs="+", default=[1.0, 5.0])
    asked = parser.parse_args()
    clean_fedavg = 0.0
    for recipe, options in RECIPES:
        found: dict[float, list[float]] = {scale: [] for scale in (0.0, *asked.scale)}
        for seed in range(asked.seeds):
            plan, labs = digits(recipe, options, seed=seed, rounds=asked.rounds)
            bad = {int(place) for place in np.random.default_rng(seed).choice(17, asked.bad, replace=False)}
            for scale in found:
                found[scale].append(accuracy(plan, labs, bad=bad if scale else set(), scale=scale))
        clean_fedavg = clean_fedavg or float(np.mean(found[0.0]))
        line = f"{recipe} {options or ''}".ljust(52)
        for scale, values in found.items():
            mean = float(np.mean(values))
            label = f"x{scale:g}" if scale else "clean"
            line += f"  {label} {mean:.3f} (worst {min(values):.3f}, kept {mean / clean_fedavg:.2f})"
        print(line, flush=True)


if __name__ == "__main__":
    main()
