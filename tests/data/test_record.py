"""A data-set record is whole, or every fault of it is named; what comes from outside gives one line, never a crash."""

import json
import os
from copy import deepcopy
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.data.record import MOST_BYTES, DataRecord, RecordColumn, parse_values, read_values
from fedsci.data.record_catalogue import Search, read_catalogue
from fedsci.data.record_columns import columns_of, type_faults, with_bounds_from_data, with_earlier
from fedsci.data.record_profile import context, faults_of, licence_ids, read_record
from fedsci.data.record_writing import MANDATORY, Answers, DataFile, record_bytes, write_record
from fedsci.data.table import RawTable
from fedsci.errors import DataError, InputError

ANSWERS = Answers(
    name="Heart",
    description="Patients of one ward",
    licence="CC-BY-4.0",
    creators=("Ward 7",),
    persons=("Ada",),
    version="1.0.0",
    date="2026-01-31",
    provenance="Recorded at admission",
    sensitivity=("health",),
    keywords=("cardiology",),
)
FILE = DataFile(name="ward 7.csv", size_bytes=12, sha256="ab" * 32)
COLUMNS = (
    RecordColumn(name="age", data_type="sc:Integer", minimum=0, maximum=120, unit="years"),
    RecordColumn(name="größe/m²", data_type="sc:Float", unit="m²", description="surface"),
    RecordColumn(name="trace", data_type="sc:Float", shape=(8, 8), minimum=-1, maximum=1.5, unit="mV"),
    RecordColumn(name="kind", data_type="sc:Text", categories=("a", 1, True)),
)


def written(answers=ANSWERS, *, file=FILE, columns=COLUMNS, unit=("record", None), earlier=None):
    return write_record(
        answers, file=file, columns=columns, privacy_unit=unit, identity="lab/heart", earlier=earlier, source="heart"
    )


@pytest.fixture
def values():
    return deepcopy(dict(written().values))


def at(values, pointer):
    for part in pointer.split("/")[1:]:
        values = values[int(part) if isinstance(values, list) else part]
    return values


REQUIRED = [
    *(f"/{key}" for key in [*MANDATORY, "@context", "@type", "conformsTo", "url", "distribution", "recordSet"]),
    *(
        f"/distribution/0/{key}"
        for key in ("@type", "@id", "name", "contentUrl", "contentSize", "encodingFormat", "sha256")
    ),
    *(f"/recordSet/0/{key}" for key in ("@type", "@id", "name", "field")),
    *(f"/recordSet/0/field/1/{key}" for key in ("@type", "@id", "name", "dataType", "source")),
    "/recordSet/0/field/0/source/fileObject/@id",
    "/recordSet/0/field/0/source/extract/column",
    "/creator/0/name",
    "/@context/rai",
]


@pytest.mark.parametrize("pointer", REQUIRED)
def test_each_missing_field_is_named_with_what_would_be_right(values, pointer):
    parent, _, key = pointer.rpartition("/")
    del at(values, parent)[key]
    [fault] = faults_of(values)
    assert (fault.pointer, fault.found) == (pointer, "missing")
    assert len(fault.right) > 3


@pytest.mark.parametrize("pointer", REQUIRED)
@pytest.mark.parametrize("wrong", [None, 5, "", [], {}, "no\nline\x1b[2J"], ids=repr)
def test_each_field_of_a_wrong_kind_is_named(values, pointer, wrong):
    parent, _, key = pointer.rpartition("/")
    if pointer in ("/description", "/rai:dataCollection") and isinstance(wrong, str) and wrong:
        return  # these may have several lines
    at(values, parent)[key] = wrong
    faults = faults_of(values)
    assert faults
    assert all(fault.pointer.startswith(pointer) for fault in faults)
    assert all("\n" not in str(fault) and "\x1b" not in str(fault) for fault in faults)


