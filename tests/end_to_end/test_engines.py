"""Where the labs run does not change what they compute."""

import importlib.util

import pytest

ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")


@ray
@pytest.mark.slow
@pytest.mark.whole_machine
@pytest.mark.parametrize("strategy", ["fedavg", "dp_fedsgd"])
def test_ray_gives_the_same_model_bit_for_bit(fedsci, study, strategy):
    models = {}
    for engine in ("local", "ray"):
        process = fedsci.start(
            "run", "study.yaml", "--quiet", "--engine", engine, "--out", engine, "--set", f"strategy={strategy}"
        )
        outcome = fedsci.finish(process)
        assert outcome.code == 0, outcome.err
        assert fedsci.summary(outcome)["engine"] == engine
        models[engine] = (fedsci.folder / outcome.folder / "model.safetensors").read_bytes()
    assert models["ray"] == models["local"]


@ray
@pytest.mark.slow
@pytest.mark.whole_machine
def test_ray_measures_the_same_scaling(fedsci, study):
    for values in study.sites.values():
        values["policy"]["strategies"].append("feature_statistics")
    study.write()
    digests = set()
    for engine in ("local", "ray"):
        more = ("--engine", engine, "--out", engine, "--set", "features.scaling=federated")
        outcome = fedsci.finish(fedsci.start("run", "study.yaml", "--quiet", *more))
        assert outcome.code == 0, outcome.err
        digests.add(fedsci.summary(outcome)["plan_digest"])
    assert len(digests) == 1


@ray
@pytest.mark.slow
@pytest.mark.whole_machine
def test_a_refusal_under_ray_is_as_readable(fedsci, study):
    study.sites["lab-2"]["policy"]["mechanisms"] = ["local"]
    study.write()
    outcome = fedsci.finish(fedsci.start("run", "study.yaml", "--quiet", "--engine", "ray"))
    assert outcome.code == 4
    assert outcome.error_line == "fedsci: lab-2: policy.mechanisms does not allow 'none'"
    assert outcome.hint_line == "hint: it allows local"
    assert fedsci.summary(outcome)["status"] == "aborted"
