"""``privacy_statement.md``: written by every private run, in agreement with its files, or not at all."""

import json
import re
import shutil

import pytest
import yaml

from fedsci.site.round import Contributor
from fedsci.site.service import SiteService

SECTIONS = [
    "To be decided by a person",
    "What it means for one record",
    "Unit of privacy",
    "Guarantee",
    "Trust model",
    "Threat model",
    "Mechanism and sensitivity",
    "Bounds of the data",
    "Floating point",
    "Side channels",
    "What was exposed before noise",
    "Composition over time",
    "Parameters before conversion",
    "Released without noise",
    "Choices that depend on data",
    "Utility and bias",
    "Collection of the data",
    "Access control",
]


def distributed(study, *, epsilon=3.0):
    study.values["privacy"] = {"mechanism": "distributed", "epsilon": epsilon, "colluding_sites": 1}
    for site in study.sites.values():
        site["policy"]["mechanisms"] = ["distributed", "local", "none"]
    study.write()


@pytest.fixture
def finished(fedsci, study):
    """The folder of a finished study with distributed noise."""
    distributed(study)
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert outcome.code == 0, outcome.err
    return fedsci.folder / outcome.folder


def test_every_private_run_leaves_one_with_all_that_is_asked(finished):
    text = (finished / "privacy_statement.md").read_text()
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == SECTIONS
    summary = json.loads((finished / "summary.json").read_text())
    spent = summary["privacy"]["by_site"]["lab-1"]
    for part in (
        summary["plan_digest"],
        "completed after 3 rounds",
        f"Epsilon **{spent['epsilon_spent_study']:.2f}** at delta **1e-05**",
        "add or remove one record",
        "event-level",
        f"| lab-1 | {spent['rdp_order']} | {spent['rdp_study']:.6g} | {spent['rdp_total']:.6g} |",
        f"Noise multiplier {spent['noise_multiplier']:.6g}",
        "another lab, or the coordinator with one (planned for)",
        "if masking were broken",
        "3 labs in 3",
        "Exact test results of the shared model",
        "docs/privacy.md",
    ):
        assert part in text, part


@pytest.mark.slow
def test_local_noise_holds_against_everybody(fedsci, study):
    study.private()
    folder = fedsci.folder / fedsci("run", "study.yaml", "--quiet").folder
    text = (folder / "privacy_statement.md").read_text()
    assert "holds against everybody" in text
    assert "if masking were broken" not in text


def test_it_is_written_again_the_same(fedsci, finished):
    before = (finished / "privacy_statement.md").read_bytes()
    (finished / "privacy_statement.md").unlink()
    outcome = fedsci("privacy", "statement", finished)
    assert (outcome.code, outcome.out.strip()) == (0, str(finished / "privacy_statement.md"))
    assert (finished / "privacy_statement.md").read_bytes() == before


@pytest.mark.slow
def test_what_needs_a_decision_is_flagged(fedsci, study):
    study.private(epsilon=1.0)
    assert fedsci("run", "study.yaml", "--quiet", "--set", "privacy={mechanism: none}").code == 0
    more = ["privacy.delta=1.0e-4", "task.target=benign"]
    outcome = fedsci("run", "study.yaml", "--quiet", *(word for each in more for word in ("--set", each)))
    assert outcome.code == 0, outcome.err
    text = (fedsci.folder / outcome.folder / "privacy_statement.md").read_text()
    assert "**Delta 0.0001 is above 1e-05.**" in text
    assert "**Studies without any privacy have run on the same data at lab-1, lab-2, lab-3.**" in text


def spent(summary):
    return summary["privacy"]["by_site"]["lab-2"]


EDITS = {
    "a smaller epsilon": lambda s: spent(s).update(epsilon_spent_study=0.5),
    "more noise": lambda s: spent(s).update(noise_multiplier=50.0),
    "fewer rounds charged": lambda s: spent(s).update(rounds_charged=1),
    "a smaller divergence": lambda s: spent(s).update(rdp_study=0.01),
    "less in all": lambda s: spent(s).update(epsilon_enforced_total=0.1),
    "less in all, twice": lambda s: spent(s).update(rdp_total=0.001, epsilon_enforced_total=0.0),
    "nothing spent": lambda s: spent(s).update(epsilon_spent_total=0.0),
    "beyond the budget": lambda s: spent(s).update(epsilon_budget=1.0),
    "a figure left out": lambda s: spent(s).pop("budget_delta"),
    "a lab left out": lambda s: s["privacy"]["by_site"].pop("lab-2"),
    "another cohort": lambda s: s["sites"].append("lab-4"),
    "a smaller delta": lambda s: s["privacy"].update(delta=1e-9),
    "another mechanism": lambda s: s["privacy"].update(mechanism="local"),
    "another unit": lambda s: s["privacy"].update(unit="site"),
    "masking that was not there": lambda s: s["secure_aggregation"].update(enabled=False),
    "more survivors": lambda s: s["secure_aggregation"].update(min_survivors=2),
    "a dropped lab": lambda s: s["secure_aggregation"]["dropped"].append(["lab-3", 1]),
    "fewer rounds": lambda s: s.update(rounds_completed=2),
    "another plan": lambda s: s.update(plan_digest="sha256:" + "0" * 64),
    "another end": lambda s: s.update(status="finished"),
    "no records": lambda s: s["metrics"]["by_site"]["lab-1"].update(records=None),
}


