"""Studies of one exchange, from the file to what they leave behind."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

ROWS = [f"{10 + i % 15},{('low', 'high')[i % 2]},{i % 2},p{i // 2}" for i in range(80)]


def prepare(study, strategy, unit="record", **privacy):
    """Labs with two rows a patient that let exact results leave."""
    grouping = {"unit": unit} | ({"group_by": "patient"} if unit == "group" else {})
    study.use_csv()
    for lab in study.labs:
        (study.folder / f"{lab}.csv").write_text("\n".join(["radius,grade,benign,patient", *ROWS]) + "\n")
        study.sites[lab]["datasets"]["tumours"]["privacy"] |= grouping
        study.sites[lab]["policy"] |= {
            "strategies": ["one_shot_ridge", "feature_statistics"],
            "mechanisms": ["distributed", "local", "none"],
        }
    study.values["privacy"] = {"mechanism": "distributed", "epsilon": 3.0, "colluding_sites": 1} | grouping | privacy
    study.values["evaluation"] = {"baselines": ["local", "pooled"]}
    study.values |= {"strategy": strategy, "training": {"rounds": 1}, "model": {"name": "linear"}}
    study.write()


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["record", "group", "site"])
@pytest.mark.parametrize("strategy", ["one_shot_ridge", "feature_statistics"])
def test_it_is_charged_once_and_stated_for_what_it_is(fedsci, study, strategy, unit):
    prepare(study, strategy, unit)
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert outcome.code == 0, outcome.err
    summary = fedsci.summary(outcome)
    spent = list(summary["privacy"]["by_site"].values())
    assert {site["rounds_charged"] for site in spent} == {1}
    assert all(2.9 < site["epsilon_spent_study"] <= 3 for site in spent)
    text = (fedsci.folder / outcome.folder / "privacy_statement.md").read_text()
    told = {"record": "every record's statistic is scaled", "group": "mean of the statistics of each group's records"}
    assert told.get(unit, "a lab's whole update is scaled") in text
    assert "gradient" not in text
    planned = fedsci("privacy", "plan", "study.yaml", "--json")
    numbers = json.loads(planned.out)["dimension"]
    assert f"{numbers} coordinates" in text
    if strategy == "feature_statistics":
        found = load_file(fedsci.folder / outcome.folder / "model.safetensors")
        assert found["feature_statistics"].shape == (numbers,)
        assert summary["metrics"]["federated"] is None
        assert summary["metrics"]["pooled"] is None
        assert {site["measurements_charged"] for site in spent} == {0}


@pytest.mark.slow
def test_the_guide_says_how_statistics_are_read(fedsci, study):
    prepare(study, "feature_statistics", mechanism="none", epsilon=None)
    study.values["evaluation"] = {"holdout": 0.25}
    study.write()
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert outcome.code == 0, outcome.err
    guide = Path(__file__).parents[2] / "docs" / "guide.md"
    _, after = guide.read_text().split("```python\nfrom safetensors")
    names = {"folder": fedsci.folder / outcome.folder}
    exec("from safetensors" + after.split("```")[0], names)  # noqa: S102 - the guide's own lines
    labs = fedsci.summary(outcome)["metrics"]["by_site"].values()
    found = names["found"]
    assert found.records == sum(lab["records"]["train"] for lab in labs)
    assert found.target.sum() == pytest.approx(found.records)
    assert found.numeric["radius"].mean == pytest.approx([16.7], abs=1)  # that of ROWS; some are held out


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", ["local", "none"])
def test_every_mechanism_gives_the_model_that_the_records_ask_for(fedsci, study, mechanism):
    prepare(study, "one_shot_ridge", mechanism=mechanism, epsilon=3.0 if mechanism == "local" else None)
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert outcome.code == 0, outcome.err
    metrics = fedsci.summary(outcome)["metrics"]
    assert metrics["federated"]["accuracy"] == 1  # one column says it all
    assert metrics["pooled"]["accuracy"] == 1
    model = load_file(fedsci.folder / outcome.folder / "model.safetensors")
    assert all(np.isfinite(tensor).all() for tensor in model.values())


@pytest.mark.parametrize(
    ("strategy", "change", "message"),
    [
        ("one_shot_ridge", {"training": {"rounds": 5}}, "one exchange, and training.rounds is 5"),
        (
            "one_shot_ridge",
            {"model": {"name": "mlp", "hidden": [4]}},
            "a linear model, and the study's is mlp",
        ),
        (
            "feature_statistics",
            {"personalise": "fine_tune"},
            "a shared model, and feature_statistics makes none",
        ),
    ],
)
def test_what_does_not_go_with_it_is_refused_in_one_line(fedsci, study, strategy, change, message):
    prepare(study, strategy)
    study.values |= change
    study.write()
    outcome = fedsci("run", "study.yaml")
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") <= 2
