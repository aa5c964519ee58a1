"""Labs that send their updates turned round, in the built-in digits study; the bench has more seeds and recipes."""

import importlib.util

import pytest

from fedsci.config.shipped import shipped

BAD = {2, 7, 13}


@pytest.fixture(scope="module")
def accuracy():
    """Accuracy of a recipe after 60 rounds without privacy, with three of 17 labs as attackers or with none."""
    file = shipped("examples").parent / "benches" / "bench_poisoning.py"
    spec = importlib.util.spec_from_file_location("bench_poisoning", file)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)

    def reach(recipe: str, *, scale: float = 0.0, **options: float) -> float:
        plan, labs = bench.digits(recipe, options, seed=1, rounds=60)
        return bench.accuracy(plan, labs, bad=BAD if scale else set(), scale=scale)

    return reach


@pytest.mark.slow
def test_robust_rules_keep_their_accuracy_where_fedavg_loses_it(accuracy):
    clean = accuracy("fedavg")
    assert clean > 0.85
    assert accuracy("fedavg", scale=5.0) < 0.5 * clean
    for recipe in ("coordinate_median", "trimmed_mean", "krum"):
        assert accuracy(recipe, scale=5.0) >= 0.95 * clean, recipe
