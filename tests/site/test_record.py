"""Data that its record is no longer true of is refused before a charge, and nobody learns more than the kind."""

import json
import secrets

import pytest

from fedsci.audit.statement import digest_of
from fedsci.config.site import load_site
from fedsci.data.record_columns import columns_of
from fedsci.data.record_writing import MANDATORY, Answers, record_bytes, write_record
from fedsci.errors import DataError
from fedsci.names import Digest
from fedsci.site.dataset import content_digest, describe_file, file_digest, load_columns
from fedsci.site.keystore import Keystore
from fedsci.site.record import published, record_digest, site_record
from fedsci.site.service import SiteService
from fedsci.transport.messages import Request

RECORD = "points.croissant.json"
ANSWERS = Answers(
    name="Points",
    description="Points of a square",
    licence="CC0-1.0",
    creators=("Lab 1",),
    version="1.0.0",
    date="2026-01-31",
    provenance="Drawn",
    sensitivity=("none",),
)
SECRETS = [b""]
CHANGED = "the data is not what its record says"
UNUSABLE = "the data set's record cannot be used"


@pytest.fixture
def lab(make_lab, tmp_path):
    """A lab whose data set has a record, as it is on disk now."""

    def make(*, unit=("record", None), **changes):
        dataset = {"record": RECORD} | changes.pop("dataset", {})
        file = make_lab(dataset=dataset, **changes)
        site = load_site(file)
        source = site.datasets["points"]
        record = write_record(
            ANSWERS,
            file=describe_file(site, source),
            columns=columns_of(load_columns(site, source)),
            privacy_unit=unit,
            identity="lab-1/points",
            earlier=None,
            source="points",
        )
        (tmp_path / RECORD).write_bytes(record_bytes(record))
        return site

    return make


@pytest.fixture
def prepare(make_plan, tmp_path):
    """Ask the site for a study, and return the error that leaves it; none where it prepares."""

    def ask(site, run=None, **fields):
        service = SiteService(site, tmp_path / "state")
        plan = make_plan(secure_aggregation={"enabled": False})
        request = Request(
            action="prepare", fields={"run": run or secrets.token_hex(16), "plan": plan.to_bytes().decode()}
        )
        reply = service.handle(request)
        if reply.error is not None:
            assert [entry.kind for entry in service.ledger.entries()] == [], "refused, and something was charged"
            for private in (str(tmp_path), "points", "lab-1.csv", RECORD):
                assert private not in json.dumps(reply.error)
        return reply.error

    return ask


def edit(tmp_path, change):
    file = tmp_path / RECORD
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def test_a_data_set_that_is_what_its_record_says_is_used(lab, prepare):
    assert prepare(lab()) is None


def first(data):
    return b"b" + data[1:]


CHANGES = {
    "the first byte": first,
    "a byte in the middle": lambda data: data[:300] + (b"9" if data[300:301] != b"9" else b"8") + data[301:],
    "the last byte": lambda data: data[:-1] + b" ",
    "a line end": lambda data: data.replace(b"\n", b"\r\n", 1),
    "a byte more": lambda data: data + b"\n",
    "a byte less": lambda data: data[:-1],
    "a record more": lambda data: data + b"0.5,0.25,1\n",
    "a record less": lambda data: b"\n".join(data.split(b"\n")[:-2]) + b"\n",
    "two records exchanged": lambda data: b"\n".join([*data.split(b"\n")[:-3], *data.split(b"\n")[-3:-1][::-1], b""]),
    "a byte order mark": lambda data: b"\xef\xbb\xbf" + data,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_byte_is_refused_and_nothing_is_charged(lab, prepare, tmp_path, name):
    site, file = lab(), tmp_path / "lab-1.csv"
    before = file.read_bytes()
    file.write_bytes(CHANGES[name](before))
    assert file.read_bytes() != before
    assert prepare(site) == {"code": "data", "exit_code": 2, "message": CHANGED}
    file.write_bytes(before)
    assert prepare(site) is None


@pytest.mark.parametrize("key", [*MANDATORY, "@context", "conformsTo", "distribution", "recordSet"])
def test_a_missing_field_is_refused_and_nothing_is_charged(lab, prepare, tmp_path, key):
    site = lab()
    edit(tmp_path, lambda values: values.pop(key))
    assert prepare(site) == {"code": "data", "exit_code": 2, "message": UNUSABLE}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.unlink(), UNUSABLE),
        (lambda file: file.write_text("{"), UNUSABLE),
        (lambda file: file.write_bytes(b"[" * 100_000), UNUSABLE),
        (
            lambda file: file.write_text(file.read_text().replace("lab-1.csv", "lab-2.csv")),
            "the record is of another data set",
        ),
        (
            lambda file: file.write_text(file.read_text().replace('"record",\n', '"site",\n', 1)),
            "the record is of another privacy unit",
        ),
    ],
    ids=["absent", "no JSON", "deep", "of another file", "of another unit"],
)
def test_a_record_that_cannot_be_this_data_sets_is_refused(lab, prepare, tmp_path, change, message):
    site, before = lab(), (tmp_path / RECORD).read_text()
    change(tmp_path / RECORD)
    assert not (tmp_path / RECORD).exists() or (tmp_path / RECORD).read_text() != before
    assert prepare(site)["message"] == message


