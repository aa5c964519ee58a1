"""Training without messages comes to what a run comes to."""

import numpy as np
import pytest

from fedsci.redteam.deviating import multiplied
from fedsci.redteam.real_run import run_for_real, short
from fedsci.redteam.together import Together

NONE = {"mechanism": "none"}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["dp_fedsgd", "fedavg"])
def test_it_gives_the_very_model_of_a_masked_run(small_study, strategy):
    study = small_study(privacy=NONE, strategy=strategy)
    bad = {study.plan.sites[1]: lambda worker: multiplied(worker, -2.0)}
    plan = short(study.plan, rounds=3)
    real = run_for_real(study, plan, bad).models[-1]
    together = Together.of(study, plan)
    np.testing.assert_allclose(together.train(bad).model, real, atol=1e-6)
    assert np.abs(together.train().model - real).max() > 1e-2


def test_an_update_that_is_not_finite_ends_training(small_study):
    study = small_study(privacy=NONE, strategy="fedavg")
    bad = {study.plan.sites[0]: lambda worker: multiplied(worker, float("nan"))}
    together = Together.of(study)
    trained = together.train(bad)
    assert trained.model is None
    assert together.measure(trained, together.holdouts) is None


@pytest.mark.slow
def test_it_is_measured_as_a_run_is(small_study):
    study = small_study(privacy=NONE)
    real = run_for_real(study, short(study.plan, rounds=6), {}).summary["metrics"]["federated"]["accuracy"]
    together = Together.of(study)
    assert together.measure(together.train(), together.holdouts) == pytest.approx(real)
    assert together.alone(study.plan.sites[:2]) > 0.5
