"""``fedsci data describe``, ``check`` and ``catalogue``: a record is written, kept, compared and found."""

import json

import numpy as np
import pytest
import yaml

SAID = [
    *("--name", "Tumours", "--description", "Tumours of one ward", "--licence", "CC-BY-4.0", "--creator", "Ward 7"),
    *("--version", "1.0.0", "--date", "2026-01-31", "--provenance", "Biopsies", "--sensitivity", "health"),
]
RECORD = "tumours.croissant.json"


@pytest.fixture
def lab(study, fedsci):
    """A lab with a CSV file of radius, grade and benign."""
    study.use_csv()
    return fedsci.folder / "lab-1.yaml"


@pytest.fixture
def record(lab, fedsci):
    """Its record, named in its site file."""
    outcome = fedsci("data", "describe", lab, "tumours", *SAID)
    assert outcome.code == 0, outcome.err
    name_record(lab)
    return fedsci.folder / RECORD


def name_record(lab, name=RECORD, **policy):
    values = yaml.safe_load(lab.read_text())
    values["datasets"]["tumours"]["record"] = name
    values["policy"] |= policy
    lab.write_text(yaml.safe_dump(values))


def values_of(record):
    return json.loads(record.read_text())


def columns(record):
    return {field["name"]: field for field in values_of(record)["recordSet"][0]["field"]}


def test_all_that_is_missing_is_named_with_its_options(lab, fedsci):
    outcome = fedsci("data", "describe", lab, "tumours", "--name", "Tumours")
    assert outcome.code == 2
    for word in ("description", "license", "creator", "version", "datePublished", "dataCollection"):
        assert word in outcome.error_line
    for option in ("--description", "--licence", "--creator", "--person", "--version", "--date", "--sensitivity"):
        assert option in outcome.hint_line
    assert "--privacy-unit" not in outcome.hint_line, "the budget says it"
    assert not (fedsci.folder / RECORD).exists()


def test_a_record_is_written_and_says_what_comes_next(lab, fedsci):
    outcome = fedsci("data", "describe", lab, "tumours", *SAID)
    assert (outcome.code, outcome.err) == (0, "")
    assert f"record: {RECORD}" in outcome.out
    record = fedsci.folder / RECORD
    assert str(fedsci.folder) not in record.read_text()
    assert {name: field["dataType"] for name, field in columns(record).items()} == {
        "radius": "sc:Integer",
        "grade": "sc:Text",
        "benign": "sc:Integer",
    }
    assert not any("minValue" in field or "categories" in field for field in columns(record).values())
    assert values_of(record)["fedsci:privacyUnit"] == "record"
    name_record(lab)
    checked = fedsci("data", "check", lab)
    assert (checked.code, checked.err) == (0, "")
    assert "data as recorded" in checked.out
    assert fedsci("data", "check", record).code == 0


def test_bounds_units_and_categories_come_from_people_and_studies(lab, study, fedsci):
    extra = ("--unit", "radius=mm", "--bounds", "benign=0:1", "--about", "grade=by two readers")
    assert fedsci("data", "describe", lab, "tumours", *SAID, "--study", study.path, *extra).code == 0
    found = columns(fedsci.folder / RECORD)
    assert (found["radius"]["minValue"], found["radius"]["maxValue"], found["radius"]["unitText"]) == (5, 30, "mm")
    assert (found["grade"]["categories"], found["grade"]["description"]) == (["low", "high"], "by two readers")
    assert (found["benign"]["minValue"], found["benign"]["maxValue"]) == (0, 1)
    assert fedsci("data", "describe", lab, "tumours", "--categories", "grade=low,mid,3").code == 2
    assert fedsci("data", "describe", lab, "tumours", "--categories", "grade=a,3", "--version", "1.0.1").code == 0
    assert columns(fedsci.folder / RECORD)["grade"]["categories"] == ["a", 3]
    assert columns(fedsci.folder / RECORD)["radius"]["unitText"] == "mm"