def test_a_policy_may_require_records(make_lab, prepare, lab):
    required = {"require_record": True}
    bare = load_site(make_lab(policy=required))
    error = prepare(bare)
    assert (error["code"], error["exit_code"]) == ("policy", 4)
    assert error["message"] == "the data set has no record, and the site's policy requires one"
    assert prepare(load_site(make_lab(policy=required | {"require_record": False}))) is None
    assert prepare(lab(policy=required)) is None


def test_data_that_changes_during_a_study_is_not_used_after_a_restart(lab, make_plan, tmp_path):
    site, run = lab(), secrets.token_hex(16)
    plan = make_plan(secure_aggregation={"enabled": False}).to_bytes().decode()
    first = SiteService(site, tmp_path / "state")
    assert first.handle(Request(action="prepare", fields={"run": run, "plan": plan})).error is None
    file = tmp_path / "lab-1.csv"
    file.write_text(file.read_text() + "0.5,0.25,1\n")
    again = SiteService(site, tmp_path / "state")
    reply = again.handle(Request(action="alone", fields={"run": run, "records": {}, "evaluate": "exact"}))
    assert reply.error is not None
    assert reply.error["code"] == "data"


def test_the_digest_of_a_record_is_of_what_others_see_however_it_is_written(lab, tmp_path):
    site, keystore = lab(), Keystore(tmp_path)
    digest = record_digest(site, "points", keystore)
    assert digest == digest_of(published(site_record(site, "points"), keystore))
    edit(tmp_path, lambda values: None)  # other blanks, no indents
    assert record_digest(site, "points", keystore) == digest
    edit(tmp_path, lambda values: values.update(version="1.0.1"))
    assert record_digest(site, "points", keystore) != digest


def test_what_others_see_of_a_record_does_not_let_them_try_out_its_file(lab, tmp_path, monkeypatch):
    site, keystore = lab(), Keystore(tmp_path)
    monkeypatch.setattr(Keystore, "commitment_key", lambda self: SECRETS[-1])
    record = site_record(site, "points")
    [file] = record.values["distribution"]
    SECRETS.append(b"a" * 32)
    seen = published(record, keystore)
    [shown] = seen["distribution"]
    assert file["sha256"] not in json.dumps(seen)
    assert "contentSize" not in shown
    assert record.values["distribution"] == [file]  # the record itself is as it was
    SECRETS.append(b"b" * 32)  # another site's secret, the same file
    assert published(record, keystore)["distribution"] != [shown]
    assert {key: value for key, value in seen.items() if key != "distribution"} == {
        key: value for key, value in record.values.items() if key != "distribution"
    }


def test_without_a_record_there_is_no_digest(make_lab, tmp_path):
    site = load_site(make_lab())
    assert site_record(site, "points") is None
    assert record_digest(site, "points", Keystore(tmp_path)) is None


def test_a_builtin_part_is_held_to_its_record_too(lab, tmp_path):
    part = {"path": None, "builtin": {"name": "digits", "shard": 1, "of": 3}}
    site = lab(dataset=part)
    assert site_record(site, "points").file == "builtin:digits"
    assert content_digest(site, site.datasets["points"]) == file_digest(site, site.datasets["points"])
    edit(tmp_path, lambda values: values["distribution"][0].update(sha256="0" * 64))
    with pytest.raises(DataError) as raised:
        content_digest(site, site.datasets["points"])
    assert raised.value.public_message == CHANGED


def test_a_path_does_not_leave_with_a_record(lab, tmp_path):
    lab()
    text = (tmp_path / RECORD).read_text()
    for part in tmp_path.parts[1:]:
        assert part not in text
    assert "lab-1.csv" in text


def test_a_digest_is_a_digest(lab):
    site = lab()
    assert content_digest(site, site.datasets["points"]) == Digest(f"sha256:{site_record(site, 'points').sha256}")
