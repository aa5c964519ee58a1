"""One lab lets no exact metrics leave: a person sees numbers with their noise, and no answer that they do not give."""

import json
import re

import pytest


@pytest.fixture
def study(study):
    """Three labs with local noise; the second lets no exact metrics leave."""
    study = type(study)(study.folder, labs=4)
    study.private()
    study.values["evaluation"] = {"baselines": ["local", "pooled"]}
    for lab in study.labs:
        study.sites[lab]["policy"]["show_own_metrics"] = False
    study.sites["lab-2"]["policy"]["exact_evaluation"] = False
    study.write()
    return study


@pytest.mark.slow
def test_the_terminal_shows_noise_beside_metrics_and_no_empty_columns(fedsci, study):
    outcome = fedsci("run", "study.yaml")
    assert outcome.code == 0, outcome.err
    assert re.search(r"federated, all holdout records +\d\.\d{3} \+- \d\.\d{3} \(noise\)", outcome.out)
    assert re.search(r"federated, mean of labs +\d\.\d{3} \+- \d\.\d{3} \(noise\)", outcome.out)
    assert "not shown" not in outcome.out
    [head] = [line for line in outcome.out.splitlines() if "lab" in line and "records" in line and "budget" in line]
    assert "federated" not in head
    assert "not every lab lets exact metrics leave" in outcome.out
    assert "no DP" not in head


@pytest.mark.slow
def test_columns_that_some_lab_fills_stay(fedsci, study):
    for lab in study.labs:
        study.sites[lab]["policy"] |= {"exact_evaluation": True, "show_own_metrics": lab != "lab-2"}
    study.write()
    outcome = fedsci("run", "study.yaml")
    assert "not shown" in outcome.out
    assert "(noise)" not in outcome.out
    [head] = [line for line in outcome.out.splitlines() if "lab" in line and "records" in line and "budget" in line]
    assert "federated" in head
    assert "no DP" in head


@pytest.mark.slow
def test_metrics_whose_noise_has_no_known_deviation_say_that_there_is_some(fedsci, study):
    outcome = fedsci("run", "study.yaml", "--set", "evaluation.metrics=[auroc]", "--set", "evaluation.holdout=0.7")
    assert re.search(r"federated, all holdout records +\d\.\d{3} \(with noise\)", outcome.out)
    assert "federated, mean of labs" not in outcome.out


@pytest.mark.slow
def test_the_summary_says_what_is_noised_and_nothing_of_single_labs(fedsci, study):
    outcome = fedsci("run", "study.yaml", "--quiet")
    metrics = fedsci.summary(outcome)["metrics"]
    assert metrics["federated"]["accuracy"] > 0
    assert metrics["noise_deviation"]["accuracy"] > 0
    for values in metrics["by_site"].values():
        assert [values[label] for label in ("federated", "local", "local_no_dp")] == [None] * 3
    json.dumps(metrics, allow_nan=False)


@pytest.mark.slow
def test_the_report_says_that_it_cannot_answer_and_why(fedsci, study):
    outcome = fedsci("run", "study.yaml", "--quiet")
    page = (fedsci.folder / outcome.folder / "report.html").read_text()
    assert "The numbers cannot say." in page
    assert "Whether joining pays cannot be answered from this run." in page
    assert "carry privacy noise" in page
    assert "show no numbers of their own" in page
    assert re.search(r"all test records; noise ± 0\.\d+", page)
    for claim in ("Yes, joining pays", "It makes little difference", "No, a lab alone", "Yes if the model"):
        assert claim not in page
