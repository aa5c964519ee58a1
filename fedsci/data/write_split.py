"""One CSV becomes a folder of simulated labs: a data file and a site file each, and a study to start from."""

import csv
import io
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from fedsci.data.inference import InferredSchema, infer_schema
from fedsci.data.loading import CSV_SUFFIXES, CsvOptions, load_table
from fedsci.data.schema import (
    Category,
    CategoryFeature,
    Feature,
    MulticlassTarget,
    RegressionTarget,
    Schema,
)
from fedsci.data.shards import shard_indices, take
from fedsci.data.table import RawTable, absent_column
from fedsci.errors import DataError, InputError

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*( [A-Za-z0-9_-]+)*")
_YAML_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


@dataclass(frozen=True, kw_only=True)
class LabFiles:
    """One simulated lab: its name, its two files and its number of rows."""

    site: str
    data_path: Path
    site_path: Path
    rows: int


@dataclass(frozen=True, kw_only=True)
class SplitResult:
    """What was written.

    Attributes:
        out: the folder.
        study_path: the study to start from.
        dataset: the data set's name in all files, made from the source's file name.
        schema: what the study's features and task say.
        left_out: columns that the study does not use, each with the reason.
        labs: one for each site, in order.
    """

    out: Path
    study_path: Path
    dataset: str
    schema: Schema
    left_out: dict[str, str]
    labs: tuple[LabFiles, ...]


def write_split(
    source: Path,
    out: Path,
    *,
    sites: int,
    skew: float,
    uneven: float,
    target: str | None = None,
    seed: int = 0,
    options: CsvOptions | None = None,
) -> SplitResult:
    """Write ``out`` whole or not at all; the target is the last column unless named.

    The labs' files are comma-separated with a header, and leave gaps empty, whatever the source did.

    Raises:
        DataError: if the source cannot be read or split.
        InputError: if ``out`` exists and is not an empty folder, or a number is out of range.
    """
    source, out = Path(source), Path(out)
    if sites < 2:
        raise InputError(f"{sites} is too few labs", hint="split among 2 labs or more")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: there is something here already", hint="name a new or an empty folder")
    if source.suffix.lower() not in CSV_SUFFIXES:
        raise DataError(f"{source}: only text tables can be split", hint=f"use one of {', '.join(CSV_SUFFIXES)}")
    raw = load_table(source, options=options)
    target = list(raw.columns)[-1] if target is None else target
    if target not in raw.columns:
        raise absent_column(raw, target, str(source), "the target")
    inferred = infer_schema(raw, target=target, source=str(source))
    shards = shard_indices(raw.columns[target], of=sites, skew=skew, uneven=uneven, seed=seed)
    digits = max(2, len(str(sites)))
    names = [f"lab-{number:0{digits}d}" for number in range(1, sites + 1)]
    dataset = _name_from(source.stem)
    files = {"study.yaml": _study_text(dataset, source.name, inferred, names, seed)}
    for name, rows in zip(names, shards, strict=True):
        files[f"{name}.csv"] = _csv_text(take(raw, rows))
        files[f"{name}.yaml"] = _site_text(name, dataset)
    _write_all(out, files)
    return SplitResult(
        out=out,
        study_path=out / "study.yaml",
        dataset=dataset,
        schema=inferred.schema,
        left_out=inferred.left_out,
        labs=tuple(
            LabFiles(site=name, data_path=out / f"{name}.csv", site_path=out / f"{name}.yaml", rows=len(rows))
            for name, rows in zip(names, shards, strict=True)
        ),
    )


def _write_all(out: Path, files: dict[str, str]) -> None:
    partial = out.parent / f".{out.name}.{os.getpid()}.partial"
    try:
        partial.mkdir(parents=True)
        for name, text in files.items():
            (partial / name).write_text(text, encoding="utf-8", newline="")
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except OSError as problem:
        raise InputError(f"{out}: cannot be written: {problem.strerror}", hint="check the folder") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _csv_text(raw: RawTable) -> str:
    text = io.StringIO(newline="")
    # A lone carriage return would be read as a new line, and the writer does not quote it by itself.
    awkward = any("\r" in str(cell) for name, column in raw.columns.items() for cell in (name, *column))
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if awkward else csv.QUOTE_MINIMAL)
    writer.writerow(raw.columns)
    writer.writerows(
        ["" if cell is None else cell for cell in record] for record in zip(*raw.columns.values(), strict=True)
    )
    return text.getvalue()


