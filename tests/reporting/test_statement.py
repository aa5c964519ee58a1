"""``privacy_statement.md``: every field of NIST SP 800-226 is filled truthfully, or there is no statement."""

import re
from dataclasses import replace

import pytest

from fedsci.errors import InputError, VerificationFailed
from fedsci.reporting import statement


def fields(run):
    text = (run / "privacy_statement.md").read_text()
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_no_field_is_blank(made):
    for title, body in fields(made).items():
        assert len(body.strip()) > 40, title


def test_a_simulation_is_called_one(made):
    found = fields(made)
    assert "This run was a simulation" in found["Threat model"]
    assert "nothing kept the labs apart" in found["Access control"]
    assert "simulated on one machine" in found["To be decided by a person"]


def test_data_without_a_record_is_not_described(made):
    assert "**not stated**" in fields(made)["Collection of the data"]
    assert "No record of the data was signed at lab-1, lab-2, lab-3" in fields(made)["To be decided by a person"]


def test_data_is_described_as_its_record_says(audited):
    assert "lab-2: Measured on images of cells, 1995." in fields(audited)["Collection of the data"]
    assert "not stated" not in fields(audited)["Collection of the data"]


@pytest.mark.parametrize(
    ("title", "change"),
    [
        ("To be decided by a person", lambda summary: summary.update(engine="")),
        ("To be decided by a person", lambda summary: summary.update(engine="another")),
        ("Guarantee", lambda summary: summary["versions"].pop("dp-accounting")),
        ("Utility and bias", lambda summary: summary["metrics"].pop("primary")),
    ],
)
def test_what_cannot_be_filled_fails_by_name(run, edit, title, change):
    edit(run / "summary.json", change)
    (run / "privacy_statement.md").unlink()
    with pytest.raises(InputError, match=rf"privacy_statement\.md, '{title}': "):
        statement.write_statement(run)
    assert not (run / "privacy_statement.md").exists()


def test_a_record_that_does_not_say_how_fails_by_name(run, add_record):
    add_record(run, "lab-2", **{"rai:dataCollection": ""})
    with pytest.raises(InputError, match=r"'Collection of the data': lab-2's record .* how it was collected"):
        statement.write_statement(run)


def test_a_blank_field_fails_by_name(made, monkeypatch):
    monkeypatch.setattr(statement.deployment, "bounds", lambda evidence: " ")
    with pytest.raises(InputError, match="'Bounds of the data': the run's files say nothing of it"):
        statement.render_statement(statement.read_evidence(made))


def test_a_sample_may_show_in_the_time_it_takes(made):
    evidence = statement.read_evidence(made)
    assert "sample of records" not in statement.deployment.side_channels(evidence)
    training = evidence.plan.study.training.model_copy(update={"sample_rate": 0.5})
    study = evidence.plan.study.model_copy(update={"training": training})
    sampled = replace(evidence, plan=replace(evidence.plan, study=study))
    assert "sample of records" in statement.deployment.side_channels(sampled)


@pytest.mark.slow
def test_every_line_that_is_changed_is_named(made, run, monkeypatch):
    evidence = statement.read_evidence(made)
    monkeypatch.setattr(statement, "read_evidence", lambda folder: evidence)
    file = run / "privacy_statement.md"
    lines = file.read_text().split("\n")
    statement.check_statement(run)
    for number in range(len(lines)):
        if lines[number].startswith("Run `"):
            continue
        file.write_text("\n".join([*lines[:number], lines[number] + "x", *lines[number + 1 :]]))
        with pytest.raises(VerificationFailed, match=rf"privacy_statement\.md: line {number + 1} "):
            statement.check_statement(run)


def test_it_may_lie_in_another_folder(run, tmp_path):
    statement.check_statement(run.rename(tmp_path / "elsewhere"))


def test_one_of_other_files_is_found(run, edit):
    edit(run / "summary.json", lambda summary: summary["privacy"].update(delta=1e-9))
    with pytest.raises(VerificationFailed, match=r"privacy_statement\.md cannot be held against its run"):
        statement.check_statement(run)
    (run / "privacy_statement.md").unlink()
    with pytest.raises(VerificationFailed, match="missing"):
        statement.check_statement(run)
