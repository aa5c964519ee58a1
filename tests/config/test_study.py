import pytest
import yaml

from fedsci.config.loading import parse, read_document
from fedsci.config.study import METRICS, Study
from fedsci.errors import ConfigError
from fedsci.training.metrics import names_of

IMAGE = {"image": {"shape": [8, 8], "min": 0, "max": 16}}


@pytest.fixture
def refusal(tmp_path, study_values):
    def of(**changes) -> ConfigError:
        file = tmp_path / "study.yaml"
        file.write_text(yaml.safe_dump(study_values(**changes)))
        with pytest.raises(ConfigError) as refused:
            parse(Study, read_document(file, kind="study"))
        assert refused.value.hint
        return refused.value

    return of


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"privacy": {"epsilon": 0}}, "epsilon is 0"),
        ({"privacy": {"epsilon": -1.5}}, "epsilon is -1.5"),
        ({"privacy": {"epsilon": float("inf")}}, "privacy.epsilon is inf"),
        ({"privacy": {"epsilon": float("nan")}}, "privacy.epsilon is nan"),
        ({"privacy": {"epsilon": None}}, "epsilon is missing"),
        ({"privacy": {"delta": 0}}, "delta is 0"),
        ({"privacy": {"delta": 1}}, "delta is 1"),
        ({"privacy": {"delta": -0.1}}, "delta is -0.1"),
        ({"privacy": {"clipping_norm": 0}}, "privacy.clipping_norm is 0"),
        ({"privacy": {"unit": "person"}}, "privacy.unit is 'person'"),
        ({"privacy": {"mechanism": "magic"}}, "privacy.mechanism is 'magic'"),
        ({"privacy": {"colluding_sites": -1}}, "privacy.colluding_sites is -1"),
        ({"training": {"sample_rate": 1.5}}, "training.sample_rate is 1.5"),
        ({"training": {"sample_rate": 0}}, "training.sample_rate is 0"),
        ({"training": {"rounds": 0}}, "training.rounds is 0"),
        ({"training": {"learning_rate": 0}}, "training.learning_rate is 0"),
        ({"training": {"momentum": 1}}, "training.momentum is 1"),
        ({"training": {"batch_size": 0}}, "training.batch_size is 0"),
        ({"training": {"local_epochs": 0}}, "training.local_epochs is 0"),
        ({"training": {"round_deadline_s": 0}}, "training.round_deadline_s is 0"),
        ({"training": {"round_deadline_s": -5}}, "training.round_deadline_s is -5"),
        ({"training": {"pace": "fast"}}, "training.pace is 'fast'"),
        ({"features": {"a": {"min": 1, "max": 1}}}, "min 1 is not below max 1"),
        ({"features": {"a": {"min": 2, "max": 1}}}, "min 2 is not below max 1"),
        ({"features": {"image": {"shape": [2], "min": 2, "max": 1}}}, "min 2 is not below max 1"),
        ({"features": {"image": {"shape": [], "min": 0, "max": 1}}}, "features.image.shape is []"),
        ({"features": {"image": {"shape": [0], "min": 0, "max": 1}}}, "features.image.shape.0 is 0"),
        ({"features": {"a": {"categories": []}}}, "features.a.categories is []"),
        ({"features": {"a": {"min": 0}}}, "features.a.max is missing"),
        ({"features": {}}, "features is an empty section"),
        ({"features": {"above": {"min": 0, "max": 1}}}, "the target 'above' is also a feature"),
        ({"model": {"normalisation": "batch"}}, "a linear model has no layer to normalise"),
        ({"model": {"name": "mlp", "hidden": [4], "normalisation": "layer"}}, "model.normalisation is 'layer'"),
        ({"task": {"kind": "ranking", "target": "y"}}, "task.kind is 'ranking'"),
        ({"task": {"kind": "binary"}}, "task.target is missing"),
        ({"task": {"kind": "multiclass", "target": "y", "classes": [1]}}, "task.classes is [1]"),
        ({"task": {"kind": "regression", "target": "y", "min": 1, "max": 0}}, "min 1 is not below max 0"),
        ({"model": {"name": "cnn"}}, "a cnn needs exactly one feature with a shape"),
        ({"model": {"name": "cnn"}, "features": {"s": {"shape": [9], "min": 0, "max": 1}}}, "a cnn needs exactly one"),
        ({"model": {"name": "mlp"}}, "an mlp needs hidden layer sizes"),
        ({"model": {"name": "mlp", "hidden": [4], "channels": [2]}}, "an mlp has no channels"),
        ({"model": {"name": "linear", "hidden": [4]}}, "a linear model has no hidden layers"),
        ({"model": {"name": "mlp", "hidden": [0]}}, "model.hidden.0 is 0"),
        ({"model": {"name": "tree"}}, "model.name is 'tree'"),
        ({"evaluation": {"holdout": 0}}, "evaluation.holdout is 0"),
        ({"evaluation": {"holdout": 1}}, "evaluation.holdout is 1"),
        ({"evaluation": {"metrics": ["rmse"]}}, "metric 'rmse' does not exist for a binary task"),
        ({"evaluation": {"baselines": ["magic"]}}, "evaluation.baselines.0 is 'magic'"),
        ({"evaluation": {"every": 0}}, "evaluation.every is 0"),
        ({"secure_aggregation": {"min_survivors": 0}}, "secure_aggregation.min_survivors is 0"),
        ({"study": "Not A Name"}, "study name 'Not A Name' is not usable"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, f"seed is {2**63}"),
        ({"dataset": None}, "dataset is missing"),
        ({"privacy": None}, "privacy is missing"),
    ],
)
def test_a_value_that_cannot_be_is_refused(refusal, changes, text):
    assert text in refusal(**changes).message


def test_a_refusal_of_no_privacy_says_how_to_ask_for_it(refusal):
    assert "mechanism: none" in refusal(privacy={"epsilon": 0}).hint


def test_a_cnn_with_one_image_is_fine(study_values):
    assert Study.model_validate(study_values(model={"name": "cnn"}, features=IMAGE)).model.name == "cnn"


def test_a_cnn_with_an_image_and_more_is_refused(refusal):
    assert "exactly one feature" in refusal(model={"name": "cnn"}, features=IMAGE | {"a": {"min": 0, "max": 1}}).message


@pytest.mark.parametrize(
    ("section", "wrong", "right"),
    [
        ("training", "round", "rounds"),
        ("privacy", "epsilom", "epsilon"),
        ("evaluation", "hold_out", "holdout"),
        ("secure_aggregation", "min_survivor", "min_survivors"),
        ("model", "nmae", "name"),
    ],
)
def test_every_section_names_the_nearest_key(refusal, section, wrong, right):
    error = refusal(**{section: {wrong: 1}})
    assert f"unknown key {wrong!r}" in error.message
    assert error.hint == f"did you mean {right!r}?"


def test_a_column_of_each_kind_is_known_by_its_keys(study_values):
    features = {"n": {"min": 0, "max": 1}, "c": {"categories": [1, "x", True]}, "s": IMAGE["image"]}
    study = Study.model_validate(study_values(features=features))
    kinds = [type(column).__name__ for column in study.features.values()]
    assert kinds == ["NumericColumn", "CategoryColumn", "ArrayColumn"]


@pytest.mark.parametrize("kind", METRICS)
def test_every_metric_of_a_task_has_its_place_in_the_sums(kind):
    names = names_of(kind)
    assert names[0] == "records"
    assert len(set(names)) == len(names)
    for metric in METRICS[kind]:
        assert {f"site_{metric}", f"has_{metric}"} <= set(names)
