"""``fedsci tune``: no try is free, none runs that the budgets cannot pay for, and the table says what noise hides."""

import json

import pytest


@pytest.fixture
def rates():
    return ("--try", "training.learning_rate=0.1,0.5,1.0")


def ledger_kinds(fedsci, lab="lab-1"):
    entries = json.loads(fedsci("privacy", "ledger", f"{lab}.yaml", "--json").out)["entries"]
    return [entry["kind"] for entry in entries]


@pytest.mark.slow
def test_all_tries_together_keep_within_the_studys_epsilon(fedsci, study, rates):
    study.private(epsilon=2.0)
    outcome = fedsci("tune", "study.yaml", *rates, "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert 1.95 < found["epsilon"] <= 2.0
    assert [each["settings"] for each in found["tries"]] == [
        [f"training.learning_rate={rate}"] for rate in ("0.1", "0.5", "1.0")
    ]
    assert all(0.9 < each["epsilon"] < 1.3 for each in found["tries"])
    assert found["best"]["value"] == max(each["value"] for each in found["tries"])
    assert ledger_kinds(fedsci).count("settle") == 3
    budget = json.loads(fedsci("privacy", "budget", "lab-1.yaml", "--json").out)["budgets"][0]
    assert budget["epsilon_fixed_in_advance"] == pytest.approx(found["epsilon"], rel=2e-3)


@pytest.mark.slow
def test_each_try_may_be_charged_in_full(fedsci, study, rates):
    study.private(epsilon=1.0)
    found = json.loads(fedsci("tune", "study.yaml", *rates, "--each", "--json").out)
    assert all(each["epsilon"] == pytest.approx(1.0, rel=2e-3) for each in found["tries"])
    assert found["epsilon"] > 1.5


def test_a_search_that_does_not_fit_is_refused_before_the_first_try(fedsci, study, rates):
    study.private(epsilon=3.0)
    outcome = fedsci("tune", "study.yaml", *rates, "--each")
    assert outcome.code == 3
    assert "lab-1: all 3 tries together would take the enforced epsilon of tumours to" in outcome.error_line
    assert "1 of them would fit" in outcome.error_line
    assert not (fedsci.folder / "runs").exists()
    assert not (fedsci.folder / ".fedsci").exists()


@pytest.mark.slow
def test_without_privacy_nothing_is_charged_and_it_says_so(fedsci, study):
    outcome = fedsci("tune", "study.yaml", "--try", "training.rounds=1,3")
    assert outcome.code == 0
    assert "NO privacy guarantee" in outcome.err
    assert "best: training.rounds=" in outcome.out
    assert "none" in outcome.out


@pytest.mark.slow
def test_noise_that_hides_the_difference_is_named(fedsci, study):
    study.sites["lab-2"]["policy"]["exact_evaluation"] = False
    study.private(epsilon=0.5)
    outcome = fedsci("tune", "study.yaml", "--try", "training.learning_rate=0.4999,0.5")
    assert outcome.code == 0, outcome.err
    assert " +- " in outcome.out
    assert "do not read much into it" in outcome.out


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("training.learning_rate", "expected key=value,value"),
        ("=1,2", "expected key=value,value"),
        ("training.learning_rate=", "expected key=value,value"),
        ("privacy.epsilon=1,2", "privacy.epsilon is not a setting to search over"),
        ("seed=1,2", "seed is not a setting to search over"),
        ("privacy.mechanism=none,local", "do not have one mechanism"),
        (f"seed_of={','.join(map(str, range(65)))}", "65 combinations are more than 64"),
        ("training.lerning_rate=1,2", "lerning_rate"),
    ],
)
def test_what_cannot_be_searched_over_is_refused(fedsci, study, grid, message):
    study.private(epsilon=1.0)
    outcome = fedsci("tune", "study.yaml", "--try", grid)
    assert outcome.code == 2
    assert message in outcome.error_line
    assert not (fedsci.folder / "runs").exists()


def test_what_makes_no_model_is_refused_before_it_costs_anything(fedsci, study):
    study.private(epsilon=1.0)
    once = ("--set", "strategy=feature_statistics", "--set", "training.rounds=1")
    outcome = fedsci("tune", "study.yaml", *once, "--try", "training.sample_rate=0.5,1")
    assert outcome.code == 2
    assert "feature_statistics makes no model, so no try could be measured" in outcome.error_line
    assert not (fedsci.folder / "runs").exists()


@pytest.mark.slow
def test_a_failed_try_does_not_end_the_search(fedsci, study):
    outcome = fedsci("tune", "study.yaml", "--try", "training.learning_rate=0.5,1e38", "--json")
    assert outcome.code == 0, outcome.err
    first, second = json.loads(outcome.out)["tries"]
    assert first["value"] is not None
    assert "error" in second or second["value"] is not None
