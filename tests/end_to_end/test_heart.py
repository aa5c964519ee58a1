"""The heart example, whole, where its data is: four hospitals, and an answer that does not flatter us."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "heart"
DATA = "processed.cleveland.data"


def find_data():
    places = [os.environ.get("FEDSCI_HEART_DATA"), EXAMPLE / "data", ROOT.parent / "shared" / "data" / "heart"]
    for place in filter(None, places):
        if (Path(place) / DATA).is_file():
            return Path(place).resolve()
    return None


@pytest.fixture
def heart(tmp_path):
    """The example's files in a folder of their own, with its data beside them."""
    data = find_data()
    if data is None:
        pytest.skip(f"no {DATA} in $FEDSCI_HEART_DATA, examples/heart/data or ../shared/data/heart")
    folder = tmp_path / "heart"
    folder.mkdir()
    for file in EXAMPLE.glob("*.yaml"):
        shutil.copy(file, folder)
    shutil.copytree(EXAMPLE / "records", folder / "records")
    (folder / "data").symlink_to(data)
    return folder / "study.yaml"


@pytest.mark.slow
def test_four_hospitals_learn_and_are_told_that_alone_does_as_well(fedsci, heart):
    outcome = fedsci(
        "run", heart, "--quiet", "--set", "privacy.mechanism=none", "--set", "evaluation.baselines=[local]"
    )
    assert outcome.code == 0, outcome.err
    summary = fedsci.summary(outcome)
    assert summary["sites"] == ["cleveland", "hungarian", "switzerland", "va"]
    metrics = summary["metrics"]
    joint, alone = metrics["federated_mean_site"]["accuracy"], metrics["local_mean_site"]["accuracy"]
    assert joint >= 0.80
    assert alone >= joint - 0.01
    page = (fedsci.folder / outcome.folder / "report.html").read_text()
    assert "Yes, joining pays." not in page
    assert ("It makes little difference." in page) != ("No, a lab alone does better." in page)


@pytest.mark.slow
def test_the_hospitals_can_scale_by_what_all_of_them_hold(fedsci, heart):
    settings = ("--set", "features.scaling=federated", "--set", "evaluation.baselines=[]")
    outcome = fedsci("run", heart, "--quiet", "--set", "privacy.mechanism=none", *settings)
    assert outcome.code == 0, outcome.err
    summary = fedsci.summary(outcome)
    assert summary["metrics"]["federated_mean_site"]["accuracy"] >= 0.78
    age = summary["scaling"]["columns"]["age"]
    assert 51 < age["mean"] < 56
    assert 8 < age["deviation"] < 11
    outcome = fedsci("run", heart, "--quiet", *settings)
    assert outcome.code == 0, outcome.err
    for values in fedsci.summary(outcome)["privacy"]["by_site"].values():
        assert values["epsilon_spent_study"] <= 2.0
        assert values["epsilon_spent_scaling"] == pytest.approx(0.2, abs=0.01)


@pytest.mark.slow
def test_the_example_as_it_is_written_keeps_to_its_epsilon(fedsci, heart):
    outcome = fedsci("run", heart, "--quiet")
    assert outcome.code == 0, outcome.err
    for values in fedsci.summary(outcome)["privacy"]["by_site"].values():
        assert values["epsilon_spent_study"] <= 2.0
        assert values["epsilon_spent_study"] == pytest.approx(2.0, abs=0.01)
