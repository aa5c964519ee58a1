"""From one CSV file to a federated model, with the two commands that a newcomer is told of."""

import csv
import random

import pytest

KINDS = {
    "binary": lambda height, leaf: "big" if height + leaf > 110 else "small",
    "multiclass": lambda height, leaf: ("moss", "fern", "tree")[min(2, int(height // 34))],
    "regression": lambda height, leaf: round(2.0 * height - leaf, 2),
}


def write_plants(path, label, rows=240):
    rng = random.Random(5)  # noqa: S311
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["plant id", "height", "leaf", "soil", "kind"])
        for number in range(rows):
            height, leaf = rng.uniform(0, 100), rng.uniform(0, 100)
            soil = rng.choice(["clay", "sand", "loam"])
            writer.writerow([f"p{number}", f"{height:.2f}", f"{leaf:.2f}", soil, label(height, leaf)])


@pytest.fixture(params=KINDS)
def split(request, fedsci):
    """A split of a generated file into three labs, and the kind of its target."""
    write_plants(fedsci.folder / "plants.csv", KINDS[request.param])
    outcome = fedsci("data", "split", "plants.csv", "--sites", "3", "--out", "labs")
    assert outcome.code == 0, outcome.err
    assert f"fedsci run {'labs/study.yaml'}" in outcome.out
    return request.param


@pytest.mark.slow
def test_a_split_runs_as_it_was_written(fedsci, split):
    fast = ["--set", "training.rounds=2", "--set", "evaluation.baselines=[]"]
    outcome = fedsci("run", "labs/study.yaml", "--quiet", *fast)
    assert outcome.code == 0, outcome.err
    summary = fedsci.summary(outcome)
    assert summary["sites"] == ["lab-01", "lab-02", "lab-03"]
    assert summary["privacy"]["mechanism"] == "distributed"
    assert all(v["epsilon_spent_study"] == pytest.approx(3.0, abs=0.01) for v in summary["privacy"]["by_site"].values())


@pytest.mark.slow
def test_a_split_can_be_learned_from(fedsci, split):
    more = ["--set", "privacy.mechanism=none", "--set", "training.rounds=30"]
    more += ["--set", "training.learning_rate=1.0", "--set", "evaluation.baselines=[]"]
    metrics = fedsci.summary(fedsci("run", "labs/study.yaml", "--quiet", *more))["metrics"]["federated"]
    if split == "regression":
        assert metrics["r2"] > 0.9
    else:
        assert metrics["accuracy"] > 0.8


def test_a_split_keeps_to_itself_what_identifies_a_row(fedsci, split):
    text = (fedsci.folder / "labs" / "study.yaml").read_text()
    assert "left out: plant id" in text