def refused(fedsci, folder):
    (folder / "privacy_statement.md").unlink(missing_ok=True)
    outcome = fedsci("privacy", "statement", folder)
    assert (outcome.code, outcome.out) == (2, ""), outcome.out
    assert outcome.hint_line
    assert not (folder / "privacy_statement.md").exists()
    return outcome.error_line


@pytest.mark.slow
def test_an_edited_summary_gets_no_statement(fedsci, finished, tmp_path):
    for number, (what, edit) in enumerate(EDITS.items()):
        copy = tmp_path / f"copy-{number}"
        shutil.copytree(finished, copy)
        summary = json.loads((copy / "summary.json").read_text())
        edit(summary)
        (copy / "summary.json").write_text(json.dumps(summary))
        assert "no statement can be made from files that do not agree" in refused(fedsci, copy), what


def test_other_files_that_do_not_fit_get_none_either(fedsci, finished, tmp_path):
    def copied(name):
        return shutil.copytree(finished, tmp_path / name)

    folder = copied("plan")
    plan = yaml.safe_load((folder / "plan.yaml").read_text())
    plan["study"]["privacy"]["epsilon"] = 0.1
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    assert "the digest in plan.yaml is not that of the plan" in refused(fedsci, folder)
    folder = copied("rounds")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    assert "metrics.jsonl does not hold the 3 rounds" in refused(fedsci, folder)
    (folder / "metrics.jsonl").write_text("\n".join(lines).replace('"sites": 3', '"sites": 17') + "\n")
    assert "does not add up" in refused(fedsci, folder)
    (folder / "summary.json").write_text("{")
    assert "no readable summary.json" in refused(fedsci, folder)
    folder = copied("no-plan")
    (folder / "plan.yaml").unlink()
    assert "no readable plan.yaml" in refused(fedsci, folder)


def test_a_run_that_released_nothing_has_nothing_to_state(fedsci, study):
    study.private()
    study.sites["lab-2"]["policy"]["approval"] = "manual"
    study.write()
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert outcome.code == 4
    assert not (fedsci.folder / outcome.folder / "privacy_statement.md").exists()
    refused(fedsci, fedsci.folder / outcome.folder)


@pytest.mark.slow
def test_text_from_a_study_stays_text(fedsci, study):
    distributed(study)
    study.values["question"] = "Is it *bold* <b>or</b>\n# not | `x`?"
    study.write()
    folder = fedsci.folder / fedsci("run", "study.yaml", "--quiet").folder
    text = (folder / "privacy_statement.md").read_text()
    assert "\n# not" not in text
    assert "\\<b\\>or" in text


@pytest.mark.slow
def test_a_run_without_privacy_gets_none(fedsci, study):
    folder = fedsci.folder / fedsci("run", "study.yaml", "--quiet").folder
    assert not (folder / "privacy_statement.md").exists()
    assert "no privacy guarantee (privacy.mechanism: none)" in refused(fedsci, folder)


def test_an_aborted_run_states_what_it_released_and_what_stays_charged(fedsci, finished):
    """As left by a run whose third round was computed at the labs and never finished, one lab gone silent."""
    summary = json.loads((finished / "summary.json").read_text())
    summary.update(status="aborted", reason="round 3: only 2 of 3 sites finished", rounds_completed=2)
    summary["privacy"]["by_site"]["lab-2"]["settled"] = False
    (finished / "summary.json").write_text(json.dumps(summary))
    lines = (finished / "metrics.jsonl").read_text().splitlines()
    (finished / "metrics.jsonl").write_text("\n".join(lines[:2]) + "\n")
    assert fedsci("privacy", "statement", finished).code == 0
    text = (finished / "privacy_statement.md").read_text()
    assert "**aborted** after 2 of 3 rounds" in text
    assert "round 3: only 2 of 3 sites finished" in text
    assert "Not settled at lab-2: there the charge for the whole plan stays." in text
    assert re.search(r"\| lab-1 \| \d+ \| 3 \|", text)


@pytest.mark.slow
def test_a_lab_that_crashed_and_one_that_never_settled_are_in_it(fedsci, study, monkeypatch):
    study = type(study)(study.folder, labs=4)
    distributed(study)
    contribution, finish = Contributor.contribution, SiteService._finish

    def crash(self, model, number, **rest):
        if self.name == "lab-3" and number == 2:
            raise MemoryError
        return contribution(self, model, number, **rest)

    def vanish(self, request):
        if self.site.site == "lab-2":
            raise OSError("gone")
        return finish(self, request)

    monkeypatch.setattr(Contributor, "contribution", crash)
    monkeypatch.setattr(SiteService, "_finish", vanish)
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert outcome.code == 0, outcome.err
    sites = fedsci.summary(outcome)["privacy"]["by_site"]
    assert {site: each["settled"] for site, each in sites.items() if not each["settled"]} == {"lab-2": False}
    assert sites["lab-2"]["epsilon_spent_study"] == sites["lab-1"]["epsilon_spent_study"] > 2.9
    text = (fedsci.folder / outcome.folder / "privacy_statement.md").read_text()
    assert "3 labs in 1, 4 labs in 2" in text
    assert "Not settled at lab-2" in text