@pytest.mark.parametrize(
    ("pointer", "wrong", "right"),
    [
        ("/license", "https://spdx.org/licenses/CC-BY-4", "CC-BY-4.0"),
        ("/license", "CC-BY-4.0", "https://spdx.org/licenses/CC-BY-4.0"),
        ("/license", "LicenseRef-", "LicenseRef- and a name"),
        ("/license", "LicenseRef-a b", "LicenseRef- and a name"),
        ("/datePublished", "2026-02-30", "a day that there is"),
        ("/datePublished", "31.01.2026", "2026-01-31"),
        ("/version", "1.0", "MAJOR.MINOR.PATCH"),
        ("/version", "1.0.0\n", "MAJOR.MINOR.PATCH"),
        ("/conformsTo", ["http://mlcommons.org/croissant/1.1"], "RAI/1.0"),
        ("/fedsci:privacyUnit", "group", "only there"),
        ("/fedsci:privacyUnit", "patient", '"group"'),
        ("/rai:personalSensitiveInformation", [], "none"),
        ("/distribution/0/sha256", "AB" * 32, "lower case"),
        ("/distribution/0/sha256", "ab" * 31, "64 hexadecimal"),
        ("/distribution/0/contentUrl", "/srv/patients/ward%207.csv", "'ward%207.csv'"),
        ("/distribution/0/@id", "other.csv", "'ward%207.csv'"),
        ("/recordSet/0/field/0/minValue", 120, "below maxValue"),
        ("/recordSet/0/field/0/minValue", "0", "a number"),
        ("/recordSet/0/field/0/@id", "records/b", "'records/age'"),
        ("/recordSet/0/field/0/dataType", "sc:Text", "numbers only"),
        ("/recordSet/0/field/0/source/extract/column", "b", "'age'"),
        ("/recordSet/0/field/2/arrayShape", "8;8", "8,8"),
        ("/@context/sc", "http://schema.org/", "https://schema.org/"),
    ],
)
def test_each_wrong_value_is_named(values, pointer, wrong, right):
    parent, _, key = pointer.rpartition("/")
    at(values, parent)[key] = wrong
    faults = faults_of(values)
    assert any(right in fault.right for fault in faults), faults


@pytest.mark.parametrize("name", ["/srv/patients.csv", "..", "folder\\patients.csv", "builtin:/etc/passwd"])
def test_a_path_is_no_name_of_a_file(values, name):
    values["distribution"][0]["name"] = name
    assert any(fault.pointer == "/distribution/0/name" for fault in faults_of(values))


def test_a_column_written_twice_and_a_group_without_its_column_are_named(values):
    values["recordSet"][0]["field"].append(values["recordSet"][0]["field"][0])
    values |= {"fedsci:privacyUnit": "group", "fedsci:groupBy": "patient"}
    assert [fault.pointer for fault in faults_of(values)] == ["/fedsci:groupBy", "/recordSet/0/field/4/name"]


def test_an_unknown_key_of_a_column_is_named_and_one_of_the_record_is_its_owners(values):
    assert faults_of(values | {"rai:dataBiases": ["adults only"], "citeAs": "Ada 2026"}) == ()
    values["recordSet"][0]["field"][0]["max"] = 4
    assert [fault.found for fault in faults_of(values)] == ["not known"]


def test_every_spdx_licence_and_every_reference_is_one(values):
    assert len(licence_ids()) > 600
    for licence in ("CC0-1.0", "ODbL-1.0", "CC-BY-NC-4.0", "DL-DE-BY-2.0"):
        assert faults_of(values | {"license": f"https://spdx.org/licenses/{licence}"}) == ()
    assert faults_of(values | {"license": "LicenseRef-consortium-agreement.2"}) == ()


def test_the_shipped_profile_is_a_json_schema_and_gives_the_context():
    from fedsci.data.record_profile import _schema

    jsonschema.Draft202012Validator.check_schema(_schema())
    assert context()["@vocab"] == "https://schema.org/"


