"""A study whose scaling is measured over all labs first: what it measures, what it costs, and who may refuse it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from fedsci.cli.progress import SilentDisplay
from fedsci.config import scaling
from fedsci.config.plan_checks import plan_from_bytes
from fedsci.config.site import load_site
from fedsci.config.study_file import load_study
from fedsci.data.rescaling import own_moments
from fedsci.data.table import concatenate
from fedsci.errors import BudgetRefused, ConfigError, InputError, PolicyRefused
from fedsci.reporting import write_report
from fedsci.reporting.comparison_settings import settings_of
from fedsci.reporting.evidence import plan_of
from fedsci.reporting.run_folder import read_run_folder
from fedsci.reporting.statement import write_statements
from fedsci.simulation import run as simulation
from fedsci.simulation.run import SimulatedRun
from fedsci.simulation.search import plan_search
from fedsci.simulation.statistics import measure_statistics
from fedsci.site.dataset import load_site_data
from fedsci.site.forecast import spending_of
from fedsci.training.schema import schema_of

COLUMNS = {"a": {"min": -1, "max": 1.5}, "b": {"min": 0, "max": 1}, "scaling": "federated"}
STRATEGIES = ["dp_fedsgd", "fedavg", "feature_statistics"]
NONE = {"mechanism": "none", "epsilon": None}
DISTRIBUTED = {"mechanism": "distributed", "epsilon": 4.0, "delta": 1e-5, "colluding_sites": 1}


@pytest.fixture
def prepared(tmp_path, make_lab, write_study):
    """Write a study of four labs and return it, loaded."""

    def prepare(policy=None, dataset=None, only=None, **changes):
        files = []
        for number in range(1, 5):
            chosen = only is None or number == only
            own = {"strategies": STRATEGIES, "mechanisms": ["local", "distributed", "none"], "min_cohort": 2}
            files.append(
                make_lab(
                    number,
                    rows=40 + 20 * number,
                    policy=own | ((policy or {}) if chosen else {}),
                    dataset=dataset if chosen else None,
                )
            )
        values = {"features": COLUMNS, "evaluation": {"baselines": []}, "sites": [str(file) for file in files]}
        return load_study(write_study(**(values | changes)))

    return prepare


@pytest.fixture
def go(tmp_path):
    """Run a study, and return its summary and run folder."""

    def run(study, out="runs", **changes):
        simulated = SimulatedRun(
            study=study,
            engine="local",
            state=tmp_path / "state",
            out=tmp_path / out,
            display=SilentDisplay(),
            **changes,
        )
        return simulated.run(), simulated.folder.path

    return run


def pooled(study):
    """Mean and deviation of each number over all labs' training records, from the files."""
    plan = scaling.pass_before(study.plan)
    labs = [load_site_data(plan, load_site(file), split_key=b"").train for file in study.site_files]
    return own_moments(concatenate(labs), schema_of(plan.study)), sum(lab.rows for lab in labs)


