import csv

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsci.data.inference import round_outward
from fedsci.data.loading import CsvOptions, load_table
from fedsci.data.schema import BinaryTarget, CategoryFeature, MulticlassTarget, NumericFeature, RegressionTarget
from fedsci.data.table import encode
from fedsci.data.write_split import _scalar, write_split
from fedsci.errors import DataError, InputError

HEART_LINES = ["age,chol,cp,site name,note,disease\n"] + [
    f"{20 + i % 60},{120 + 4.5 * i},{i % 4},{'north' if i % 3 else 'no'},free text {i},{'sick' if i % 2 else 'fine'}\n"
    for i in range(120)
]
HEART = "".join(HEART_LINES)


def split(folder, content=HEART, name="heart Disease.csv", **changed):
    source = folder / name
    source.write_text(content, encoding="utf-8")
    arguments = {"sites": 4, "skew": 0.5, "uneven": 0.5, "seed": 3} | changed
    return write_split(source, folder / "out", **arguments)


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_the_labs_hold_every_row_once(tmp_path):
    result = split(tmp_path)
    rows = [tuple(row) for lab in result.labs for row in rows_of(lab.data_path)[1:]]
    assert sorted(rows) == sorted(tuple(line.strip().split(",")) for line in HEART_LINES[1:])
    assert [lab.rows for lab in result.labs] == [len(rows_of(lab.data_path)) - 1 for lab in result.labs]
    assert sorted(path.name for path in result.out.iterdir()) == [
        "lab-01.csv", "lab-01.yaml", "lab-02.csv", "lab-02.yaml", "lab-03.csv", "lab-03.yaml",
        "lab-04.csv", "lab-04.yaml", "study.yaml",
    ]  # fmt: skip


def test_the_study_says_what_the_schema_says(tmp_path):
    result = split(tmp_path)
    text = result.study_path.read_text()
    study = yaml.safe_load(text)
    assert "bounds and categories were read from the file" in text
    assert study["study"] == study["dataset"] == result.dataset == "heart-disease"
    assert study["task"] == {"kind": "binary", "target": "disease", "positive": ["sick"]}
    assert study["features"] == {
        "age": {"min": 20, "max": 79},
        "chol": {"min": 120, "max": 660},
        "cp": {"categories": [0, 1, 2, 3]},
        "site name": {"categories": ["no", "north"]},
    }
    assert "note" in result.left_out
    assert study["privacy"]["delta"] == 1e-5
    assert study["secure_aggregation"] == {"min_survivors": 3}
    assert study["sites"] == [f"lab-0{number}.yaml" for number in range(1, 5)]
    assert (study["strategy"], study["seed"], "missing" in study) == ("dp_fedsgd", 7, False)


def test_a_site_file_names_its_data_and_its_policy(tmp_path):
    lab = split(tmp_path).labs[1]
    site = yaml.safe_load(lab.site_path.read_text())
    assert "simulated lab" in lab.site_path.read_text().splitlines()[0]
    assert site["site"] == "lab-02"
    assert site["datasets"] == {
        "heart-disease": {"path": "lab-02.csv", "privacy": {"unit": "record", "epsilon": 8.0, "delta": 1e-5}}
    }
    assert site["policy"]["mechanisms"] == ["distributed", "local", "none"]


@pytest.mark.parametrize(
    ("target", "kind"), [("disease", BinaryTarget), ("cp", MulticlassTarget), ("chol", RegressionTarget)]
)
def test_every_lab_fits_the_inferred_schema(tmp_path, target, kind):
    result = split(tmp_path, target=target)
    assert isinstance(result.schema.target, kind)
    for lab in result.labs:
        table = encode(load_table(lab.data_path), result.schema, lab.site)
        assert table.rows == lab.rows
        assert not table.report.clipped
        assert not table.report.unseen


def test_gaps_survive_and_set_the_missing_rule(tmp_path):
    content = "x,empty,y\n" + "".join(f"{i * 0.5 if i % 5 else 'NA'},?,{i % 3}\n" for i in range(60))
    result = split(tmp_path, content)
    study = yaml.safe_load(result.study_path.read_text())
    assert study["missing"] == "drop"
    assert study["task"] == {"kind": "multiclass", "target": "y", "classes": [0, 1, 2]}
    assert result.left_out == {"empty": "every value is missing"}
    gaps = sum(row[0] == "" for lab in result.labs for row in rows_of(lab.data_path))
    assert gaps == 12


def test_a_semicolon_file_without_header_comes_out_as_plain_csv(tmp_path):
    content = "".join(f"{i}.5;{'a, b' if i % 2 else 'c'};{i % 2}\n" for i in range(40))
    result = split(tmp_path, content, options=CsvOptions(columns=("x", "kind", "1")))
    assert rows_of(result.labs[0].data_path)[0] == ["x", "kind", "1"]
    study = yaml.safe_load(result.study_path.read_text())
    assert study["task"] == {"kind": "binary", "target": "1", "positive": [1]}
    assert study["features"]["kind"] == {"categories": ["a, b", "c"]}