HOSTILE = {
    "not json": (b"{", "line 1: this is not JSON"),
    "empty": (b"", "this is not JSON"),
    "a list": (b"[]", "this is a list"),
    "text": (b'"x"', "this is a text"),
    "null": (b"null", "this is null"),
    "a number": (b"7", "this is a number"),
    "not text": (b'{"a": "\xff"}', "byte 8 is not UTF-8"),
    "a key twice": (b'{"name": 1, "name": 2}', "'name' is written twice"),
    "a key twice inside": (b'{"a": {"b\\u001b": 1, "b\\u001b": 2}}', "written twice"),
    "deep": (b'{"a":' * 40 + b"1" + b"}" * 40, "nested deeper than 32"),
    "very deep": (b"[" * 100_000, "nested deeper than 32"),
    "huge": (b" " * (MOST_BYTES + 1), "at most 512 KiB"),
    "NaN": (b'{"a": NaN}', "NaN is no number"),
    "infinite": (b'{"a": -Infinity}', "no number"),
    "infinite by size": (b'{"a": 1e999}', "too large"),
    "a large integer": (b'{"a": 9007199254740992}', "beyond 2^53"),
    "an endless integer": (b'{"a": ' + b"9" * 5000 + b"}", ""),
    "half a character": (b'{"a": "\\ud800"}', "half a character"),
    "half a character as key": (b'{"\\ud800": 1}', "half a character"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_gives_one_line(tmp_path, name):
    content, said = HOSTILE[name]
    file = tmp_path / "x.croissant.json"
    file.write_bytes(content)
    with pytest.raises(DataError) as raised:
        read_record(file)
    assert said in raised.value.message
    assert str(file) in raised.value.message
    assert "\n" not in raised.value.message + raised.value.hint
    assert "\x1b" not in raised.value.message


def test_a_file_that_is_not_there_names_the_nearest(tmp_path):
    (tmp_path / "heart.croissant.json").write_bytes(record_bytes(written()))
    with pytest.raises(DataError) as raised:
        read_values(tmp_path / "hart.croissant.json")
    assert "heart.croissant.json" in raised.value.hint
    with pytest.raises(DataError, match="is a folder"):
        read_values(tmp_path)
    os.mkfifo(tmp_path / "pipe.croissant.json")
    with pytest.raises(DataError, match="is not a file"):
        read_values(tmp_path / "pipe.croissant.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_values(tmp_path / "a\0b")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.slow
@given(st.sampled_from(REQUIRED), JSON)
def test_whatever_stands_in_a_record_it_is_whole_or_has_faults(pointer, anything):
    values = deepcopy(dict(written().values))
    parent, _, key = pointer.rpartition("/")
    at(values, parent)[key] = anything
    said = []
    try:
        said += faults_of(parse_values(json.dumps(values).encode(), "it"))
    except DataError as error:
        said.append(error.message)
    assert all("\n" not in str(one) for one in said)


LINE = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=30).filter(str.strip)


@given(st.lists(LINE, min_size=1, max_size=5, unique=True), LINE, LINE)
def test_what_is_written_is_read_again(names, title, unit):
    columns = tuple(RecordColumn(name=name, data_type="sc:Float", minimum=-0.5, maximum=2, unit=unit) for name in names)
    record = written(replace(ANSWERS, name=title), columns=columns)
    again = DataRecord(values=parse_values(record_bytes(record), "it"))
    assert again.values == record.values
    assert faults_of(again.values) == ()
    assert (again.columns, again.name) == (columns, title)


def test_a_record_tells_what_it_was_told():
    record = written(unit=("group", "age"))
    assert record.columns == COLUMNS
    assert (record.licence, record.version, record.file, record.sha256) == (
        "CC-BY-4.0",
        "1.0.0",
        FILE.name,
        FILE.sha256,
    )
    assert record.creators == ("Ward 7", "Ada")
    assert record.privacy_unit == ("group", "age")


def test_all_that_is_missing_is_asked_for_at_once():
    with pytest.raises(InputError) as raised:
        written(Answers(name="Heart"), unit=None)
    assert raised.value.message.count(",") == 7
    for key, option in MANDATORY.items():
        assert (option in raised.value.hint) == (key != "name")


def test_a_new_record_keeps_what_nobody_says_anew():
    first = written()
    again = written(
        Answers(version="2.0.0", persons=("Bo",)), file=replace(FILE, sha256="cd" * 32), unit=None, earlier=first
    )
    assert again.values | {"version": "1.0.0", "creator": 0, "distribution": 0} == first.values | {
        "creator": 0,
        "distribution": 0,
    }
    assert again.creators == ("Bo",)
    assert again.sha256 == "cd" * 32


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"file": replace(FILE, sha256="cd" * 32)}, "the file of heart"),
        ({"columns": COLUMNS[:2]}, "the columns of heart"),
    ],
)
def test_changed_data_needs_a_new_version(changes, said):
    with pytest.raises(InputError, match=said) as raised:
        written(Answers(), earlier=written(), **changes)
    assert "--version" in raised.value.hint
    assert written(Answers(version="1.1.0"), earlier=written(), **changes).version == "1.1.0"


def test_a_licence_in_other_letters_has_one_right_answer():
    with pytest.raises(InputError, match=r"is written CC-BY-4\.0"):
        written(replace(ANSWERS, licence="cc-by-4.0"))
    with pytest.raises(DataError, match="/license"):
        written(replace(ANSWERS, licence="free"))


def table(**columns):
    arrays = {name: np.array(values, dtype=object if None in values else None) for name, values in columns.items()}
    return RawTable.from_columns(arrays)


TYPES = {
    "sc:Integer": [[1, 2], ["1", None], ["-3", "4"]],
    "sc:Float": [[1.0, 2.0], ["1.5", None], ["1e3", "2"], ["1.0", "2"]],
    "sc:Boolean": [[True, False], ["true", "False"], [None, True]],
    "sc:Text": [["a", "b"], ["1", "x"], [None, None], ["nan", "inf"]],
}


