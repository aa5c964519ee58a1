import csv
import io
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.data.loading import CsvOptions, load_table
from fedsci.errors import DataError, InputError


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(path, **options):
    with pytest.raises(DataError) as caught:
        load_table(path, options=CsvOptions(**options))
    error = caught.value
    assert str(path) in error.message
    assert "\n" not in error.message
    assert error.hint
    assert error.public()["message"] == DataError.default_public
    return error


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_delimiter_line_ending_and_byte_order_mark_are_found_out(tmp_path, delimiter, ending, mark):
    rows = [["name", "x", "y"], ["a", "1", "2"], ["b", "?", "4"]]
    text = mark + ending.join(delimiter.join(row) for row in rows) + ending
    table = load_table(write(tmp_path, "a.csv", text))
    assert list(table.columns) == ["name", "x", "y"]
    assert table.columns["x"].tolist() == ["1", None]
    assert [table.row_label(row) for row in range(table.rows)] == ["line 2", "line 3"]


def test_decimal_commas_do_not_hide_the_semicolons(tmp_path):
    table = load_table(write(tmp_path, "a.csv", "a;b\n1,5;2,5\n3,5;4,5\n"))
    assert table.columns["a"].tolist() == ["1,5", "3,5"]


def test_a_file_without_a_header_takes_its_names_from_the_options(tmp_path):
    path = write(tmp_path, "a.data", "63.0,1.0,?\n37.0,0.0,3.0\n\n")
    table = load_table(path, options=CsvOptions(columns=("age", "sex", "cp")))
    assert table.columns["cp"].tolist() == [None, "3.0"]
    assert [table.row_label(row) for row in range(2)] == ["line 1", "line 2"]


def test_line_numbers_count_quoted_newlines_and_blank_lines(tmp_path):
    table = load_table(write(tmp_path, "a.csv", 'a,b\n"x\ny",1\n\nz,2\n'))
    assert table.columns["a"].tolist() == ["x\ny", "z"]
    assert [table.row_label(row) for row in range(2)] == ["line 2", "line 5"]


cells = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=5).map(str.strip)


@given(st.lists(st.tuples(cells, cells), min_size=1))
def test_what_a_csv_writer_wrote_is_read_back(tmp_path_factory, rows):
    text = io.StringIO()
    csv.writer(text).writerows([("first", "second"), *rows])
    path = write(tmp_path_factory.mktemp("csv"), "a.csv", text.getvalue())
    table = load_table(path, options=CsvOptions(delimiter=",", missing=()))
    assert list(zip(table.columns["first"], table.columns["second"], strict=True)) == rows


@pytest.mark.parametrize(
    ("content", "options", "message", "hint"),
    [
        (b"", {}, "the file is empty", "copied whole"),
        (b"\n\n", {}, "the file is empty", "copied whole"),
        (b"a,b\n", {}, "a header and nothing below", "columns"),
        (b"a,b\n1,2\n1,2,3\n", {}, "line 3: 3 values where there are 2 columns", "delimiter"),
        (b"a,b\n1\n", {}, "line 2: 1 values where there are 2 columns", "delimiter"),
        (b"a|b\n1|2\n", {"columns": ("x", "y")}, "line 1: 1 values", "give the `delimiter`"),
        (b"a,b,a\n1,2,3\n", {}, "line 1: two columns are called 'a'", "own name"),
        (b"1.0,0,0\n1,2,3\n", {}, "line 1: two columns are called '0'", "give the names in `columns`"),
        (b"a,b\n1,\xe9t\xe9\n", {}, "line 2: the byte 0xe9 is not UTF-8", "UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), {}, "line 1: the byte 0xff is not UTF-8", "UTF-8"),
        (b'a,b\n1,2\n"x,3\n', {}, "line 3: unexpected end of data", "quote"),
        (b"a,b\n1,2\n", {"columns": ("a", "b")}, "line 1 already holds the names", "leave out"),
    ],
)
def test_a_damaged_text_file_is_refused(tmp_path, content, options, message, hint):
    error = refused(write(tmp_path, "a.csv", content), **options)
    assert message in error.message
    assert hint in error.hint


def test_a_missing_file_names_the_nearest(tmp_path):
    write(tmp_path, "cleveland.csv", "a\n1\n")
    assert refused(tmp_path / "clevland.csv").hint == "did you mean 'cleveland.csv'?"
    assert "holds no file" in refused(tmp_path / "zzz.npz").hint
    assert "no folder" in refused(tmp_path / "nowhere" / "a.csv").hint


def test_a_folder_and_an_unknown_suffix_are_refused(tmp_path):
    folder = tmp_path / "a.csv"
    folder.mkdir()
    assert "folder, not a file" in refused(folder).message
    assert "'.xlsx' is not known" in refused(write(tmp_path, "a.xlsx", "x")).message
    assert "'(none)' is not known" in refused(write(tmp_path, "a", "x")).message


@pytest.mark.parametrize("options", [{"delimiter": ""}, {"delimiter": "::"}, {"columns": ("a", "a")}, {"columns": ()}])
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(InputError):
        CsvOptions(**options)


def test_npz_columns_come_as_they_are(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, image=np.zeros((2, 8, 8), dtype=np.uint8), name=np.array(["a", "b"]), raw=np.array([b"x", b"y"]))
    table = load_table(path)
    assert table.columns["image"].shape == (2, 8, 8)
    assert table.columns["raw"].tolist() == ["x", "y"]
    assert table.row_label(1) == "row 2"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(2), "b": np.zeros(3)}, "differ in length (a: 2, b: 3)"),
        ({"a": np.array([{}, None], dtype=object)}, "column 'a' is an array of objects"),
        ({"a": np.float64(1)}, "column 'a' is a single value"),
        ({"a": np.zeros(2, dtype=complex)}, "column 'a' has dtype complex128"),
        ({"a": np.zeros(0)}, "no rows"),
        ({}, "no rows"),
    ],
)
def test_an_npz_that_is_no_table_is_refused(tmp_path, arrays, message):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    assert message in refused(path).message