def _name_from(stem: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:64].strip("-") or "data"


def _site_text(site: str, dataset: str) -> str:
    return f"""\
# A simulated lab. Its policy is open because its data is not private: whoever made this split holds all of it.
# A real lab writes its own limits.
site: {site}
datasets:
  {_scalar(dataset)}:
    path: {site}.csv
    privacy: {{unit: record, epsilon: 8.0, delta: 1.0e-5}}
policy:
  approval: auto
  min_cohort: 2
  max_epsilon_per_study: 4.0
  strategies: [dp_fedsgd, fedavg, feature_statistics]
  models: [linear, mlp]
  mechanisms: [distributed, local, none]
  exact_evaluation: true
  show_own_metrics: true
  unmasked_updates: true
"""


def _study_text(dataset: str, source: str, inferred: InferredSchema, names: list[str], seed: int) -> str:
    schema = inferred.schema
    survivors = min(len(names), 2 * len(names) // 3 + 1)
    aggregation = f"{{min_survivors: {survivors}}}"
    colluding = 1 if len(names) < 5 else 2
    training = f"""\
strategy: dp_fedsgd
training: {{rounds: 30}}    # its learning rate follows epsilon
privacy: {{unit: record, mechanism: distributed, epsilon: 3.0, delta: 1.0e-5, colluding_sites: {colluding}}}"""
    if len(names) < 3:
        training = """\
strategy: fedavg
training: {rounds: 30, learning_rate: 0.1, local_epochs: 1, batch_size: 32}
privacy: {unit: record, mechanism: local, epsilon: 3.0, delta: 1.0e-5}    # shared noise needs masks, so three labs"""
        aggregation = (
            "{enabled: false, min_survivors: 2}    # masking needs three labs: of two, each could subtract its own"
        )
    question = _scalar(f"What is {schema.target.name} given the other columns?")
    features = "".join(f"  {_scalar(item.name)}: {_feature_text(item)}\n" for item in schema.features)
    left_out = "".join(f"  # left out: {_scalar(name)} ({why})\n" for name, why in inferred.left_out.items())
    missing = "" if schema.missing == "refuse" else f"missing: {schema.missing}\n"
    return f"""\
# A study to start from, guessed from {_scalar(source)}.
# The bounds and categories were read from the file, because whoever splits it holds all of it. For data that
# nobody holds all of, replace them by public ones: what is known of each column without looking.
study: {_scalar(dataset)}
question: {question}
dataset: {_scalar(dataset)}
task: {_task_text(schema)}
features:
{features}{left_out}{missing}model: {{name: linear}}
{training}
secure_aggregation: {aggregation}
evaluation: {{holdout: 0.25, baselines: [local, pooled]}}
sites: [{", ".join(f"{name}.yaml" for name in names)}]
seed: 7
"""


def _task_text(schema: Schema) -> str:
    target = schema.target
    name = _scalar(target.name)
    if isinstance(target, RegressionTarget):
        return f"{{kind: regression, target: {name}, min: {_scalar(target.minimum)}, max: {_scalar(target.maximum)}}}"
    if isinstance(target, MulticlassTarget):
        return f"{{kind: multiclass, target: {name}, classes: {_list(target.classes)}}}"
    return f"{{kind: binary, target: {name}, positive: {_list(target.positive or ())}}}"


def _feature_text(feature: Feature) -> str:
    if isinstance(feature, CategoryFeature):
        return f"{{categories: {_list(feature.categories)}}}"
    return f"{{min: {_scalar(feature.minimum)}, max: {_scalar(feature.maximum)}}}"


def _list(values: tuple[Category, ...]) -> str:
    return f"[{', '.join(_scalar(value) for value in values)}]"


def _scalar(value: Category) -> str:
    """Return the value as YAML that reads back as itself: text plain where that is safe, else quoted."""
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _YAML_WORDS:
            return value
        quoted = json.dumps(value, ensure_ascii=False)
        return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in quoted)
    number = float(value)
    if number.is_integer() and abs(number) < 1e15:
        return str(int(number))
    mantissa, exponent, power = repr(number).partition("e")
    return mantissa + (".0" if exponent and "." not in mantissa else "") + exponent + power
