"""``bom.cdx.json``: valid CycloneDX 1.6, and every field follows from the run's files."""

import json
import re
import uuid
from copy import deepcopy
from pathlib import Path

import pytest

from fedsci.errors import InputError, VerificationFailed
from fedsci.names import digest
from fedsci.reporting import bom
from fedsci.reporting.bom import check_bom, render_bom, write_bom
from fedsci.reporting.card_facts import card_values


def read(folder):
    return json.loads((folder / "bom.cdx.json").read_text())


def leaves(values, path=()):
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        if isinstance(value, dict | list) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def with_own_changed(values, path):
    wrong = deepcopy(values)
    inner = wrong
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = 2 if isinstance(inner[path[-1]], int) else f"{inner[path[-1]]}x"
    return wrong


def test_it_is_valid_by_the_published_schema(audited):
    schemas = pytest.importorskip("cyclonedx.schema", reason="cyclonedx-python-lib ships the schemas")
    jsonschema = pytest.importorskip("jsonschema")
    referencing = pytest.importorskip("referencing")
    folder = Path(schemas.__file__).parent / "_res"

    def schema(name):
        return json.loads((folder / f"{name}.SNAPSHOT.schema.json").read_text())

    others = [
        (f"http://cyclonedx.org/schema/{name}.SNAPSHOT.schema.json", referencing.Resource.from_contents(schema(name)))
        for name in ("spdx", "jsf-0.82")
    ]
    check = jsonschema.Draft7Validator(schema("bom-1.6"), registry=referencing.Registry().with_resources(others))
    assert [error.message for error in check.iter_errors(read(audited))] == []
    broken = read(audited)
    broken["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"][0]["value"] = 0.9
    assert list(check.iter_errors(broken)), "a number where the schema wants a text must be noticed"


def test_it_has_what_an_ml_bom_needs(made):
    document = read(made)
    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", document["serialNumber"])
    assert uuid.UUID(document["serialNumber"]).version == 8
    model = document["metadata"]["component"]
    content = (made / "model.safetensors").read_bytes()
    assert model["type"] == "machine-learning-model"
    assert model["hashes"] == [{"alg": "SHA-256", "content": digest(content).removeprefix("sha256:")}]
    card = model["modelCard"]
    assert set(card) == {"modelParameters", "quantitativeAnalysis", "considerations"}
    assert card["considerations"]["useCases"] == ["Research on *tumours* only."]
    figures = {(each["slice"], each["type"]): each for each in card["quantitativeAnalysis"]["performanceMetrics"]}
    summary = json.loads((made / "summary.json").read_text())
    assert float(figures["federated", "accuracy"]["value"]) == summary["metrics"]["federated"]["accuracy"]
    assert not any(where.startswith("lab-3/") for where, _ in figures)


def test_software_is_named_as_it_was_when_it_ran(made):
    summary = json.loads((made / "summary.json").read_text())
    named = {each["name"]: each for each in read(made)["components"] if "purl" in each}
    assert {name: each["version"] for name, each in named.items()} == {
        "fedsci": summary["fedsci"],
        **summary["versions"],
    }
    assert all(re.fullmatch(r"pkg:pypi/[a-z0-9-]+@[A-Za-z0-9.%-]+", each["purl"]) for each in named.values())


def test_every_reference_leads_somewhere(audited):
    document = read(audited)
    refs = [each["bom-ref"] for each in [document["metadata"]["component"], *document["components"]]]
    assert len(set(refs)) == len(refs)
    used = {ref for each in document["dependencies"] for ref in (each["ref"], *each["dependsOn"])}
    used |= {each["ref"] for each in document["metadata"]["component"]["modelCard"]["modelParameters"]["datasets"]}
    assert used <= set(refs)
    for each in document["components"]:
        for reference in each.get("externalReferences", []):
            assert (audited / reference["url"]).is_file()


def test_data_is_named_by_record_and_custodian(audited):
    data = {each["bom-ref"]: each for each in read(audited)["components"] if each["type"] == "data"}
    lab = data["data:lab-2"]
    assert lab["licenses"] == [{"expression": "CC-BY-4.0"}]
    assert lab["data"][0]["governance"]["custodians"] == [{"organization": {"name": "lab-2"}}]
    record = next(each["value"] for each in lab["properties"] if each["name"] == "fedsci:record")
    assert record == card_values(audited)["data"]["labs"]["lab-2"]["record"]


def test_the_same_run_has_the_same_number(made):
    values = card_values(made)
    one, two = (json.loads(render_bom(values, card=digest(b"card")))["serialNumber"] for _ in range(2))
    other = json.loads(render_bom(values, card=digest(b"another")))["serialNumber"]
    assert one == two != other


@pytest.mark.slow
def test_every_field_that_is_changed_is_named(made, monkeypatch, tmp_path):
    values, right = card_values(made), read(made)
    monkeypatch.setattr(bom, "card_values", lambda folder: values)
    (tmp_path / "model_card.md").write_bytes((made / "model_card.md").read_bytes())
    found = [path for path, _ in leaves(right)]
    assert len(found) > 300
    for path in found:
        (tmp_path / "bom.cdx.json").write_text(json.dumps(with_own_changed(right, path), indent=2) + "\n")
        with pytest.raises(VerificationFailed, match=r"bom\.cdx\.json: ") as caught:
            check_bom(tmp_path)
        assert f"bom.cdx.json: {'.'.join(map(str, path))} is " in caught.value.message


@pytest.mark.parametrize("content", [b"", b"\xff", b"{", b"[" * 100_000, b"null"])
def test_what_is_no_bom_is_refused(run, content):
    (run / "bom.cdx.json").write_bytes(content)
    with pytest.raises(VerificationFailed, match=r"bom\.cdx\.json"):
        check_bom(run)


def test_other_spelling_is_refused(run):
    file = run / "bom.cdx.json"
    file.write_text(json.dumps(json.loads(file.read_text())))
    with pytest.raises(VerificationFailed, match="line 1 is not as fedsci writes it"):
        check_bom(run)


def test_another_card_is_found(run):
    (run / "model_card.md").write_text("another")
    with pytest.raises(VerificationFailed, match=r"externalReferences\.0\.hashes|serialNumber"):
        check_bom(run)


def test_without_a_card_there_is_none(run):
    (run / "model_card.md").unlink()
    with pytest.raises(InputError, match=r"model_card\.md is missing"):
        write_bom(run)