def test_damaged_archives_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.random.default_rng(0).normal(size=500))
    whole = path.read_bytes()
    assert "not a whole NPZ" in refused(write(tmp_path, "cut.npz", whole[:300])).message
    flipped = bytearray(whole)
    flipped[200:260] = bytes(60)
    assert "not a whole NPZ" in refused(write(tmp_path, "flipped.npz", bytes(flipped))).message
    assert "not a whole NPZ" in refused(write(tmp_path, "text.npz", "hello")).message
    plain = tmp_path / "plain.npy"
    np.save(plain, np.zeros(2))
    assert "one array" in refused(plain.rename(tmp_path / "plain.npz")).message
    assert "not a whole Parquet" in refused(write(tmp_path, "a.parquet", "hello")).message


def test_parquet_columns_come_with_their_gaps(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table(
        {
            "x": [1.5, None, 3.0],
            "n": [1, None, 3],
            "whole": [1, 2, 3],
            "b": [True, None, False],
            "t": pa.array(["a", None, "b"]).dictionary_encode(),
            "v": pa.array([[1.0, 2.0], None, [3.0, None]], type=pa.list_(pa.float64(), 2)),
            "m": [[[1, 2], [3, 4]]] * 3,
        }
    )
    pq.write_table(table, path)
    loaded = load_table(path)
    assert loaded.columns["b"].tolist() == [True, None, False]
    assert loaded.columns["t"].tolist() == ["a", None, "b"]
    assert loaded.columns["whole"].dtype == np.int64
    np.testing.assert_array_equal(loaded.columns["x"], [1.5, np.nan, 3])
    np.testing.assert_array_equal(loaded.columns["n"], [1, np.nan, 3])
    np.testing.assert_array_equal(loaded.columns["v"], [[1, 2], [np.nan, np.nan], [3, np.nan]])
    assert loaded.columns["m"].shape == (3, 2, 2)


def test_a_text_that_comes_again_and_again_comes_with_its_gaps(tmp_path):
    path = tmp_path / "a.parquet"
    texts = ["one", None, "two", "one", None] * 7
    pq.write_table(pa.table({"t": texts, "b": pa.array([b"x"] * 35)}), path, row_group_size=4)
    assert load_table(path).columns["t"].tolist() == texts
    assert load_table(path).columns["b"].tolist() == ["b'x'"] * 35


@pytest.mark.parametrize("packing", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "PLAIN"])
def test_text_is_read_however_it_is_packed(tmp_path, packing):
    path = tmp_path / "a.parquet"
    texts = [f"a long beginning {number}" for number in range(1000)]
    pq.write_table(pa.table({"t": texts}), path, use_dictionary=False, column_encoding={"t": packing})
    assert load_table(path).columns["t"].tolist() == texts