def test_bounds_are_read_from_the_data_only_with_the_flag_that_says_so(lab, fedsci):
    assert fedsci("data", "describe", lab, "tumours", *SAID, "--bounds-from-data").code == 0
    found = columns(fedsci.folder / RECORD)
    assert (found["radius"]["minValue"], found["radius"]["maxValue"]) == (10, 21)
    assert "categories" not in found["grade"]
    assert "published" in fedsci("data", "describe", "--help").out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--unit", "radius"], "COLUMN=VALUE"),
        (["--unit", "radios=mm"], "did you mean 'radius'?"),
        (["--unit", "radius="], "give a value"),
        (["--bounds", "radius=1"], "COLUMN=MIN:MAX"),
        (["--bounds", "radius=3:1"], "MIN below MAX"),
        (["--bounds", "radius=a:b"], "COLUMN=MIN:MAX"),
        (["--bounds", "grade=0:1"], "fedsci data check"),
        (["--licence", "cc-by-4.0"], "--licence CC-BY-4.0"),
        (["--licence", "free"], "fedsci data check"),
        (["--date", "yesterday"], "fedsci data check"),
        (["--version", "one"], "fedsci data check"),
        (["--privacy-unit", "patient"], "group:COLUMN"),
        (["--privacy-unit", "site"], "leave --privacy-unit out"),
        (["--name", "two\nlines"], "fedsci data check"),
        (["--name", "\udcff"], "fedsci data describe"),
        (["--study", "lab-1.yaml"], ""),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(lab, fedsci, options, said):
    outcome = fedsci("data", "describe", lab, "tumours", *SAID, *options)
    assert outcome.code == 2
    assert outcome.error_line
    assert said in outcome.hint_line
    assert not (fedsci.folder / RECORD).exists()


def test_a_data_set_that_is_not_there_is_named(lab, fedsci):
    for command in (("describe", lab, "tumuors"), ("check", lab, "tumuors")):
        outcome = fedsci("data", *command)
        assert outcome.code == 2
        assert "tumours" in outcome.hint_line


def test_a_new_version_keeps_the_rest(record, lab, fedsci):
    before = values_of(record)
    again = fedsci("data", "describe", lab, "tumours")
    assert (again.code, "nothing changed" in again.out) == (0, True)
    data = fedsci.folder / "lab-1.csv"
    data.write_text(data.read_text() + "22,low,1\n")
    refused = fedsci("data", "describe", lab, "tumours")
    assert refused.code == 2
    assert "changed since version 1.0.0" in refused.error_line
    assert "--version" in refused.hint_line
    assert values_of(record) == before
    assert fedsci("data", "describe", lab, "tumours", "--version", "1.1.0").code == 0
    after = values_of(record)
    assert {key for key in before if before[key] != after[key]} == {"version", "distribution"}
    assert fedsci("data", "check", lab).code == 0


def test_a_changed_byte_has_exit_code_6(record, lab, fedsci):
    data = fedsci.folder / "lab-1.csv"
    data.write_text(data.read_text().replace("10,", "11,", 1))
    outcome = fedsci("data", "check", lab)
    assert outcome.code == 6
    assert "another digest" in outcome.error_line
    assert "--version" in outcome.hint_line


def test_every_fault_is_listed_with_its_place(record, lab, fedsci):
    values = values_of(record)
    del values["license"], values["recordSet"][0]["field"][1]["dataType"]
    values["version"] = "first"
    record.write_text(json.dumps(values))
    for target in (record, lab):
        outcome = fedsci("data", "check", target)
        assert outcome.code == 2
        assert "3 faults" in outcome.error_line
        for pointer in ("/license: missing", "/recordSet/0/field/1/dataType: missing", "/version: 'first'"):
            assert pointer in outcome.out
    listed = json.loads(fedsci("data", "check", record, "--json").out)["records"][0]
    assert [fault["pointer"] for fault in listed["faults"]] == ["/license", "/recordSet/0/field/1/dataType", "/version"]
    assert listed["digest"] is None


def test_columns_that_are_not_the_datas_are_faults(record, lab, fedsci):
    values = values_of(record)
    values["recordSet"][0]["field"][1]["dataType"] = "sc:Float"
    record.write_text(json.dumps(values))
    assert fedsci("data", "check", record).code == 0, "the record alone is whole"
    outcome = fedsci("data", "check", lab)
    assert outcome.code == 2
    assert "sc:Text, as the data" in outcome.out