@pytest.mark.parametrize(("data_type", "values"), [(kind, one) for kind, many in TYPES.items() for one in many])
def test_a_columns_type_is_the_narrowest_that_holds_and_fits(data_type, values):
    raw = table(x=values, y=[0] * len(values))
    column = columns_of(raw)[0]
    assert column == RecordColumn(name="x", data_type=data_type)
    assert type_faults(columns_of(raw), raw) == ()


def test_columns_that_are_not_the_datas_are_named():
    raw = table(a=["1.5", "2"], b=["x", "y"], image=np.zeros((2, 8, 8)))
    columns = (
        RecordColumn(name="a", data_type="sc:Integer"),
        RecordColumn(name="gone", data_type="sc:Text"),
        RecordColumn(name="image", data_type="sc:Float", shape=(4, 4)),
    )
    faults = {fault.pointer: fault.right for fault in type_faults(columns, raw)}
    assert faults == {
        "/recordSet/0/field": "a column 'b', as the data",
        "/recordSet/0/field/0/dataType": "sc:Float, as the data",
        "/recordSet/0/field/1/name": "a column of the data",
        "/recordSet/0/field/2/arrayShape": "'8,8'",
    }


def test_bounds_are_read_from_data_only_when_asked_for():
    raw = table(a=[1.23, 45.6], b=["7", None], c=["x", "y"])
    assert all(column.minimum is column.maximum is None for column in columns_of(raw))
    known = (RecordColumn(name="a", data_type="sc:Float", minimum=0, maximum=1), *columns_of(raw)[1:])
    a, b, c = with_bounds_from_data(known, raw)
    assert (a.minimum, a.maximum) == (0, 1)
    assert b.minimum is not None
    assert b.minimum <= 7 <= b.maximum
    assert c.minimum is None


def test_a_type_that_somebody_chose_is_kept_while_the_data_has_it():
    raw = table(zip=["01067", "10115"], age=[1, 2])
    chosen = (RecordColumn(name="zip", data_type="sc:Text"), RecordColumn(name="age", data_type="sc:Text"))
    kept = with_earlier(columns_of(raw), written(columns=chosen), raw)
    assert [column.data_type for column in kept] == ["sc:Text", "sc:Integer"]


@pytest.fixture
def shelf(tmp_path):
    """A folder of three labs' records, one of them broken."""
    folder = tmp_path / "shelf"
    (folder / "b").mkdir(parents=True)
    (folder / "a.croissant.json").write_bytes(record_bytes(written()))
    other = written(
        replace(ANSWERS, name="Plates", licence="CC0-1.0"),
        columns=(RecordColumn(name="age", data_type="sc:Float", unit="mV"),),
        unit=("site", None),
    )
    (folder / "b" / "b.croissant.json").write_bytes(record_bytes(other))
    (folder / "b" / "broken.croissant.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ({}, ["Heart", "Plates"]),
        ({"column": "AGE"}, ["Heart", "Plates"]),
        ({"unit": "mV"}, ["Heart", "Plates"]),
        ({"column": "age", "unit": "mV"}, ["Plates"]),
        ({"column": "age", "unit": "km"}, []),
        ({"licence": "cc0-1.0"}, ["Plates"]),
        ({"privacy_unit": "record"}, ["Heart"]),
        ({"text": "CARDIO"}, ["Heart", "Plates"]),
        ({"text": "größe"}, ["Heart"]),
        ({"text": "nothing"}, []),
    ],
)
def test_a_catalogue_finds_by_what_records_say(shelf, search, found):
    wanted = Search(**search)
    entries = read_catalogue([shelf, shelf / "a.croissant.json"])
    assert [entry.record.name for entry in entries if entry.record and wanted.finds(entry.record)] == found


def test_a_broken_record_is_listed_and_an_empty_place_refused(shelf, tmp_path):
    [broken] = [entry for entry in read_catalogue([shelf]) if entry.record is None]
    assert broken.path.name == "broken.croissant.json"
    assert "missing" in broken.fault
    for place, said in ((tmp_path / "none", "does not exist"), (tmp_path / "empty", "no record in this folder")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=said):
            read_catalogue([place])


@pytest.mark.filterwarnings("ignore")
def test_others_tools_read_our_records():
    croissant = pytest.importorskip("mlcroissant", reason="mlcroissant comes with fedsci[catalog]")
    for name in ("ward 7.csv", "x.parquet", "x.npz", "builtin:digits"):
        record = written(file=replace(FILE, name=name))
        metadata = croissant.Dataset(jsonld=json.loads(record_bytes(record))).metadata
        assert not metadata.ctx.issues.errors
        assert [field.name for field in metadata.record_sets[0].fields] == [column.name for column in COLUMNS]
        assert metadata.name == "Heart"
        assert metadata.data_collection == ANSWERS.provenance
        assert metadata.personal_sensitive_information == ["health"]