def test_the_split_is_the_same_every_time(tmp_path):
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        out = split(tmp_path / name).out
        contents.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert contents[0] == contents[1]


def test_sites_are_numbered_with_as_many_digits_as_needed(tmp_path):
    result = split(tmp_path, sites=100)
    assert result.labs[0].site == "lab-001"
    study = yaml.safe_load(result.study_path.read_text())
    assert study["secure_aggregation"]["min_survivors"] == 67


def test_two_labs_need_both(tmp_path):
    study = yaml.safe_load(split(tmp_path, sites=2).study_path.read_text())
    assert study["secure_aggregation"] == {"enabled": False, "min_survivors": 2}  # masking needs three


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    split(tmp_path)
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    with pytest.raises(InputError, match="something here already"):
        split(tmp_path, sites=2)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"target": "diseas"}, "no column 'diseas', the target"),
        ({"target": "note"}, "column 'note' holds 120 different texts"),
        ({"sites": 500}, "120 rows cannot fill 500 labs"),
        ({"sites": 1}, "too few labs"),
        ({"skew": 2.0}, "skew"),
        ({"name": "heart.xlsx"}, "only text tables"),
        ({"content": "x,y\n1.5,1\n2.5,1\n"}, "column 'y' has 1 different value"),
        ({"content": "x,y\n,0\n,1\n"}, "no column besides the target"),
        ({"content": "x,y\n1.5,0\n1e999,1\n"}, "line 3: column 'x': '1e999' is infinite"),
    ],
)
def test_what_cannot_be_split_leaves_nothing_behind(tmp_path, changed, message):
    with pytest.raises(InputError) as caught:
        split(tmp_path, **changed)
    assert message in caught.value.message
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_an_absent_source_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        write_split(tmp_path / "no.csv", tmp_path / "out", sites=2, skew=0, uneven=0)


@given(st.floats(-1e300, 1e300), st.floats(0, 1e300))
def test_rounded_bounds_hold_the_values_and_are_apart(minimum, span):
    low, high = round_outward(minimum, minimum + span)
    assert low <= minimum
    assert minimum + span <= high
    assert low < high


@pytest.mark.parametrize(
    ("given_bounds", "expected"),
    [((126, 564), (120, 570)), ((29, 77), (29, 77)), ((-2.61, 0.0123), (-2.7, 0.013)), ((0, 0), (0, 1))],
)
def test_bounds_round_outward_to_two_digits(given_bounds, expected):
    assert round_outward(*given_bounds) == expected


@pytest.mark.slow
@given(st.text() | st.integers(-(10**14), 10**14) | st.floats(allow_nan=False, allow_infinity=False))
def test_a_yaml_scalar_reads_back_as_itself(value):
    if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
        return
    assert yaml.safe_load(f"x: {{a: {_scalar(value)}}}") == {"x": {"a": value}}
    assert yaml.safe_load(f"[{_scalar(value)}]") == [value]


number_texts = st.one_of(
    st.integers().map(str),
    st.floats(-1e300, 1e300).map(str),
    st.sampled_from(["1", "1.0", "yes", "No", "a", "", "?", "007", "1e3", "x: y", "# z"]),
)


@settings(max_examples=40)
@given(st.lists(st.tuples(number_texts, number_texts, st.sampled_from(["0", "1", "2"])), min_size=12, max_size=30))
def test_any_inferred_schema_fits_its_file(tmp_path_factory, records):
    folder = tmp_path_factory.mktemp("split")
    source = folder / "any.csv"
    with source.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("a", "b", "y"), *records])
    try:
        result = write_split(source, folder / "out", sites=2, skew=0.3, uneven=0.3)
    except DataError as error:
        if "target" in error.message:
            return
        raise
    study = yaml.safe_load(result.study_path.read_text())
    features = []
    for name, item in study["features"].items():
        if "categories" in item:
            features.append(CategoryFeature(name=name, categories=tuple(item["categories"])))
        else:
            features.append(NumericFeature(name=name, minimum=item["min"], maximum=item["max"]))
    assert [type(feature) for feature in features] == [type(feature) for feature in result.schema.features]
    whole = load_table(source)
    fitted = type(result.schema)(features=tuple(features), target=result.schema.target, missing=result.schema.missing)
    assert fitted.digest() == result.schema.digest()
    try:
        report = encode(whole, fitted, "any.csv").report
    except DataError as error:
        if "every one of" in error.message:
            return
        raise
    assert (report.clipped, report.unseen) == ({}, {})
