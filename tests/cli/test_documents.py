"""``model_card.md`` and ``bom.cdx.json`` after a run, ``fedsci model-card`` and ``fedsci export``."""

import json
import re
import zipfile

import pytest
import yaml


@pytest.fixture
def finished(fedsci, study):
    """The folder of a finished study with local noise."""
    study.private()
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert outcome.code == 0, outcome.err
    return fedsci.folder / outcome.folder


def card(folder):
    return yaml.safe_load((folder / "model_card.md").read_text().split("---\n")[1])["fedsci"]


@pytest.mark.slow
def test_every_run_that_releases_a_model_leaves_a_card(fedsci, study):
    outcome = fedsci("run", "study.yaml")
    assert outcome.code == 0, outcome.err
    found = re.search(r"^card       (.+)$", outcome.out, flags=re.MULTILINE)
    assert found is not None
    folder = (fedsci.folder / found[1]).parent
    assert card(folder)["privacy"] == {"mechanism": "none"}
    assert "**No guarantee.**" in (folder / "model_card.md").read_text()
    assert (folder / "bom.cdx.json").exists()


@pytest.mark.slow
def test_what_the_model_is_for_is_the_studys_word(fedsci, study):
    study.values |= {"intended_use": "Research: tumours.", "forbidden_use": "Diagnosis | of *people*\n# none"}
    study.write()
    folder = fedsci.folder / fedsci("run", "study.yaml", "--quiet").folder
    assert card(folder)["forbidden_use"] == study.values["forbidden_use"]
    text = (folder / "model_card.md").read_text()
    assert "## Intended use\n\nResearch: tumours.\n" in text
    assert "Diagnosis \\| of \\*people\\*�\\# none" in text


@pytest.mark.parametrize(("key", "value"), [("intended_use", ""), ("forbidden_use", "x" * 2001), ("intended_use", [1])])
def test_a_use_that_is_no_text_is_refused(fedsci, study, key, value):
    study.values[key] = value
    study.write()
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert outcome.code == 2
    assert key in outcome.error_line


def test_they_are_written_again_the_same(fedsci, finished):
    names = ("model_card.md", "bom.cdx.json")
    before = [(finished / name).read_bytes() for name in names]
    for name in names:
        (finished / name).unlink()
    outcome = fedsci("model-card", finished)
    assert (outcome.code, outcome.out.strip()) == (0, str(finished / "model_card.md"))
    assert [(finished / name).read_bytes() for name in names] == before


def test_files_that_disagree_get_no_card(fedsci, finished):
    summary = json.loads((finished / "summary.json").read_text())
    summary["privacy"]["by_site"]["lab-2"]["epsilon_spent_study"] = 0.5
    (finished / "summary.json").write_text(json.dumps(summary))
    (finished / "model_card.md").unlink()
    outcome = fedsci("model-card", finished)
    assert outcome.code == 2
    assert "epsilon_spent_study" in outcome.error_line
    assert not (finished / "model_card.md").exists()


def test_statistics_are_no_model(fedsci, study):
    study.values |= {"strategy": "feature_statistics", "training": {}}
    for site in study.sites.values():
        site["policy"]["strategies"] = ["feature_statistics"]
    study.write()
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert outcome.code == 0, outcome.err
    assert (fedsci.folder / outcome.folder / "model.safetensors").exists()
    assert not (fedsci.folder / outcome.folder / "model_card.md").exists()
    assert fedsci("export", outcome.folder).code == 0


def test_a_run_that_released_nothing_has_none(fedsci, study):
    study.private()
    study.sites["lab-2"]["datasets"]["tumours"]["privacy"]["epsilon"] = 0.1
    study.write()
    outcome = fedsci("run", "study.yaml")
    assert outcome.code == 3
    assert list(fedsci.folder.rglob("model_card.md")) == []


def test_a_run_is_exported_to_one_file(fedsci, finished):
    (finished / "state").mkdir()
    (finished / "state" / "ledger").write_text("private")
    outcome = fedsci("export", finished)
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == f"{finished.name}.zip"
    assert outcome.err == "left out: state/\n"
    with zipfile.ZipFile(fedsci.folder / outcome.out.strip()) as archive:
        assert "ro-crate-metadata.json" in archive.namelist()
        assert not any(name.startswith("state/") for name in archive.namelist())


def test_a_run_that_was_changed_is_not_exported(fedsci, finished):
    text = (finished / "model_card.md").read_text()
    (finished / "model_card.md").write_text(text.replace("Not stated by the study.", "Anything.", 1))
    outcome = fedsci("export", finished, "--out", "changed.zip")
    assert outcome.code == 6
    assert re.search(r"model_card\.md: line \d+ \(Intended use\) is not what the run's files say", outcome.error_line)
    assert not (fedsci.folder / "changed.zip").exists()


@pytest.mark.parametrize("command", ["model-card", "export"])
def test_a_folder_that_is_no_run_is_refused(fedsci, command):
    outcome = fedsci(command, "nowhere")
    assert outcome.code == 2
    assert "nowhere" in outcome.error_line
    assert outcome.hint_line


@pytest.mark.slow
def test_measuring_the_scaling_is_in_the_card_and_the_crate(fedsci, study):
    study.private()
    study.values["features"] |= {"scaling": "federated"}
    for site in study.sites.values():
        site["policy"]["strategies"].append("feature_statistics")
    study.write()
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert outcome.code == 0, outcome.err
    assert card(fedsci.folder / outcome.folder)["privacy"]["scaling"] == "scaling"
    assert fedsci("export", outcome.folder, "--out", "out.zip").code == 0
    with zipfile.ZipFile(fedsci.folder / "out.zip") as archive:
        assert "scaling/privacy_statement.md" in archive.namelist()


@pytest.mark.slow
def test_a_strategy_of_somebodys_own_runs_as_ever_and_has_no_card(fedsci, study, monkeypatch):
    (fedsci.folder / "cardlab").mkdir()
    (fedsci.folder / "cardlab" / "__init__.py").write_text("")
    (fedsci.folder / "cardlab" / "rules.py").write_text("from fedsci.strategies.fedavg import build\n")
    recipe = {"name": "cardlab.rules", "training": {"rounds": 2}}
    (fedsci.folder / "mine.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.syspath_prepend(fedsci.folder)
    study.values["strategy"] = "mine.yaml"
    for site in study.sites.values():
        site["policy"]["strategies"] = ["cardlab.rules"]
    study.write()
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert outcome.code == 0, outcome.err
    folder = fedsci.folder / outcome.folder
    assert (folder / "report.html").exists()
    assert not (folder / "model_card.md").exists()
