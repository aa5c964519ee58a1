"""``summary.json`` as DESIGN section 6 promises it, from runs of three real (tiny) labs."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from fedsci.cli.progress import SilentDisplay
from fedsci.config.study import METRICS as KNOWN
from fedsci.config.study_file import load_study
from fedsci.errors import SiteFailed
from fedsci.secagg import plan_quantisation
from fedsci.simulation.run import SimulatedRun

TOP = {
    "fedsci", "study", "plan_digest", "engine", "seed", "status", "rounds_completed", "sites", "metrics", "privacy",
    "secure_aggregation", "traffic_bytes", "seconds",
}  # fmt: skip
METRICS = {
    "federated", "federated_mean_site", "by_site", "local_mean_site", "pooled", "pooled_dp", "local_noise",
    "personalised_mean_site", "federated_worst_site", "local_worst_site", "personalised_worst_site", "intervals",
}  # fmt: skip
PRIVACY = {"unit", "mechanism", "delta", "accountant", "by_site"}
SPENT = {
    "epsilon_spent_study", "epsilon_spent_total", "epsilon_enforced_total", "epsilon_enforced_before", "epsilon_budget",
    "budget_delta", "noise_multiplier", "rounds_charged", "rdp_order", "rdp_study", "rdp_total", "settled",
}  # fmt: skip
SECONDS = {"total", "training", "masking", "aggregation", "evaluation", "transport"}


def strictly(path: Path):
    def refuse(constant: str):
        raise ValueError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def write_labs(folder: Path, *, hidden: int | None = None, modest: int | None = None) -> list[str]:
    """Lab files; lab ``hidden`` lets no metrics leave, lab ``modest`` only inside sums."""
    files = []
    for shard in (1, 2, 3, 4):
        policy = {
            "approval": "auto", "min_cohort": 2, "max_epsilon_per_study": 5.0, "strategies": ["dp_fedsgd", "fedavg"],
            "models": ["linear", "mlp"], "mechanisms": ["local", "none"], "exact_evaluation": shard != hidden,
            "show_own_metrics": shard != modest, "unmasked_updates": True,
        }  # fmt: skip
        source = {
            "builtin": {"name": "breast_cancer", "shard": shard, "of": 4},
            "privacy": {"epsilon": 8.0, "delta": 1.0e-5},
        }
        file = folder / f"lab-{shard}.yaml"
        file.write_text(yaml.safe_dump({"site": f"lab-{shard}", "datasets": {"cells": source}, "policy": policy}))
        files.append(file.name)
    return files


def run(
    folder: Path, *, masked: bool, mechanism: str = "local", strategy: str = "dp_fedsgd", hidden: int | None = None,
    modest: int | None = None, personalise: str = "none",
    serialise: bool = False, out: str = "runs", epsilon: float = 3.0, baselines: tuple[str, ...] = ("local", "pooled"),
) -> tuple[dict, Path]:  # fmt: skip
    features = {"mean_radius": {"min": 5, "max": 30}, "mean_texture": {"min": 5, "max": 40}}
    study = {
        "study": "cells", "dataset": "cells", "task": {"kind": "binary", "target": "benign"}, "features": features,
        "model": {"name": "mlp", "hidden": [4]}, "strategy": strategy,
        "training": {"rounds": 2, "sample_rate": 1.0, "learning_rate": 0.5, "local_epochs": 1},
        "privacy": {"mechanism": mechanism, "epsilon": epsilon}, "evaluation": {"baselines": list(baselines)},
        "sites": write_labs(folder, hidden=hidden, modest=modest), "seed": 5, "personalise": personalise,
        "secure_aggregation": {"enabled": masked},
    }  # fmt: skip
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(study))
    simulated = SimulatedRun(
        study=load_study(file), engine="local", state=None, out=folder / out, display=SilentDisplay(),
        serialise=serialise, timeout_s=60,
    )  # fmt: skip
    summary = simulated.run()
    assert simulated.folder is not None
    return summary, simulated.folder.path


@pytest.fixture(scope="module", params=[True, False], ids=["masked", "plain"])
def masked(request):
    return request.param


@pytest.fixture(scope="module")
def private_run(tmp_path_factory, masked):
    return run(tmp_path_factory.mktemp("private"), masked=masked, hidden=2, modest=3)


def test_the_keys_are_the_contracts(private_run):
    summary = strictly(private_run[1] / "summary.json")
    assert summary == private_run[0]
    assert set(summary) >= TOP
    assert set(summary["metrics"]) >= METRICS
    assert set(summary["privacy"]) >= PRIVACY
    assert set(summary["seconds"]) >= SECONDS
    assert set(summary["traffic_bytes"]) == {"up", "down"}
    assert {"enabled", "min_survivors", "dropped"} <= set(summary["secure_aggregation"])
    for spent in summary["privacy"]["by_site"].values():
        assert set(spent) >= SPENT


def test_the_values_are_what_was_run(private_run):
    summary, _ = private_run
    assert (summary["status"], summary["rounds_completed"], summary["seed"]) == ("completed", 2, 5)
    assert summary["sites"] == ["lab-1", "lab-2", "lab-3", "lab-4"]
    assert summary["plan_digest"].startswith("sha256:")
    assert summary["traffic_bytes"]["up"] > 0
    assert summary["traffic_bytes"]["down"] > 0
    assert summary["seconds"]["total"] >= summary["seconds"]["training"]
    for values in (summary["metrics"]["federated"], summary["metrics"]["pooled"], summary["metrics"]["pooled_dp"]):
        assert set(values) == set(KNOWN["binary"])
        assert 0 <= values["accuracy"] <= 1


def test_spending_is_within_the_study_and_the_budget(private_run):
    for spent in private_run[0]["privacy"]["by_site"].values():
        assert 0 < spent["epsilon_spent_study"] <= 3.0
        assert spent["epsilon_spent_total"] == pytest.approx(spent["epsilon_spent_study"], rel=1e-3)
        assert spent["epsilon_budget"] == 8.0


@pytest.mark.slow
def test_a_site_that_shows_nothing_is_null_and_never_missing(tmp_path, masked):
    metrics = run(tmp_path, masked=masked, modest=3, baselines=("local",))[0]["metrics"]
    by_site = metrics["by_site"]
    assert set(by_site) == {"lab-1", "lab-2", "lab-3", "lab-4"}
    for label in ("federated", "local"):
        assert by_site["lab-3"][label] is None
        assert by_site["lab-1"][label]["accuracy"] >= 0
    assert by_site["lab-1"]["local_no_dp"]["accuracy"] >= 0
    assert by_site["lab-3"]["intervals"]["local"] is None
    assert metrics["federated_worst_site"] is None  # lab-3 may be it
    assert metrics["noise_deviation"] is metrics["noise_deviation_mean_site"] is None
    hidden = run(tmp_path, masked=masked, mechanism="none", hidden=2, baselines=("local",))[0]["metrics"]["by_site"]
    for label in ("federated", "local"):
        assert hidden["lab-2"][label] is None
        assert hidden["lab-1"][label]["accuracy"] >= 0


@pytest.mark.slow
def test_where_one_site_of_a_private_study_shows_nothing_all_are_measured_with_noise(private_run, tmp_path, masked):
    summary, folder = private_run
    metrics = summary["metrics"]
    assert set(metrics["by_site"]) == {"lab-1", "lab-2", "lab-3", "lab-4"}
    for label in ("federated", "local", "local_no_dp"):
        assert metrics["by_site"]["lab-2"][label] is metrics["by_site"]["lab-3"][label] is None
        assert metrics["by_site"]["lab-1"][label]["accuracy"] >= 0
    assert set(metrics["noise_deviation"]) == {"accuracy", "log_loss"}
    assert 0 < metrics["noise_deviation"]["accuracy"] < 0.2
    assert metrics["noise_deviation"]["log_loss"] == pytest.approx(8 * metrics["noise_deviation"]["accuracy"])
    assert metrics["noise_deviation_mean_site"]["accuracy"] >= metrics["noise_deviation"]["accuracy"]
    assert [
        line["metrics"] is None for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    ] == [True, False]
    # and it costs no record more than the same study with exact metrics
    exact = run(tmp_path, masked=masked, baselines=())[0]["privacy"]["by_site"]
    noised = summary["privacy"]["by_site"]
    assert [spent.pop("measurements_charged") for spent in noised.values()] == [1] * 4
    assert [spent.pop("measurements_charged") for spent in exact.values()] == [0] * 4
    assert noised == exact


@pytest.mark.slow
def test_intervals_stand_around_the_numbers_and_the_worst_site_is_named(tmp_path, masked):
    metrics = run(tmp_path, masked=masked, mechanism="none", personalise="fine_tune", baselines=("local",))[0][
        "metrics"
    ]
    for label in ("federated", "federated_mean_site", "local_mean_site", "personalised_mean_site"):
        low, high = metrics["intervals"][label]["accuracy"]
        assert 0 <= low < metrics[label]["accuracy"] < high <= 1
        assert 0.02 < high - low < 0.4  # of 140 held-out records in all
    for label in ("federated", "local", "personalised"):
        each = {site: values[label]["accuracy"] for site, values in metrics["by_site"].items()}
        worst = metrics[f"{label}_worst_site"]["accuracy"]
        assert worst["value"] == min(each.values()) == each[worst["site"]]
        loss = metrics[f"{label}_worst_site"]["log_loss"]["value"]
        assert loss == max(values[label]["log_loss"] for values in metrics["by_site"].values())
        for values in metrics["by_site"].values():
            low, high = values["intervals"][label]["log_loss"]
            assert low < values[label]["log_loss"] < high
    assert metrics["intervals"]["local_no_dp_mean_site"] is None


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", ["local", "none"])
def test_personal_models_stand_beside_the_shared_one_and_null_where_there_are_none(tmp_path, masked, mechanism):
    metrics = run(tmp_path, masked=masked, mechanism=mechanism, modest=3, personalise="ditto", baselines=())[0][
        "metrics"
    ]
    shown = {site: values["personalised"] is not None for site, values in metrics["by_site"].items()}
    assert shown == {"lab-1": True, "lab-2": True, "lab-3": False, "lab-4": True}
    assert set(metrics["personalised_mean_site"]) == set(KNOWN["binary"])
    assert metrics["local_mean_site"] is None
    assert len(list(tmp_path.glob("runs/*/state/lab-*/runs/*/personal_model.safetensors"))) == 4
    without = run(tmp_path, masked=masked, mechanism=mechanism, out="without", baselines=())[0]["metrics"]
    assert without["personalised_mean_site"] is None
    assert {values["personalised"] for values in without["by_site"].values()} == {None}


@pytest.mark.slow
@pytest.mark.parametrize("modest", [None, 3])
def test_the_means_leave_out_the_site_that_shows_nothing_and_count_the_one_that_is_in_sums_only(
    tmp_path, masked, modest
):
    metrics = run(tmp_path, masked=masked, mechanism="none", hidden=2, modest=modest)[0]["metrics"]
    everything = run(tmp_path, masked=masked, mechanism="none", out="all")[0]["metrics"]
    shown = [everything["by_site"][site]["federated"]["accuracy"] for site in ("lab-1", "lab-3", "lab-4")]
    assert metrics["federated_mean_site"]["accuracy"] == pytest.approx(np.mean(shown), abs=1e-6)
    assert (metrics["by_site"]["lab-3"]["federated"] is None) == (modest == 3)


def test_every_file_of_the_run_is_there(private_run):
    folder = private_run[1]
    names = {path.name for path in folder.iterdir()}
    assert {"plan.yaml", "metrics.jsonl", "summary.json", "model.safetensors", "model.json"} <= names
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2]
    spent = private_run[0]["privacy"]["by_site"]["lab-1"]["epsilon_spent_study"]
    assert lines[-1]["epsilon"]["max"] == pytest.approx(spent)
    assert yaml.safe_load((folder / "plan.yaml").read_text())["digest"] == private_run[0]["plan_digest"]
    assert not [name for name in names if name.endswith(".partial")]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["dp_fedsgd", "fedavg"])
def test_without_noise_the_same_seed_gives_the_same_model_bit_for_bit_on_every_path(tmp_path, strategy, masked):
    results = [
        run(
            tmp_path,
            masked=masked,
            mechanism="none",
            strategy=strategy,
            out=f"{number}",
            serialise=serialise,
            baselines=(),
        )
        for number, serialise in enumerate([False, False, True])
    ]
    models = [(folder / "model.safetensors").read_bytes() for _, folder in results]
    assert models[0] == models[1] == models[2]
    assert results[0][0]["metrics"] == results[1][0]["metrics"] == results[2][0]["metrics"]
    assert results[0][0]["privacy"]["by_site"]["lab-1"]["epsilon_spent_study"] == "inf"


@pytest.mark.slow
def test_noise_never_repeats_whatever_the_seed(tmp_path, masked):
    folders = [run(tmp_path, masked=masked, out=str(number), baselines=())[1] for number in (1, 2)]
    models = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert models[0] != models[1]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["dp_fedsgd", "fedavg"])
def test_masks_change_the_model_by_no_more_than_the_grid(tmp_path, strategy):
    results = {
        masked: run(tmp_path, masked=masked, mechanism="none", strategy=strategy, out=str(masked), baselines=("local",))
        for masked in (True, False)
    }
    (hidden, hidden_folder), (plain, plain_folder) = results[True], results[False]
    models = [load_file(folder / "model.safetensors") for folder in (hidden_folder, plain_folder)]
    grid = plan_quantisation(bound=16.0, sites=4, ring_bits=32)
    for name, values in models[0].items():
        # two rounds; the second starts from the first one's error, which a gradient of this model at most doubles
        assert values == pytest.approx(models[1][name], abs=2 * 3 * 4 * grid.error_bound + 1e-7)
    for label in ("federated", "federated_mean_site", "local_mean_site"):
        assert hidden["metrics"][label] == pytest.approx(plain["metrics"][label], abs=1e-3)
    for site, values in hidden["metrics"]["by_site"].items():
        for label in ("federated", "local"):
            assert values[label] == pytest.approx(plain["metrics"]["by_site"][site][label], abs=1e-3)


def test_the_summary_says_whether_updates_were_masked(private_run, masked):
    about = private_run[0]["secure_aggregation"]
    assert (about["enabled"], about["min_survivors"], about["dropped"]) == (masked, 3, [])
    assert about["protocol"] == ("fedsci-secagg-1" if masked else None)
    assert about["ring_bits"] == (32 if masked else None)


@pytest.mark.slow
def test_a_refused_study_leaves_a_readable_folder_that_says_so(tmp_path, masked):
    with pytest.raises(SiteFailed) as refused:
        run(tmp_path, masked=masked, epsilon=6.0, baselines=())
    assert refused.value.exit_code == 4
    [folder] = (tmp_path / "runs").iterdir()
    summary = strictly(folder / "summary.json")
    assert summary["status"] == "aborted"
    assert "max_epsilon_per_study" in summary["reason"]
    assert set(summary["metrics"]["by_site"]) == {"lab-1", "lab-2", "lab-3", "lab-4"}
    assert summary["metrics"]["federated"] is None
