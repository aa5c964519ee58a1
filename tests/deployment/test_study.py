"""A study over real processes, by the commands people use, from founding a consortium to the report."""

import json

import pytest


@pytest.mark.slow
def test_three_labs_finish_a_masked_private_study(deploy):
    consortium = deploy()
    consortium.found()
    for lab in consortium.study.labs:
        consortium.start_site(lab)
    outcome = consortium.submit("--wait", "--json")
    assert outcome.code == 0, outcome.err + consortium.said()
    (run,) = consortium.runs()
    assert (run["state"], run["rounds"]) == ("completed", 3)
    folder = consortium.folder / "runs" / run["folder"].rsplit("/", 1)[1]
    assert {path.name for path in folder.iterdir()} >= {
        "plan.yaml", "metrics.jsonl", "summary.json", "model.safetensors", "model.json", "report.html",
        "privacy_statement.md", "model_card.md", "bom.cdx.json",
    }  # fmt: skip
    summary = json.loads(outcome.out)
    assert (summary["engine"], summary["status"], summary["rounds_completed"]) == ("flower", "completed", 3)
    assert summary["secure_aggregation"]["enabled"]
    for lab in consortium.study.labs:
        spent = summary["privacy"]["by_site"][lab]
        assert spent["settled"]
        assert 2.9 < spent["epsilon_spent_study"] <= 3.0
        said = consortium.json("site", "status", f"{lab}.yaml")
        assert (said["running"], said["connected"], said["studies"], said["last_error"]) == (True, True, {}, "")
        assert said["datasets"]["tumours"]["left"] == pytest.approx(4.0 - spent["epsilon_enforced_total"])
    assert consortium.stop("lab-1", "coordinator") == [0, 0]


@pytest.mark.slow
def test_it_is_as_accurate_as_in_one_process_and_a_second_study_queues(deploy):
    consortium = deploy(rounds=25)
    consortium.study.values["training"]["learning_rate"] = 4.0
    for values in consortium.study.sites.values():
        values["datasets"]["tumours"]["privacy"]["epsilon"] = 8.0
    consortium.study.write()
    consortium.found()
    for lab in consortium.study.labs:
        consortium.start_site(lab)
    assert consortium.submit().code == 0
    consortium.until(lambda: consortium.runs()[-1]["state"] == "running")  # of two that wait, whoever is ready is first
    second = consortium.submit("--set", "training.rounds=2", "--set", "privacy.epsilon=1", "--wait", "--json")
    assert second.code == 0, second.err + consortium.said()
    one, two = consortium.runs()
    assert (one["state"], two["state"]) == ("completed", "completed")
    assert one["changed"] < two["changed"]
    deployed = json.loads((consortium.folder / one["folder"] / "summary.json").read_text())

    consortium.study.values["sites"] = [f"{lab}.yaml" for lab in consortium.study.labs]
    consortium.study.write()
    local = json.loads(consortium.good("run", "study.yaml", "--state", "local", "--json").out)
    there, here = (summary["metrics"]["federated"]["accuracy"] for summary in (deployed, local))
    assert here > 0.75
    assert there == pytest.approx(here, abs=0.1)
    assert deployed["plan_digest"] == local["plan_digest"]