def test_a_site_without_records_is_told_how_to_write_one(lab, fedsci):
    outcome = fedsci("data", "check", lab)
    assert outcome.code == 2
    assert "fedsci data describe" in outcome.hint_line
    assert fedsci("data", "check", "lab-1.csv", "tumours").code == 2


@pytest.mark.slow
@pytest.mark.parametrize("content", ["{", "[" * 100_000, "{}", '{"a": 1, "a": 2}', "NaN", " " * 600_000], ids=range(6))
def test_a_hostile_record_gives_one_line_everywhere(record, lab, fedsci, content):
    record.write_text(content)
    for command in (("check", record), ("check", lab), ("describe", lab, "tumours")):
        outcome = fedsci("data", *command)
        assert outcome.code == 2
        assert outcome.error_line
        assert outcome.hint_line
    listed = fedsci("data", "catalogue", record)
    assert listed.code == 0
    assert "broken: " in listed.out
    assert "and 1 broken" in listed.out


def test_other_files_and_built_in_data_have_records_too(lab, fedsci):
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = fedsci.folder / "labs äöü"
    folder.mkdir()
    pq.write_table(pa.table({"größe": [1.5, None], "ok": [True, None], "n": [1, 2]}), folder / "p q.parquet")
    np.savez(folder / "z.npz", spur=np.zeros((3, 4, 5)), n=np.arange(3))
    site = {
        "site": "lab-x",
        "datasets": {
            "plates": {"path": "labs äöü/p q.parquet"},
            "traces": {
                "path": "labs äöü/z.npz",
                "privacy": {"unit": "group", "group_by": "n", "epsilon": 1, "delta": 1e-5},
            },
            "digits": {"builtin": {"name": "digits", "shard": 1, "of": 3}},
        },
    }
    file = fedsci.folder / "x.yaml"
    units = {"plates": ("--privacy-unit", "group:n"), "traces": (), "digits": ("--privacy-unit", "site")}
    types = {
        "plates": {"größe": "sc:Float", "ok": "sc:Boolean", "n": "sc:Integer"},
        "traces": {"spur": "sc:Float", "n": "sc:Integer"},
        "digits": {"image": "sc:Float", "digit": "sc:Integer"},
    }
    for name, unit in units.items():
        file.write_text(yaml.safe_dump(site))
        outcome = fedsci("data", "describe", file, name, *SAID, *unit, "--out", f"r/{name}.croissant.json")
        assert outcome.code == 0, outcome.err
        site["datasets"][name]["record"] = f"r/{name}.croissant.json"
        record = fedsci.folder / "r" / f"{name}.croissant.json"
        assert {one: field["dataType"] for one, field in columns(record).items()} == types[name]
        assert "labs" not in record.read_text()
    file.write_text(yaml.safe_dump(site))
    checked = fedsci("data", "check", file, "--json")
    assert checked.code == 0, checked.err
    assert [one["data"] for one in json.loads(checked.out)["records"]] == ["as recorded"] * 3
    assert columns(fedsci.folder / "r" / "traces.croissant.json")["spur"]["arrayShape"] == "4,5"


@pytest.mark.slow
def test_a_run_is_refused_by_a_lab_whose_data_changed(record, lab, study, fedsci):
    study.unmasked()
    study.use_csv()
    name_record(lab)
    arguments = ("run", study.path, "--quiet", "--json")
    assert fedsci(*arguments).code == 0
    data = fedsci.folder / "lab-1.csv"
    data.write_text(data.read_text().replace("10,", "11,", 1))
    outcome = fedsci(*arguments)
    assert outcome.code == 2
    assert "lab-1: data set tumours is not what its record says" in outcome.error_line


def test_a_catalogue_lists_what_is_asked_for(record, fedsci):
    found = fedsci("data", "catalogue", fedsci.folder, "--column", "radius", "--licence", "CC-BY-4.0")
    assert found.code == 0
    assert "Tumours" in found.out
    assert "1 data set of 1" in found.out
    assert "0 data sets of 1" in fedsci("data", "catalogue", record, "--unit", "mV").out
    [listed] = json.loads(fedsci("data", "catalogue", record, "--json").out)["records"]
    assert (listed["name"], listed["privacy_unit"], listed["licence"]) == ("Tumours", "record", "CC-BY-4.0")
    assert fedsci("data", "catalogue", "nowhere").code == 2
