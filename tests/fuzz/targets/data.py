"""Data files and the records that describe them: read whole, or refused; nothing is run, or unpacked without end."""

import io
import json
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from fedsci.data.inference import infer_schema
from fedsci.data.loading import CsvOptions, load_table
from fedsci.data.record import parse_values
from fedsci.data.record_profile import faults_of, record_of
from fedsci.data.schema import BinaryTarget, CategoryFeature, NumericFeature, Schema
from fedsci.data.table import encode
from tests.fuzz.engine import Target

ROOT = Path(__file__).parents[3]
_SCHEMA = Schema(
    features=(
        NumericFeature(name="a", minimum=0.0, maximum=1.0),
        CategoryFeature(name="kind", categories=("x", "y", 1), unseen="other"),
    ),
    target=BinaryTarget(name="above"),
    missing="impute",
)


def table(data: bytes, *, suffix: str) -> None:
    """A data file, read and encoded for a study; what encodes is finite and as long as the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"file{suffix}")
        path.write_bytes(data)
        raw = load_table(path, options=CsvOptions())
        if "above" in raw.columns:
            infer_schema(raw, target="above", source=str(path))
        encoded = encode(raw, _SCHEMA, str(path))
    assert np.isfinite(encoded.features).all()
    assert encoded.rows <= raw.rows


def record(data: bytes) -> None:
    """A data-set record of somebody else's."""
    values = parse_values(data, "record")
    faults_of(values)
    read = record_of(values, "record")
    assert read.columns
    assert read.name
    assert read.creators


def _csv() -> Mapping[str, bytes]:
    return {
        "comma": b"a,kind,above\n0.5,x,1\n0.25,y,0\n,1,yes\n",
        "semicolon": '\ufeffa;kind;above\r\n0.5;"x;y";1\r\n?;x;0\r\n'.encode(),
    }


def _npz() -> Mapping[str, bytes]:
    found = {}
    for name, save in (("stored", np.savez), ("packed", np.savez_compressed)):
        file = io.BytesIO()
        save(file, a=np.array([0.5, 0.25]), kind=np.array(["x", "y"]), above=np.array([True, False]))
        found[name] = file.getvalue()
    return found


def _parquet() -> Mapping[str, bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"a": [0.5, None], "kind": ["x", "y"], "above": [1, 0], "trace": [[1.0, 2.0], [3.0, 4.0]]}
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return {"valid": file.getvalue()}


def _records() -> Mapping[str, bytes]:
    path = sorted((ROOT / "examples/heart/records").glob("*.croissant.json"))[0]
    values = json.loads(path.read_bytes())
    fields = values["recordSet"][0]["field"]
    values["recordSet"][0]["field"] = fields[:2]
    return {"shipped": json.dumps(values).encode()}


_NPY = (b"\x93NUMPY", b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"'descr': '|O'", b"(99999999999,)", b"'<f8'")

TARGETS = [
    Target(
        name="csv",
        run=partial(table, suffix=".csv"),
        seeds=_csv,
        tokens=(b",", b";", b"\t", b'"', b"\r", b"NaN", b"inf", b"1e400", b"a,a", b"\x00", b"1e999999999", b"9" * 200),
        tries=40,
    ),
    Target(name="npz", run=partial(table, suffix=".npz"), seeds=_npz, tokens=_NPY, tries=40),
    Target(name="parquet", run=partial(table, suffix=".parquet"), seeds=_parquet, tokens=(b"PAR1",), tries=20),
    Target(name="record", run=record, seeds=_records, tries=20),
]