def protect(study, unit):
    """Labs with two rows a patient, which let no exact results leave; distributed noise for each ``unit``."""
    grouping = {"group_by": "patient"} if unit == "group" else {}
    study.use_csv()
    distributed(study)
    rows = [f"{10 + i % 15},{('low', 'high')[i % 2]},{i % 2},p{i // 2}" for i in range(80)]
    for lab in study.labs:
        (study.folder / f"{lab}.csv").write_text("\n".join(["radius,grade,benign,patient", *rows]) + "\n")
        study.sites[lab]["policy"]["exact_evaluation"] = False
        study.sites[lab]["datasets"]["tumours"]["privacy"] |= {"unit": unit} | grouping
    study.values["privacy"] |= {"unit": unit} | grouping
    study.write()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("unit", "words"),
    [
        ("record", ["add or remove one record at one lab", "every record's gradient is scaled", "event-level"]),
        (
            "group",
            [
                "add or remove one group at one lab",
                "with the same patient",
                "gradients of each group's records is scaled",
            ],
        ),
        ("site", ["add or remove one site", "everything that one lab contributes", "a lab's whole update is scaled"]),
    ],
)
def test_it_names_what_is_protected_and_calls_no_noised_result_exact(fedsci, study, unit, words):
    protect(study, unit)
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert outcome.code == 0, outcome.err
    assert (fedsci.summary(outcome)["metrics"]["federated"] is None) == (unit == "site")
    text = (fedsci.folder / outcome.folder / "privacy_statement.md").read_text()
    for part in words:
        assert part in text, part
    assert "Exact test results" not in text
    assert ("event-level" in text) == (unit == "record")
    planned = json.loads(fedsci("privacy", "plan", "study.yaml", "--json").out)
    assert planned["neighbouring"] == f"add_or_remove_one_{unit}"


@pytest.mark.slow
def test_a_lab_that_stopped_early_and_never_settled_keeps_what_it_reserved_and_no_more(fedsci, study, monkeypatch):
    distributed(study)
    study.values["training"]["rounds"] = 40
    for site in study.sites.values():
        site["datasets"]["tumours"]["privacy"] |= {"epsilon": 2.5, "when_exceeded": "stop"}
    study.write()
    finish = SiteService._finish

    def vanish(self, request):
        if self.site.site == "lab-2":
            raise OSError("gone")
        return finish(self, request)

    monkeypatch.setattr(SiteService, "_finish", vanish)
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert outcome.code == 0, outcome.err
    sites = fedsci.summary(outcome)["privacy"]["by_site"]
    assert [sites[lab]["settled"] for lab in study.labs] == [True, False, True]
    for figure in ("rounds_charged", "epsilon_spent_study", "rdp_study"):
        assert sites["lab-2"][figure] == sites["lab-1"][figure]
    assert "Not settled at lab-2" in (fedsci.folder / outcome.folder / "privacy_statement.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("unit", "told"),
    [("group", "all rows of a lab's data set with the same"), ("site", "everything that one lab contributes")],
)
def test_another_unit_is_stated_and_planned_as_what_it_is(fedsci, study, unit, told):
    distributed(study)
    grouped = {"unit": unit} | ({"group_by": "patient"} if unit == "group" else {})
    study.values["privacy"] |= grouped
    study.use_csv()
    for lab in study.labs:
        study.sites[lab]["datasets"]["tumours"]["privacy"] |= grouped
        table = study.folder / f"{lab}.csv"
        head, *rows = table.read_text().splitlines()
        table.write_text("\n".join([f"{head},patient", *(f"{row},p{at // 2}" for at, row in enumerate(rows))]) + "\n")
    study.write()
    planned = fedsci("privacy", "plan", "study.yaml")
    assert f"What it means for one {unit}" in planned.out
    assert "for one record" not in planned.out
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert outcome.code == 0, outcome.err
    text = (fedsci.folder / outcome.folder / "privacy_statement.md").read_text()
    assert told in text
    assert f"add or remove one {unit}" in text
    assert "one record" not in text


@pytest.mark.slow
def test_noised_results_are_not_said_to_be_exact(fedsci, study):
    distributed(study)
    study.values["evaluation"] = {"baselines": []}
    for lab in study.labs:
        study.sites[lab]["policy"] |= {"exact_evaluation": False, "show_own_metrics": False}
    study.write()
    outcome = fedsci("run", "study.yaml", "--quiet")
    text = (fedsci.folder / outcome.folder / "privacy_statement.md").read_text()
    assert "Exact test results" not in text
    assert "No test results without noise." in text
