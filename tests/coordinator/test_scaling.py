"""What a coordinator keeps of a pass, and what it asks before the pass computes."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fedsci.config.scaling import by_the_bounds, pass_before, scaled
from fedsci.coordinator.admission import Admission
from fedsci.coordinator.deployed import begin_again, keep_scaling, kept_scaling
from fedsci.coordinator.progress import Progress
from fedsci.coordinator.queue import JobState, StudyQueue
from fedsci.coordinator.scaling import after_pass, noise_in, require_room, survivors_of
from fedsci.coordinator.study import run_study
from fedsci.errors import BudgetRefused, InputError, PolicyRefused, RoundAborted
from fedsci.privacy.budget import budget_policy

COLUMNS = {"a": {"min": 0, "max": 1}, "b": {"min": 0, "max": 1}, "scaling": "federated"}


@pytest.fixture
def asked(make_plan):
    return make_plan(features=COLUMNS, privacy={"mechanism": "local", "epsilon": 4.0, "delta": 1e-5})


def admitted(plan, *, budget=8.0, spent=0.0, train=60, stops=False):
    policy = budget_policy(epsilon=budget, delta=1e-5)
    privacy = {"rdp_order": policy.order, "rdp_total": spent, "budget": budget, "budget_delta": 1e-5}
    said = Admission(
        train=train,
        holdout=20,
        inputs=2,
        parameters=3,
        schema="",
        privacy=privacy,
        exact_evaluation=True,
        rounds_allowed=1,
        measurements_allowed=1,
        advert="",
        stops=stops,
    )
    return Progress(sites=dict.fromkeys(plan.sites, said))


def test_a_study_that_awaits_its_scaling_is_not_run(asked):
    with pytest.raises(InputError, match="yet to be measured"):
        run_study(SimpleNamespace(), asked, Progress(), SimpleNamespace(), roster=None)


def test_there_is_room_for_both_or_the_pass_computes_nothing(asked):
    first = pass_before(asked)
    require_room(asked, first, admitted(first))
    with pytest.raises(BudgetRefused, match="lab-1: epsilon"):
        require_room(asked, first, admitted(first, budget=3.0))
    with pytest.raises(BudgetRefused):
        require_room(asked, first, admitted(first, spent=5.0))
    require_room(asked, first, admitted(first, budget=3.0, stops=True))
    with pytest.raises(PolicyRefused, match="1 / 200000 records"):
        require_room(asked, first, admitted(first, train=200_000))


def test_without_privacy_there_is_room_always(make_plan):
    plan = make_plan(features=COLUMNS, privacy={"mechanism": "none", "epsilon": None})
    require_room(plan, pass_before(plan), admitted(plan, budget=0.1, train=10**8))


def test_a_pass_without_a_round_makes_no_study(asked):
    with pytest.raises(RoundAborted, match="released nothing"):
        after_pass(asked, pass_before(asked), Progress())


def test_what_a_pass_measured_outlives_the_process_and_a_new_beginning(asked, tmp_path):
    job = StudyQueue(tmp_path).add(asked, who="ada", patience_s=1.0)
    assert job.plan().awaits_scaling
    assert kept_scaling(job) is None
    plan = scaled(asked, pass_before(asked), by_the_bounds(asked))
    folder = tmp_path / "runs" / "tiny.scaling"
    folder.mkdir(parents=True)
    (folder / "plan.yaml").write_text("plan")
    (folder / "summary.json").write_text("{}")
    keep_scaling(job, plan, folder)
    job.write_state(JobState(state="running", folder=str(folder)))
    begin_again(job)
    found = kept_scaling(job)
    assert found is not None
    assert (found[0].digest, found[1]) == (plan.digest, folder)
    assert (folder / "plan.yaml").exists()  # the pass has run: its folder stays
    assert job.state.state == "queued"


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"plan": 1, "folder": "x"}', '{"plan": "{}", "folder": "x"}', "[" * 100_000]
)
def test_what_a_pass_measured_is_refused_by_its_file_where_it_is_damaged(asked, tmp_path, content):
    job = StudyQueue(tmp_path).add(asked, who="ada", patience_s=1.0)
    keep_scaling(job, asked, tmp_path)
    (file,) = set(job.path.iterdir()) - {job.path / "plan.json", job.path / "request.json"}
    file.write_text(content)
    with pytest.raises(InputError, match=f"{file.name} is damaged") as refused:
        kept_scaling(job)
    assert "hand the study in again" in refused.value.hint


def test_noise_is_counted_over_the_sites_in_the_sum(asked):
    first = pass_before(asked)
    progress = admitted(first)
    some = replace(progress.sites["lab-1"], train=1000)
    progress.sites["lab-3"] = some
    everybody = noise_in(first, progress)
    progress.dropped.append(("lab-3", 1))
    assert survivors_of(first, progress) == [60, 60]
    assert noise_in(first, progress) > everybody
    assert np.isfinite(everybody)
