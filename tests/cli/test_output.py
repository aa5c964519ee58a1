"""What the program prints when all is well, and for whom."""

import json

import pytest


@pytest.mark.slow
def test_json_prints_the_summary_and_nothing_else(fedsci, study):
    study.private()
    outcome = fedsci("run", "study.yaml", "--json")
    assert outcome.code == 0
    assert outcome.err == ""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    printed = json.loads(outcome.out, parse_constant=refuse)
    folder = fedsci.folder / printed.pop("run_folder")
    assert printed == json.loads((folder / "summary.json").read_text())
    assert printed["status"] == "completed"


@pytest.mark.slow
def test_json_stays_strict_where_epsilon_is_infinite(fedsci, study):
    outcome = fedsci("run", "study.yaml", "--json")
    assert "Infinity" not in outcome.out
    spent = json.loads(outcome.out)["privacy"]["by_site"]["lab-1"]
    assert spent["epsilon_spent_study"] == spent["epsilon_spent_total"] == "inf"


def test_json_prints_nothing_to_parse_when_the_run_fails(fedsci, study):
    outcome = fedsci("run", "study.yaml", "--json", "--set", "task.target=bening")
    assert (outcome.code, outcome.out) == (2, "")


@pytest.mark.slow
def test_quiet_prints_the_folder_and_nothing_else(fedsci, study):
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.count("\n") == 1
    assert (fedsci.folder / outcome.folder / "summary.json").is_file()


@pytest.mark.slow
def test_a_person_sees_every_lab_the_folder_and_the_report(fedsci, study):
    outcome = fedsci("run", "study.yaml")
    assert outcome.code == 0
    for lab in study.labs:
        assert lab in outcome.out
    assert "no privacy guarantee" in outcome.out
    assert "NO privacy guarantee" in outcome.err
    [folder] = [line.split()[1] for line in outcome.out.splitlines() if line.startswith("run ")]
    [page] = [line.split()[1] for line in outcome.out.splitlines() if line.startswith("report ")]
    assert (fedsci.folder / folder).is_dir()
    assert (fedsci.folder / page).is_file()


def test_a_run_folder_holds_what_the_contract_says(fedsci, study):
    outcome = fedsci("run", "study.yaml", "--quiet", "--out", "results")
    folder = fedsci.folder / outcome.folder
    assert folder.parent == fedsci.folder / "results"
    names = {path.name for path in folder.iterdir()}
    assert {"plan.yaml", "metrics.jsonl", "summary.json", "model.safetensors", "model.json", "report.html"} <= names
    assert not [name for name in names if name.startswith(".")]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2, 3]


def test_report_prints_the_page_it_wrote_again(fedsci, study):
    folder = fedsci("run", "study.yaml", "--quiet").folder
    before = (fedsci.folder / folder / "report.html").read_bytes()
    (fedsci.folder / folder / "report.html").unlink()
    outcome = fedsci("report", folder)
    assert (outcome.code, outcome.out.strip()) == (0, str(folder / "report.html"))
    assert (fedsci.folder / folder / "report.html").read_bytes() == before


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model_and_another_seed_another(fedsci, study):
    def model(*more):
        folder = fedsci("run", "study.yaml", "--quiet", "--set", "strategy=fedavg", *more).folder
        return (fedsci.folder / folder / "model.safetensors").read_bytes()

    first = model()
    assert model() == first
    assert model("--serialise") == first
    assert model("--seed", "8") != first


@pytest.mark.parametrize("name", ["fedavg", "dp_fedsgd"])
def test_every_strategy_listed_can_be_shown(fedsci, name):
    assert name in fedsci("strategies").out
    assert f"name: {name}" in fedsci("strategy", "show", name).out


def test_a_strategy_file_of_ones_own_can_be_shown_and_run(fedsci, study):
    shown = fedsci("strategy", "show", "fedavg").out
    (fedsci.folder / "mine.yaml").write_text(shown.replace("learning_rate: 1.0", "learning_rate: 0.5"))
    assert "learning_rate: 0.5" in fedsci("strategy", "show", "mine.yaml").out
    assert fedsci("run", "study.yaml", "--quiet", "--set", "strategy=mine.yaml").code == 0


def test_the_version_is_one_line(fedsci):
    outcome = fedsci("--version")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("fedsci ")
