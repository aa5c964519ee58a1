"""Every testbed's studies run, on few records and for two rounds, from files that a fresh clone can write."""

import shutil
from pathlib import Path

import pytest

from examples.biosecurity.make_data import write_hospitals
from examples.grid.make_data import write_regions
from examples.grid.operating_points import OUTAGES, REGIONS, sample
from examples.materials.make_data import write_generated
from fedsci.config.study import CategoryColumn, NumericColumn, RegressionTask
from fedsci.config.study_file import load_study

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
WITHOUT_MASKS = ("secure_aggregation.enabled=false", "secure_aggregation.min_survivors=3")  # they change no sum


@pytest.fixture(scope="module")
def testbeds(tmp_path_factory):
    """Copies of the testbeds, with data of few records."""
    folder = tmp_path_factory.mktemp("testbeds")
    for name in ("grid", "materials", "biosecurity"):
        shutil.copytree(EXAMPLES / name, folder / name, ignore=shutil.ignore_patterns("data", "__pycache__"))
    write_regions(folder / "grid" / "data", records=20)
    write_generated(folder / "materials" / "data", records=80)
    write_hospitals(folder / "biosecurity" / "data", records=40)
    return folder


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("grid/study", WITHOUT_MASKS),
        pytest.param("grid/violations", (), marks=pytest.mark.slow),
        ("materials/study", WITHOUT_MASKS),
        pytest.param("materials/active", (), marks=pytest.mark.slow),
        ("biosecurity/study", ()),
    ],
)
def test_a_study_runs(fedsci, testbeds, name, changes):
    changes = ("training.rounds=2", "evaluation.holdout=0.5", "evaluation.baselines=[local]", *changes)
    settings = [part for change in changes for part in ("--set", change)]
    outcome = fedsci("run", testbeds / f"{name}.yaml", "--quiet", *settings)
    assert outcome.code == 0, outcome.err
    summary = fedsci.summary(outcome)
    assert summary["status"] == "completed"
    main = load_study(testbeds / f"{name}.yaml").plan.metrics[0]
    assert summary["metrics"]["federated"][main] is not None
    assert set(summary["metrics"]["by_site"]) == set(summary["sites"])


@pytest.mark.slow
def test_the_imaging_study_runs(fedsci):
    outcome = fedsci("run", EXAMPLES / "biosecurity" / "imaging.yaml", "--quiet", "--set", "training.rounds=2")
    assert outcome.code == 0, outcome.err


def test_the_real_data_studies_have_the_features_of_the_generated_ones():
    generated, measured = (
        load_study(EXAMPLES / "materials" / f"{name}.yaml").plan.study for name in ("study", "measured")
    )
    assert generated.features == measured.features
    assert generated.task == measured.task


@pytest.mark.slow
@pytest.mark.parametrize("name", ["study", "violations"])
def test_no_operating_point_lies_outside_the_public_bounds(name):
    study = load_study(EXAMPLES / "grid" / f"{name}.yaml").plan.study
    tables = [sample(region, records=25)[0] for region in REGIONS]
    for feature, column in study.features.items():
        values = [value for table in tables for value in table[feature]]
        if isinstance(column, CategoryColumn):
            assert column.categories == list(OUTAGES)
        elif isinstance(column, NumericColumn):
            assert column.min <= min(values)
            assert max(values) <= column.max
    if isinstance(study.task, RegressionTask):
        targets = [value for table in tables for value in table["loading_percent"]]
        assert study.task.min <= min(targets)
        assert max(targets) <= study.task.max