def spent(study, tmp_path):
    return [
        spending_of(load_site(file), "points", tmp_path / "state" / site)
        for file, site in zip(study.site_files, study.plan.sites, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("masked", [True, False])
def test_without_noise_the_plan_holds_exactly_the_pooled_statistics(prepared, go, masked):
    study = prepared(privacy=NONE, secure_aggregation={"enabled": masked})
    _, folder = go(study)
    plan = plan_of(read_run_folder(folder))
    right, _ = pooled(study)
    for name, column in plan.study.features.items():
        assert (column.mean, column.deviation) == pytest.approx(right[name], abs=1e-5)
    assert plan.study.scaled_by.columns == ["a", "b"]
    assert plan.study.scaled_by.plan == plan_of(read_run_folder(folder / "scaling")).digest
    assert plan_from_bytes(plan.to_bytes()).digest == json.loads((folder / "summary.json").read_text())["plan_digest"]


def test_the_pass_lies_in_the_runs_folder_and_the_summary_says_what_it_found(prepared, go):
    summary, folder = go(prepared(privacy=NONE))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    said = summary["scaling"]
    assert (said["run_folder"], said["epsilon"], said["delta"]) == ("scaling", None, None)
    assert set(said["columns"]) == {"a", "b"}
    first = json.loads((folder / "scaling" / "summary.json").read_text())
    assert (first["study"], first["status"], first["rounds_completed"]) == ("tiny.scaling", "completed", 1)
    assert said["plan_digest"] == first["plan_digest"]


def test_a_study_by_its_bounds_says_that_nothing_was_measured(prepared, go):
    summary, _ = go(prepared(privacy=NONE, features={name: COLUMNS[name] for name in "ab"}))
    assert summary["scaling"] is None
    assert {each["epsilon_spent_scaling"] for each in summary["privacy"]["by_site"].values()} == {None}


@pytest.mark.slow
def test_without_privacy_the_same_seed_gives_the_same_model_bit_for_bit(prepared, go):
    study = prepared(privacy=NONE)
    models = [(go(study, out)[1] / "model.safetensors").read_bytes() for out in ("one", "two")]
    assert models[0] == models[1]


@pytest.mark.slow
@pytest.mark.parametrize("privacy", [DISTRIBUTED, {"mechanism": "local", "epsilon": 4.0}])
@pytest.mark.parametrize("share", [0.1, 0.4])
def test_both_together_cost_no_more_than_the_study_says(prepared, go, tmp_path, privacy, share):
    study = prepared(privacy=privacy | {"scaling_share": share})
    summary, folder = go(study)
    assert summary["privacy"]["delta"] == pytest.approx(1e-5)
    for site, said in summary["privacy"]["by_site"].items():
        assert said["epsilon_spent_study"] <= 4.0 * (1 + 1e-9), site
        assert said["epsilon_spent_study"] == pytest.approx(4.0, abs=0.02)
        assert said["epsilon_spent_scaling"] == pytest.approx(4.0 * share, abs=0.01)
        assert said["epsilon_spent_total"] <= 4.0 + 0.05  # of both by PLD, at training's delta
        assert said["settled"]
    first = json.loads((folder / "scaling" / "summary.json").read_text())
    for site, found in zip(study.plan.sites, spent(study, tmp_path), strict=True):
        charges = [each["privacy"]["by_site"][site]["rdp_study"] for each in (first, summary)]
        assert found.spent_rdp == pytest.approx(sum(charges))
        assert len(found.plans) == 2
    [last] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()][-1:]
    assert last["epsilon"]["max"] == pytest.approx(4.0, abs=0.02)


@pytest.mark.slow
def test_noise_draws_what_it_hides_to_the_usual_and_the_plan_stays_possible(prepared, go):
    plan = plan_of(read_run_folder(go(prepared(privacy=DISTRIBUTED | {"scaling_share": 0.01}))[1]))
    for column in plan.study.features.values():
        half = (column.max - column.min) / 2
        assert column.mean == pytest.approx(column.min + half, abs=0.3 * half)
        assert 0.1 * half < column.deviation < 0.6 * half


@pytest.mark.slow
def test_the_statement_tells_of_both_and_holds_for_the_sum(prepared, go):
    _, folder = go(prepared(privacy=DISTRIBUTED))
    text = write_statements(folder).read_text()
    assert "Epsilon **4.00** at delta **1e-05** for this study (planned: 4)" in text
    assert "cost epsilon 0.40 at delta 1e-06, training 3.60 at delta 9e-06" in text
    assert "a study of its own measured over all labs" in text
    assert "Epsilon **0.40** at delta **1e-06**" in (folder / "scaling" / "privacy_statement.md").read_text()


@pytest.mark.slow
def test_a_pass_that_took_more_than_its_share_is_stated_by_nobody(prepared, go, monkeypatch):
    def greedy(plan):
        first = scaling.pass_before(plan)
        privacy = first.study.privacy.model_copy(update={"epsilon": 0.8})
        return replace(first, study=first.study.model_copy(update={"privacy": privacy}))

    monkeypatch.setattr(simulation, "pass_before", greedy)
    _, folder = go(prepared(privacy=DISTRIBUTED))
    with pytest.raises(InputError, match=r"took another part of epsilon and delta than 0\.1"):
        write_statements(folder)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["another pass", "no pass", "less spent"])
