"""``model_card.md``: every figure follows from the run's files, and one that does not is named."""

import json
import math
import re
import shutil
from copy import deepcopy

import pytest
import yaml

from fedsci.errors import InputError, VerificationFailed
from fedsci.names import digest
from fedsci.reporting import model_card
from fedsci.reporting.card_facts import card_values, wilson
from fedsci.reporting.model_card import check_model_card, front_matter, render_card, write_model_card
from fedsci.secagg.keys import SigningKey
from fedsci.secagg.seed import Seed


def front(folder):
    return yaml.safe_load((folder / "model_card.md").read_text().split("---\n")[1])


def leaves(values, path=()):
    """Every value that is no section, with its path."""
    items = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in items:
        if isinstance(value, dict | list) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def other(value):
    """A value of the same kind that is slightly another."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return math.nextafter(value, math.inf)
    return f"{value}x" if isinstance(value, str) else "something"


def put(values, path, value):
    for key in path[:-1]:
        values = values[key]
    values[path[-1]] = value


def test_it_says_what_the_run_says(made):
    values, summary = front(made), json.loads((made / "summary.json").read_text())
    card, metrics = values["fedsci"], summary["metrics"]
    assert values["library_name"] == "fedsci"
    assert {"differential-privacy", "secure-aggregation", "dp_fedsgd"} <= set(values["tags"])
    measured = {each["type"]: each["value"] for each in values["model-index"][0]["results"][0]["metrics"]}
    assert measured == {name: value for name, value in metrics["federated"].items() if value is not None}
    assert (
        card["results"]["overall"]["federated"]["accuracy"]["low"] == metrics["intervals"]["federated"]["accuracy"][0]
    )
    assert card["privacy"]["epsilon_by_lab"] == {
        site: spent["epsilon_spent_study"] for site, spent in summary["privacy"]["by_site"].items()
    }
    assert card["privacy"]["accountant"]["version"] == summary["versions"]["dp-accounting"]
    assert card["model"]["digest"] == digest((made / "model.safetensors").read_bytes())


def test_in_words_too(made):
    text = (made / "model_card.md").read_text()
    headings = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert headings == [
        "Intended use", "Forbidden use", "Data", "Results", "Results by lab", "Differential privacy",
        "Secure aggregation", "Training", "Limitations", "Audit log", "How to check this card",
    ]  # fmt: skip
    for part in (
        "Research on \\*tumours\\* only.",
        "Not stated by the study.",
        "3 of 3 labs signed no record",
        "Neighbouring relation: add or remove one record.",
        "simulated on one machine",
        "The run folder holds no checkpoint",
    ):
        assert part in text, part


def test_a_lab_that_hides_its_results_is_in_no_figure(made):
    card = front(made)["fedsci"]["results"]
    assert set(card["labs"]["lab-1"]) == {"federated", "local", "local_no_dp"}
    assert card["labs"]["lab-3"] == {}
    text = (made / "model_card.md").read_text()
    assert "How it does at lab-3 is not shown." in text
    assert re.search(r"^\| lab-3 \| \d+ \| not shown \| not shown \| not shown \|$", text, flags=re.MULTILINE)


def test_it_does_not_depend_on_the_folders_name(made, tmp_path):
    copy = shutil.copytree(made, tmp_path / "elsewhere")
    assert check_model_card(copy) == check_model_card(made) == write_model_card(copy)


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("all_of_them", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_figure_that_is_changed_is_named(made, monkeypatch, tmp_path, all_of_them):
    """One figure of each name; all of them, of all labs and metrics, where there is time."""
    values = card_values(made)
    monkeypatch.setattr(model_card, "card_values", lambda folder, log_size=None: values)
    right = front_matter(deepcopy(values))
    text = render_card(values).split("---\n", 2)[2]
    found = dict(leaves(right))
    if not all_of_them:
        found = {path: found[path] for path in {path[-1]: path for path in found}.values()}
    for path, value in found.items():
        wrong = deepcopy(right)
        put(wrong, path, other(value))
        (tmp_path / "model_card.md").write_text(f"---\n{yaml.safe_dump(wrong, sort_keys=False)}---\n{text}")
        with pytest.raises(VerificationFailed, match=r"model_card\.md: ") as caught:
            check_model_card(tmp_path)
        assert f"model_card.md: {'.'.join(map(str, path))} is " in caught.value.message
    assert len(found) > (150 if all_of_them else 60)


@pytest.mark.slow
def test_every_line_of_the_text_that_is_changed_is_named(made, monkeypatch, tmp_path):
    values = card_values(made)
    monkeypatch.setattr(model_card, "card_values", lambda folder, log_size=None: values)
    lines = render_card(values).split("\n")
    for number in range(lines.index("---", 1), len(lines), 4):
        wrong = [*lines[:number], lines[number] + "x", *lines[number + 1 :]]
        (tmp_path / "model_card.md").write_text("\n".join(wrong))
        with pytest.raises(VerificationFailed, match=f"line {number + 1} "):
            check_model_card(tmp_path)


def better(values):
    values["fedsci"]["results"]["overall"]["federated"]["accuracy"]["value"] = 0.99


def test_a_card_with_a_better_metric_is_found(run):
    values = front(run)
    better(values)
    body = (run / "model_card.md").read_text().split("---\n", 2)[2]
    (run / "model_card.md").write_text(f"---\n{yaml.safe_dump(values, sort_keys=False)}---\n{body}")
    field = "fedsci.results.overall.federated.accuracy.value is 0.99"
    with pytest.raises(VerificationFailed, match=field) as caught:
        check_model_card(run)
    assert caught.value.exit_code == 6
    assert caught.value.file == "model_card.md"
    assert caught.value.field == "fedsci.results.overall.federated.accuracy.value"


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        (
            "summary.json",
            lambda s: s["metrics"]["federated"].update(accuracy=0.99),
            "model-index.0.results.0.metrics.0",
        ),
        ("summary.json", lambda s: s["metrics"]["by_site"]["lab-1"]["local"].update(accuracy=0.1), "lab-1.local"),
        ("summary.json", lambda s: s.update(finished="2020-01-01T00:00:00Z"), "fedsci.finished"),
        ("summary.json", lambda s: s["privacy"]["by_site"]["lab-1"].update(epsilon_spent_study=0.1), "epsilon_spent"),
        ("summary.json", lambda s: s["versions"].pop("dp-accounting"), "versions"),
        ("summary.json", lambda s: s.pop("finished"), "finished"),
        ("summary.json", lambda s: s["metrics"].update(primary="auroc"), "metrics.primary"),
        ("plan.yaml", lambda p: p["study"].update(question="Another?"), "digest"),
        ("model.json", lambda m: m.update(rounds_completed=9), "rounds_completed"),
        ("model.json", lambda m: m.update(digest="sha256:" + "0" * 64), "digest"),
    ],
)
def test_a_card_of_other_files_is_found(run, edit, file, change, named):
    edit(run / file, change)
    with pytest.raises(VerificationFailed, match=r"model_card\.md") as caught:
        check_model_card(run)
    assert named in caught.value.message


def test_another_model_is_found(run):
    content = bytearray((run / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (run / "model.safetensors").write_bytes(content)
    with pytest.raises(VerificationFailed, match=r"model\.json has another digest"):
        check_model_card(run)


@pytest.mark.slow
@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"---\n", b"---\na: &a [*a]\n---\n", b"---\n" + b"[" * 500 + b"\n---\n"]
)
def test_what_is_no_card_is_refused(run, content):
    (run / "model_card.md").write_bytes(content)
    with pytest.raises(VerificationFailed, match=r"model_card\.md"):
        check_model_card(run)


def test_records_and_the_log_are_in_it(audited):
    card = front(audited)
    labs = card["fedsci"]["data"]["labs"]
    assert card["license"] == "cc-by-4.0"
    assert card["datasets"] == sorted(lab["record"] for lab in labs.values())
    assert all((audited / lab["statement"]).is_file() for lab in labs.values())
    assert card["fedsci"]["log"]["size"] == 9
    assert card["fedsci"]["log"]["quorum"] == 2


def test_labs_of_other_licences_have_none_in_common(run, add_record):
    for number, licence in enumerate(["CC-BY-4.0", "CC0-1.0", "CC0-1.0"], start=1):
        add_record(run, f"lab-{number}", license=licence)
    write_model_card(run)
    assert "license" not in front(run)
    assert "The records state no common licence." in (run / "model_card.md").read_text()


def test_two_records_of_one_lab_are_refused(run, add_record):
    add_record(run, "lab-1")
    add_record(run, "lab-1", version="2.0.0")
    with pytest.raises(InputError, match="lab-1 signed two records"):
        write_model_card(run)


def test_a_record_that_is_another_is_found(audited):
    file = next((audited / "audit" / "statements").iterdir())
    file.unlink()
    with pytest.raises(VerificationFailed, match=r"datasets|fedsci\.data\.labs\.lab-\d"):
        check_model_card(audited)


def test_a_card_stays_what_it_was_when_the_log_goes_on(audited, coordinator, add_checkpoint):
    before = check_model_card(audited, key=coordinator.public)
    add_checkpoint(audited, 12)
    assert check_model_card(audited, key=coordinator.public) == before == write_model_card(audited)


def test_a_card_that_leaves_the_log_out_is_found(audited):
    card = audited / "model_card.md"
    head, body = card.read_text().split("---\n", 2)[1:]
    values = yaml.safe_load(head) | {}
    values["fedsci"]["log"] = None
    card.write_text(f"---\n{yaml.safe_dump(values, sort_keys=False)}---\n{body}")
    with pytest.raises(VerificationFailed, match=r"fedsci\.log is None"):
        check_model_card(audited)


def test_a_checkpoint_that_is_gone_is_found(audited):
    (audited / "audit" / "checkpoints" / "9.note").unlink()
    with pytest.raises(VerificationFailed, match="no checkpoint of 9 entries"):
        check_model_card(audited)


def test_it_is_signed_by_the_coordinator(audited, coordinator):
    about = model_card.open_statement(
        "model_card", (audited / "model_card.sig.json").read_bytes(), [coordinator.public]
    )
    assert about.body["digest"] == check_model_card(audited, key=coordinator.public)


def test_another_key_is_refused(audited):
    with pytest.raises(VerificationFailed, match=r"model_card\.sig\.json: the model_card is not signed by key"):
        check_model_card(audited, key=SigningKey(Seed(bytes(32))).public)


def test_a_card_that_is_not_signed_is_refused_where_it_must_be(run, coordinator):
    check_model_card(run)
    with pytest.raises(VerificationFailed, match=r"model_card\.sig\.json is missing"):
        check_model_card(run, key=coordinator.public)


def test_a_signature_of_another_card_is_found(audited, coordinator):
    sidecar = audited / "model_card.sig.json"
    about = dict(model_card.peek(sidecar.read_bytes())[1]) | {"digest": "sha256:" + "0" * 64}
    sidecar.write_bytes(model_card.sign_statement("model_card", about, [coordinator]))
    for key in (None, coordinator.public):
        with pytest.raises(VerificationFailed, match=r"model_card\.sig\.json: digest is"):
            check_model_card(audited, key=key)
    with pytest.raises(InputError, match="is of another card"):
        write_model_card(audited)
    sidecar.write_bytes(model_card.sign_statement("permit", about, [coordinator]))
    with pytest.raises(VerificationFailed, match="not a model_card"):
        check_model_card(audited)


@pytest.mark.parametrize(
    ("share", "records", "low", "high"),
    # R: prop.test(x, n, correct = FALSE)$conf.int
    [(0.5, 10, 0.2366, 0.7634), (0.0, 10, 0.0, 0.2775), (0.9, 100, 0.8256, 0.9448)],
)
def test_wilsons_interval(share, records, low, high):
    assert wilson(share, records) == pytest.approx((low, high), abs=5e-5)
    assert wilson(share, records) != pytest.approx(wilson(share, records + 5), abs=5e-5)
