"""An exported run: an RO-Crate with the evidence, nothing private, and the same bytes each time."""

import hashlib
import json
import os
import zipfile

import pytest

from fedsci.errors import InputError, VerificationFailed
from fedsci.reporting.documents import check_documents
from fedsci.reporting.export import export_run


@pytest.fixture
def export(tmp_path):
    """Export a run, checked as the command does, and return its archive."""

    def make(run, name="out.zip", verify=check_documents):
        return export_run(run, tmp_path / name, verify=verify)

    return make


def read(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def crate(path):
    graph = json.loads(read(path)["ro-crate-metadata.json"])["@graph"]
    return {each["@id"]: each for each in graph}


def test_it_holds_the_evidence_and_is_described(audited, export):
    packed = export(audited)
    contents, entities = read(packed.path), crate(packed.path)
    assert {"plan.yaml", "summary.json", "model.safetensors", "model_card.md", "model_card.sig.json"} <= set(contents)
    assert {"audit/keys.json", "audit/checkpoint", "audit/checkpoints/9.note"} <= set(contents)
    files = {name: each for name, each in entities.items() if each["@type"] == "File"}
    assert set(files) == set(contents) - {"ro-crate-metadata.json"}
    for name, each in files.items():
        assert each["sha256"] == hashlib.sha256(contents[name]).hexdigest()
        assert each["contentSize"] == str(len(contents[name]))
        assert each["description"]
    root = entities["./"]
    assert {each["@id"] for each in root["hasPart"]} == set(files)
    assert entities[root["license"]["@id"]]["name"] == "CC-BY-4.0"
    assert entities["ro-crate-metadata.json"]["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    action = entities[root["mentions"]["@id"]]
    assert entities[action["instrument"]["@id"]]["name"] == "fedsci"


def test_every_reference_leads_somewhere(audited, export):
    entities = crate(export(audited).path)

    def references(value):
        if isinstance(value, dict):
            yield from [value["@id"]] if set(value) == {"@id"} else []
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    inside = {ref for each in entities.values() for ref in references(each) if not ref.startswith("http")}
    assert inside <= set(entities)


def test_readers_of_crates_read_it(audited, export, tmp_path):
    rocrate = pytest.importorskip("rocrate.rocrate", reason="rocrate reads crates")
    with zipfile.ZipFile(export(audited).path) as archive:
        archive.extractall(tmp_path / "crate")
    read_back = rocrate.ROCrate(tmp_path / "crate")
    assert read_back.name == "tumours: a federated study over 3 labs"
    assert read_back.get("model.safetensors")["sha256"]
    assert read_back.root_dataset["mentions"].type == "CreateAction"


def test_an_outsider_can_check_what_is_in_it(audited, export, coordinator, tmp_path):
    with zipfile.ZipFile(export(audited).path) as archive:
        archive.extractall(tmp_path / "elsewhere")
    check_documents(tmp_path / "elsewhere", key=coordinator.public)


def test_the_same_run_gives_the_same_bytes(audited, export):
    one, two = export(audited, "one.zip").path, export(audited, "two.zip").path
    for file in audited.rglob("*"):
        os.utime(file, (1, 1))
    assert one.read_bytes() == two.read_bytes() == export(audited, "three.zip").path.read_bytes()


def test_private_things_stay(run, export):
    for name in (
        "state/lab-1/ledger.sqlite",
        "signing.key",
        "audit/secret.pem",
        "audit/statements/notes.json",
        ".hidden",
    ):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("private")
    packed = export(run)
    assert packed.left_out == (".hidden", "audit/", "signing.key", "state/")
    assert b"private" not in read(packed.path).values()


def test_a_private_key_is_never_packed(run, export):
    (run / "metrics.jsonl").write_bytes(b"-----BEGIN PRIVATE KEY-----\nMC4CAQ\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl holds a private key"):
        export(run, verify=lambda folder: None)


@pytest.mark.parametrize("where", ["metrics.jsonl", "audit/entries.jsonl"])
def test_links_are_not_followed(run, export, tmp_path, where):
    secret = tmp_path / "secret"
    secret.write_text("private")
    (run / where).parent.mkdir(exist_ok=True)
    (run / where).unlink(missing_ok=True)
    (run / where).symlink_to(secret)
    with pytest.raises(InputError, match=f"{where} cannot be packed"):
        export(run, verify=lambda folder: None)


def test_a_linked_folder_is_left_out(run, export, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "entries.jsonl").write_text("private")
    (run / "audit").symlink_to(outside)
    packed = export(run)
    assert packed.left_out == ("audit",)
    assert "audit/entries.jsonl" not in read(packed.path)


def test_what_is_no_plain_file_is_refused(run, export):
    (run / "metrics.jsonl").unlink()
    os.mkfifo(run / "metrics.jsonl")
    with pytest.raises(InputError, match=r"metrics\.jsonl is no plain file"):
        export(run, verify=lambda folder: None)


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("model_card.md", r"model_card\.md"),
        ("bom.cdx.json", r"bom\.cdx\.json"),
        ("privacy_statement.md", r"privacy_statement\.md"),
        ("model.safetensors", r"model\.json has another digest"),
        ("plan.yaml", "digest|plan"),
    ],
)
def test_a_run_that_does_not_check_out_is_not_packed(run, export, tmp_path, file, named):
    content = bytearray((run / file).read_bytes())
    content[len(content) // 2] ^= 1
    (run / file).write_bytes(content)
    with pytest.raises(VerificationFailed, match=named) as caught:
        export(run)
    assert caught.value.exit_code == 6
    assert list(tmp_path.glob("*.zip*")) == []


def test_what_is_checked_is_what_is_packed(run, export):
    seen = []

    def verify(folder):
        seen.append(sorted(file.name for file in folder.rglob("*")))
        (run / "summary.json").write_text("changed since")

    before = (run / "summary.json").read_bytes()
    assert read(export(run, verify=verify).path)["summary.json"] == before
    assert len(seen) == 1


def test_a_file_that_is_there_stays(run, export, tmp_path):
    (tmp_path / "out.zip").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        export(run)
    assert (tmp_path / "out.zip").read_text() == "mine"


def test_a_folder_that_is_no_run_is_refused(export, tmp_path):
    with pytest.raises(InputError, match=r"holds no summary\.json"):
        export(tmp_path)


def test_a_run_that_does_not_say_when_is_refused(run, export, edit):
    edit(run / "summary.json", lambda summary: summary.pop("finished"))
    with pytest.raises(InputError, match="when the run finished"):
        export(run, verify=lambda folder: None)
