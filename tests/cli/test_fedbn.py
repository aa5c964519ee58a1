"""A study whose labs keep their normalisation layers, from the file to what the labs are left with."""

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file

MODEL = "model={name: mlp, hidden: [4], normalisation: batch}"


@pytest.fixture
def bn(study):
    """A study of labs that let FedBN run, without privacy."""
    study.values |= {"strategy": "fedbn", "privacy": {"mechanism": "none"}}
    study.values["training"] = {"rounds": 3, "learning_rate": 0.1}
    for values in study.sites.values():
        values["policy"] |= {"strategies": ["fedbn", "fedavg"], "models": ["mlp"], "mechanisms": ["none"]}
        values["policy"] |= {"unmasked_updates": True}
    study.write()
    return study


@pytest.mark.slow
@pytest.mark.parametrize("masked", ["true", "false"])
def test_a_run_says_which_model_the_labs_use_and_each_keeps_its_own(fedsci, bn, masked):
    done = fedsci("run", bn.path, "--set", MODEL, "--set", f"secure_aggregation.enabled={masked}")
    assert done.code == 0, done.err
    assert "own_model.safetensors" in done.out
    run = Path(next(line.split()[1] for line in done.out.splitlines() if line.startswith("run ")))
    about = json.loads((fedsci.folder / run / "model.json").read_text())
    assert about["kept_at_labs"] == ["1.weight", "1.bias", "1.running_mean", "1.running_var"]
    assert "normalisation layers of its own" in (fedsci.folder / run / "report.html").read_text()
    shared = load_file(fedsci.folder / run / "model.safetensors")
    assert shared["1.running_var"].tolist() == [1.0] * 4
    own = {}
    for lab in bn.labs:
        (file,) = (fedsci.folder / ".fedsci" / lab / "runs").glob("*/own_model.safetensors")
        own[lab] = load_file(file)
        assert own[lab]["0.weight"].tolist() == shared["0.weight"].tolist()
        assert own[lab]["1.running_var"].tolist() != shared["1.running_var"].tolist()
    assert len({values["1.running_mean"].tobytes() for values in own.values()}) == len(bn.labs)


def test_a_sites_operator_is_shown_where_its_own_model_is(fedsci, bn):
    state = fedsci.folder / "state"
    assert fedsci("site", "init", "lab-1.yaml", "--state", state).code == 0
    kept = state / "runs" / ("0" * 32) / "own_model.safetensors"
    kept.parent.mkdir(parents=True)
    kept.touch()
    status = json.loads(fedsci("site", "status", "lab-1.yaml", "--state", state, "--json").out)
    assert status["own_models"] == {"0" * 32: str(kept)}
    assert f"{kept}, joint in run {'0' * 32}" in fedsci("site", "status", "lab-1.yaml", "--state", state).out


def test_a_sites_status_is_shown_also_where_a_plan_of_it_is_damaged(fedsci, bn):
    state = fedsci.folder / "state"
    assert fedsci("site", "init", "lab-1.yaml", "--state", state).code == 0
    plan = state / "runs" / ("0" * 32) / "plan.json"
    plan.parent.mkdir(parents=True)
    for content in ("{}", "", "[]", '{"study": {"study": 1}}'):
        plan.write_text(content)
        outcome = fedsci("site", "status", "lab-1.yaml", "--state", state)
        assert outcome.code == 0, outcome.err
        assert f"{plan} is damaged: restore it from a backup" in outcome.out
        assert "data set" in outcome.out


@pytest.mark.slow
def test_other_strategies_leave_no_model_at_the_labs(fedsci, bn):
    done = fedsci("run", bn.path, "--set", MODEL, "--set", "strategy=fedavg")
    assert done.code == 0, done.err
    assert "own_model" not in done.out
    assert not list(fedsci.folder.rglob("own_model.safetensors"))


@pytest.mark.parametrize(
    ("settings", "text", "hint"),
    [
        ([], "the model has none", "model.normalisation: batch"),
        ([MODEL, "privacy={mechanism: local, epsilon: 2}"], "mixes records", "privacy.mechanism: none"),
        ([MODEL, "strategy=scaffold"], "must be averaged", "fedbn"),
        (["model={name: linear, normalisation: batch}"], "no layer to normalise", "mlp"),
    ],
)
def test_what_cannot_be_is_one_line_and_a_hint(fedsci, bn, settings, text, hint):
    refused = fedsci("run", bn.path, *(part for setting in settings for part in ("--set", setting)))
    assert refused.code == 2
    assert text in refused.error_line
    assert hint in refused.hint_line