def test_files_that_do_not_agree_about_the_pass_are_not_stated(prepared, go, change):
    study = prepared(privacy=DISTRIBUTED | {"epsilon": 2.0})
    _, folder = go(study)
    summary = json.loads((folder / "summary.json").read_text())
    if change == "another pass":
        other = go(replace(study, plan=replace(study.plan, study=study.plan.study.model_copy(update={"seed": 9}))))[1]
        (folder / "scaling").rename(folder / "away")
        (other / "scaling").rename(folder / "scaling")
    elif change == "no pass":
        (folder / "scaling").rename(folder / "away")
    else:
        summary["privacy"]["by_site"]["lab-2"]["epsilon_spent_study"] = 1.8
        (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(InputError):
        write_statements(folder)


def test_a_lab_that_does_not_list_the_pass_refuses_it_and_nothing_is_charged(prepared, go, tmp_path):
    study = prepared(policy={"strategies": ["dp_fedsgd"]}, only=2, privacy=DISTRIBUTED)
    with pytest.raises(PolicyRefused, match=r"lab-2: policy.strategies does not allow 'feature_statistics'"):
        go(study)
    assert [found.spent_rdp for found in spent(study, tmp_path)] == [0.0] * 4


def test_a_lab_that_would_refuse_the_study_after_the_pass_is_asked_before_it(prepared, go, tmp_path):
    study = prepared(policy={"strategies": ["feature_statistics"]}, only=3, privacy=DISTRIBUTED)
    with pytest.raises(PolicyRefused, match=r"lab-3: policy.strategies does not allow 'dp_fedsgd'"):
        go(study)
    assert [found.spent_rdp for found in spent(study, tmp_path)] == [0.0] * 4


def test_a_budget_that_holds_the_pass_alone_refuses_both_and_nothing_is_charged(prepared, go, tmp_path):
    study = prepared(dataset={"privacy": {"epsilon": 3.0, "delta": 1e-5}}, only=4, privacy=DISTRIBUTED)
    with pytest.raises(BudgetRefused, match="lab-4: epsilon"):
        go(study)
    assert [found.spent_rdp for found in spent(study, tmp_path)] == [0.0] * 4


def test_a_delta_that_is_too_large_for_the_records_is_refused_before_the_pass_computes(prepared, go, tmp_path):
    study = prepared(
        dataset={"privacy": {"epsilon": 8.0, "delta": 0.05}}, privacy=DISTRIBUTED | {"delta": 0.03, "epsilon": 1.0}
    )
    with pytest.raises(PolicyRefused, match=r"delta 0.03 is larger than 1 / \d+ records"):
        go(study)
    assert [found.spent_rdp for found in spent(study, tmp_path)] == [0.0] * 4


@pytest.mark.slow
def test_sites_that_stop_where_the_budget_ends_do_so_after_the_pass_too(prepared, go):
    study = prepared(
        dataset={"privacy": {"epsilon": 2.5, "delta": 1e-5, "when_exceeded": "stop"}},
        privacy=DISTRIBUTED | {"epsilon": 3.0},
        training={"rounds": 20},
    )
    summary, _ = go(study)
    assert summary["status"] == "stopped_by_budget"
    assert 0 < summary["rounds_completed"] < 20


def test_settings_are_not_searched_over_with_a_pass_each(prepared, tmp_path):
    prepared(privacy=NONE)
    with pytest.raises(ConfigError, match="measure the scaling anew"):
        plan_search(tmp_path / "study.yaml", grid=["training.rounds=1,2"])


@pytest.mark.slow
def test_a_fresh_state_in_the_runs_folder_holds_both_charges(prepared, tmp_path):
    study = prepared(privacy=DISTRIBUTED)
    run = SimulatedRun(study=study, engine="local", state=None, out=tmp_path / "runs", display=SilentDisplay())
    run.run()
    found = spending_of(load_site(study.site_files[0]), "points", run.folder.path / "state" / "lab-1")
    assert len(found.plans) == 2


def test_statistics_alone_are_shown_with_their_noise_and_cost(prepared, tmp_path):
    def measured(study, name):
        return measure_statistics(
            study, engine="local", state=tmp_path / name, out=tmp_path / "runs", display=SilentDisplay()
        )

    study = prepared(privacy=NONE, features={name: COLUMNS[name] for name in "ab"})
    exact, (right, records) = measured(study, "exact"), pooled(study)
    assert exact.records == records
    for name, number in exact.numbers.items():
        assert (number.mean.value, number.deviation.value) == pytest.approx(right[name], abs=1e-5)
        assert (number.mean.noise, number.deviation.noise, number.missing.value) == (0.0, 0.0, 0.0)
    assert sum(count.value for count in exact.target[1].values()) == pytest.approx(records, abs=1e-3)
    assert (exact.epsilon, exact.delta) == (None, None)
    noised = measured(prepared(privacy=DISTRIBUTED | {"scaling_share": 0.5}), "noised")
    assert noised.epsilon == pytest.approx(2.0, abs=0.01)
    assert noised.delta == pytest.approx(5e-6)
    errors = [(number.mean.value - right[name][0]) / number.mean.noise for name, number in noised.numbers.items()]
    assert all(0 < number.mean.noise < 0.5 for number in noised.numbers.values())
    assert np.abs(errors).max() < 6


def test_bounds_that_are_too_wide_or_wrong_are_pointed_at(prepared, tmp_path):
    wide = {"a": {"min": 0, "max": 1000}, "b": {"min": 0.99, "max": 3}}
    facts = measure_statistics(
        prepared(privacy=NONE, features=wide),
        engine="local",
        state=tmp_path / "state",
        out=tmp_path / "runs",
        display=SilentDisplay(),
    )
    assert facts.numbers["a"].warnings == (
        "the mean is near min: are values clipped?",
        "the deviation is below 2% of the width: the bounds are too wide",
    )
    assert "near min" in facts.numbers["b"].warnings[0]
    assert yaml.safe_load(json.dumps(facts.to_json()))["columns"]["a"]["warnings"]


@pytest.mark.slow
def test_the_report_says_what_scaled_the_columns(prepared, go):
    _, folder = go(prepared(privacy=DISTRIBUTED))
    assert "measured over all labs by a study of its own, for ε = 0.40" in write_report(folder).read_text()


@pytest.mark.slow
def test_runs_that_measured_other_numbers_have_the_same_settings(prepared, go):
    study = prepared(privacy=DISTRIBUTED | {"epsilon": 2.0})
    found = [settings_of(read_run_folder(go(study, out)[1])) for out in ("one", "two")]
    assert found[0] == found[1]
    assert (found[0]["scaling"], found[0]["privacy.epsilon"]) == ("federated", "2")
