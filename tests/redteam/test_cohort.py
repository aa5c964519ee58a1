"""Training in the open is the study's own training: the same model, the same noise."""

import numpy as np
import pytest
from scipy import stats

from fedsci.config.shipped import shipped
from fedsci.config.study_file import load_study
from fedsci.data.table import concatenate
from fedsci.redteam.cohort import OpenCohort, labs_of, sums_over_records, untrainable, worker_of

LABS = "sites=[../../sites/lab-01.yaml, ../../sites/lab-02.yaml, ../../sites/lab-04.yaml, ../../sites/lab-06.yaml]"
SMALL = [LABS, "secure_aggregation={min_survivors: 3}", "privacy.colluding_sites=1", "audit_log.enabled=false"]


def digits(*overrides):
    rounds = [] if any("rounds" in text for text in overrides) else ["training.rounds=3"]
    return load_study(shipped("examples") / "digits" / "study.yaml", overrides=[*SMALL, *rounds, *overrides])


def cohort_of(study):
    labs = labs_of(study).values()
    return OpenCohort(plan=study.plan, tables=[lab.train for lab in labs], counts=[lab.train_count for lab in labs])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["dp_fedsgd", "fedavg"])
def test_it_releases_the_model_that_a_run_releases(strategy, tmp_path):
    from fedsci.cli.progress import SilentDisplay
    from fedsci.simulation.run import SimulatedRun
    from fedsci.site.service import SiteService

    def service(site, state):
        policy = site.policy.model_copy(update={"unlogged_studies": True})
        return SiteService(site.model_copy(update={"policy": policy}), state)

    study = digits("privacy.mechanism=none", f"strategy={strategy}", "evaluation.baselines=[]")
    run = SimulatedRun(study=study, engine="local", state=None, out=tmp_path, display=SilentDisplay(), service=service)
    run.run()
    cohort = cohort_of(study)
    assert np.abs(cohort.released() - run.progress.model).max() < 1e-4
    assert np.abs(run.progress.model).max() > 0.05


def test_the_noise_of_a_round_is_what_the_study_counts_on():
    study = digits("training.rounds=1")
    cohort = cohort_of(study)
    table, records = concatenate(cohort.tables), sum(cohort.counts)
    assert len(cohort.workers) == 1
    (passed,) = cohort.rounds()
    quiet = worker_of(study.plan, table, records=records, quiet=True)
    noise = (passed.mean - quiet.contribution(passed.received, 1, memory={})).astype(np.float64) * records
    private = cohort.workers[0][0].private
    expected = private.noise_multiplier * private.clipping_norm

    def fits(deviation):
        low, high = stats.chi2.ppf([1e-4, 1 - 1e-4], noise.size)
        return low < np.square(noise / deviation).sum() < high

    assert fits(expected)
    assert not fits(0.8 * expected)
    assert not fits(1.25 * expected)


def test_labs_stay_apart_where_their_sum_is_not_one_over_records():
    assert sums_over_records(digits().plan)
    assert not sums_over_records(digits("strategy=fedavg", "privacy.mechanism=none").plan)
    local = digits("privacy.mechanism=local")
    assert not sums_over_records(local.plan)
    assert len(cohort_of(local).workers) == 4


def test_whole_labs_are_hidden_by_the_shares_of_all():
    study = digits("privacy.unit=site", "strategy=fedavg", "training.rounds=1")
    cohort = cohort_of(study)
    (passed,) = cohort.rounds()
    share = cohort.workers[0][0].whole.share
    expected = share.gamma * share.deviation / np.sqrt(len(cohort.workers))  # of a mean over four shares
    assert passed.mean.std() == pytest.approx(expected, rel=0.2)
    assert {weight for _, weight in cohort.workers} == {0.25}


def test_what_cannot_be_trained_in_the_open_says_why():
    assert untrainable(digits().plan) is None
    assert "no model" in untrainable(digits("strategy=feature_statistics", "training.rounds=1").plan)
    assert "how long" in untrainable(digits("strategy=fedbuff", "privacy.mechanism=none").plan)