def test_text_that_shares_its_beginnings_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("fedsci.data.unpacked_size._ALWAYS", 2**20)
    path, packing = tmp_path / "a.parquet", {"t": "DELTA_BYTE_ARRAY"}
    texts = ["x" * 10_000 + str(number) for number in range(1000)]
    pq.write_table(pa.table({"t": texts}), path, use_dictionary=False, column_encoding=packing, write_statistics=False)
    assert path.stat().st_size * 300 < 10_000 * 1000
    assert "MiB or more" in refused(path).message


def test_lists_that_repeat_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("fedsci.data.unpacked_size._ALWAYS", 2**20)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"v": [[0.0] * 1000] * 1000}), path, compression="zstd", write_statistics=False)
    assert path.stat().st_size * 300 < 64 * 1000 * 1000
    assert "MiB or more" in refused(path).message


FAR = 2**62


@pytest.mark.parametrize(
    "column",
    [
        pa.array([FAR, 0], pa.timestamp("us")),
        pa.array([0, 1], pa.timestamp("us", tz="No/Where")),
        pa.array([2**31 - 1, 0], pa.int32()).cast(pa.date32()),
        pa.array([FAR, 0], pa.duration("s")),
        pa.array([[FAR], [0]], pa.list_(pa.timestamp("us"))),
        pa.StructArray.from_arrays([pa.array([1, 2]), pa.array([1, 2])], names=["a", "a"]),
        pa.Array.from_buffers(
            pa.string(), 2, [None, pa.py_buffer(np.array([0, 1, 2], np.int32).tobytes()), pa.py_buffer(b"\xff\xfe")]
        ),
    ],
)
def test_a_parquet_value_that_python_has_not_is_refused_by_its_column(tmp_path, column):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"fine": [1, 2], "when": column}), path)
    assert "column 'when' holds a value that cannot be read" in refused(path).message


def bomb(path, *, shape, held=None):
    """An NPZ whose array of zeros is ``held`` bytes long, and as large as ``shape`` by its header."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    zeros = bytes(1024 * 1024)
    left = 8 * int(np.prod(shape)) if held is None else held
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive, archive.open("a.npy", "w") as file:
        file.write(header.getvalue())
        while left > 0:
            file.write(zeros[:left])
            left -= len(zeros)


def test_what_unpacks_without_end_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("fedsci.data.unpacked_size._ALWAYS", 2**20)
    bomb(tmp_path / "a.npz", shape=(2**20,))
    message = refused(tmp_path / "a.npz").message
    assert "unpacks to 8 MiB or more; at most 1 MiB" in message
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": np.zeros(2**20), "t": pa.array(["x"] * 2**20)}), path, compression="zstd")
    assert "unpacks to 16" in refused(path).message
    monkeypatch.setattr("fedsci.data.unpacked_size._ALWAYS", 2**28)
    assert load_table(tmp_path / "a.npz").rows == load_table(path).rows == 2**20


def test_what_compresses_well_and_is_small_is_read_all_the_same(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(2**20))
    assert path.stat().st_size < 2**23 / 300
    assert load_table(path).rows == 2**20


def test_a_large_file_may_unpack_to_a_multiple_of_itself(tmp_path, monkeypatch):
    monkeypatch.setattr("fedsci.data.unpacked_size._ALWAYS", 0)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.repeat(np.random.default_rng(1).normal(size=2**12), 2**4))
    assert load_table(path).rows == 2**16


def test_a_header_that_declares_more_than_the_file_holds_is_refused(tmp_path):
    bomb(tmp_path / "a.npz", shape=(2**40,), held=100)
    assert "declares 8.389e+06 MiB and holds" in refused(tmp_path / "a.npz").message


def test_an_archive_with_something_else_in_it_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")
    assert "not a whole NPZ" in refused(path).message


def test_a_hundred_thousand_columns_are_told_apart(tmp_path):
    names = ",".join(f"c{number}" for number in range(100_000))
    path = write(tmp_path, "wide.csv", f"{names}\n{',' * 99_999}\n")
    assert len(load_table(path).columns) == 100_000
    assert "'c7'" in refused(write(tmp_path, "twice.csv", f"{names},c7\n")).message


def test_parquet_that_is_no_table_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"v": [[1], [1, 2]]}), path)
    assert "column 'v' holds lists that are not numbers of one shape" in refused(path).message
    pq.write_table(pa.table({"x": pa.array([], type=pa.float64())}), path)
    assert "no rows" in refused(path).message
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"]), path)
    assert "two columns are called 'x'" in refused(path).message
