"""``fedsci data stats``: what all labs hold together, with its noise and its price."""

import json

import pytest


@pytest.fixture
def measured(fedsci, study):
    """Run the command and return the outcome; all labs let it run."""
    for values in study.sites.values():
        values["policy"]["strategies"].append("feature_statistics")
    study.write()
    return lambda *more: fedsci("data", "stats", "study.yaml", *more)


@pytest.mark.slow
def test_without_privacy_a_table_of_pooled_statistics_is_shown(measured):
    outcome = measured()
    assert (outcome.code, outcome.err) == (0, "")
    assert "training records of all labs together" in outcome.out
    line = next(line for line in outcome.out.splitlines() if line.strip().startswith("mean_radius"))
    assert "5 to 30" in line
    assert "+-" not in outcome.out
    assert "benign (target), records" in outcome.out
    assert "no privacy guarantee" in outcome.out


@pytest.mark.slow
def test_json_says_everything_with_the_noise_and_the_price(measured, study, fedsci):
    study.private(epsilon=2.0)
    outcome = measured("--json", "--set", "privacy.scaling_share=0.5")
    assert (outcome.code, outcome.err) == (0, "")
    facts = json.loads(outcome.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert facts["study"] == "tumours.scaling"
    assert facts["privacy"] == {"unit": "record", "epsilon": pytest.approx(1.0, abs=0.01), "delta": 5e-6}
    radius = facts["columns"]["mean_radius"]
    assert set(radius) == {"mean", "deviation", "missing", "min", "max", "warnings"}
    assert radius["mean"]["noise_deviation"] > 0
    assert abs(radius["mean"]["value"] - 14.1) < 6 * radius["mean"]["noise_deviation"]
    assert set(facts["target"]["counts"]) == {"no", "yes"}
    assert (fedsci.folder / facts["run_folder"] / "privacy_statement.md").exists()
    assert "This cost each record epsilon" in measured("--set", "privacy.scaling_share=0.5").out


@pytest.mark.slow
def test_it_draws_on_the_budget_each_time(measured, study, fedsci):
    study.private(epsilon=3.0)
    codes = [measured("--set", "privacy.scaling_share=0.9").code for _ in range(4)]
    assert codes[0] == 0
    assert codes[-1] == 3  # of 4


@pytest.mark.slow
def test_plan_and_run_agree_about_both_studies(measured, study, fedsci):
    measured  # noqa: B018  the labs' policies
    study.private(epsilon=2.0)
    study.values["features"]["scaling"] = "federated"
    study.write()
    planned = fedsci("privacy", "plan", "study.yaml", "--json")
    assert planned.code == 0, planned.err
    facts = json.loads(planned.out)
    assert facts["epsilon"] == pytest.approx(2.0, abs=0.01)
    assert (facts["delta"], facts["scaling"]["delta"]) == (pytest.approx(1e-5), pytest.approx(1e-6))
    assert "Two studies: first tumours.scaling" in " ".join(fedsci("privacy", "plan", "study.yaml").out.split())
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert outcome.code == 0, outcome.err
    for site, spent in fedsci.summary(outcome)["privacy"]["by_site"].items():
        each = facts["by_site"][site]
        assert facts["epsilon"] == pytest.approx(spent["epsilon_spent_study"], rel=1e-9)
        assert facts["scaling"]["epsilon"] == pytest.approx(spent["epsilon_spent_scaling"], rel=1e-9)
        assert each["epsilon_enforced_before"] == 0
        assert each["epsilon_enforced_after"] == pytest.approx(spent["epsilon_enforced_total"], rel=1e-9)


@pytest.mark.parametrize("refuses", ["feature_statistics", "dp_fedsgd"])
def test_plan_and_run_agree_on_who_refuses(fedsci, study, refuses):
    for values in study.sites.values():
        values["policy"]["strategies"] = ["dp_fedsgd", "fedavg", "feature_statistics"]
    study.private(epsilon=2.0)
    study.values["features"]["scaling"] = "federated"
    study.sites["lab-2"]["policy"]["strategies"].remove(refuses)
    study.write()
    facts = json.loads(fedsci("privacy", "plan", "study.yaml", "--json").out)
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert facts["exit_code"] == outcome.code == 4
    assert outcome.error_line == f"fedsci: lab-2: {facts['by_site']['lab-2']['refusal']}"
    assert repr(refuses) in outcome.error_line
