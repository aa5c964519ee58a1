"""Files that people write, and plans that come from a coordinator: read whole, or refused with file and line."""

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from fedsci.config.loading import read_document
from fedsci.config.plan_checks import plan_from_bytes
from fedsci.config.site import load_site
from fedsci.config.strategy import load_recipe
from fedsci.config.study_file import load_deployed_study, load_study
from fedsci.config.weather import load_weather
from fedsci.errors import FedsciError
from fedsci.names import SiteId
from fedsci.privacy.events import from_json, to_json
from fedsci.redteam.run_plan import study_of_run
from fedsci.simulation.search import _choices
from tests.conftest import POLICY, STUDY
from tests.fuzz.engine import Target

ROOT = Path(__file__).parents[3]
_SEVENTEEN = [SiteId(f"lab-{number:02}") for number in range(1, 18)]
LABS = (SiteId("lab-1"), SiteId("lab-2"), SiteId("lab-3"))


def written(data: bytes, read: Callable[[Path], object]) -> None:
    """Read bytes as a file; what is wrong with it is told in one line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file.yaml")
        path.write_bytes(data)
        try:
            read(path)
        except FedsciError as error:
            if "\n" in error.message:
                raise AssertionError(f"two lines: {error.message}") from None
            raise


def plan(data: bytes) -> None:
    """A plan from a coordinator; what is read has the same bytes everywhere, and costs nothing to look at."""
    read = plan_from_bytes(data)
    assert plan_from_bytes(read.to_bytes()).digest == read.digest
    json.dumps(read.to_json(), allow_nan=False)


def run_plan(data: bytes) -> None:
    """The plan of a run folder that is to be attacked; what is taken is the plan that its digest says."""

    def read(path: Path) -> None:
        labs = path.parent / "labs"
        labs.mkdir()
        for site in LABS:
            values = {"site": str(site), "datasets": {"points": {"path": "points.csv"}}, "policy": POLICY}
            (labs / f"{site}.yaml").write_text(yaml.safe_dump(values))
        run = path.parent / "run"
        run.mkdir()
        path.rename(run / "plan.yaml")
        plan(study_of_run(run, labs).plan.to_bytes())

    written(data, read)


def study(data: bytes) -> None:
    """A study file, of labs elsewhere and of labs on this machine."""

    def read(path: Path) -> None:
        for number in (1, 2, 3):
            site = {"site": f"lab-{number}", "datasets": {"points": {"path": "points.csv"}}, "policy": POLICY}
            path.with_name(f"lab-{number}.yaml").write_text(yaml.safe_dump(site))
        try:
            plan(load_deployed_study(path, active=LABS, chosen=list(LABS)).to_bytes())
        finally:
            plan(load_study(path).plan.to_bytes())

    written(data, read)


def override(data: bytes) -> None:
    """A ``--set`` of the command line."""

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "study.yaml")
        path.write_text(yaml.safe_dump(STUDY))
        load_deployed_study(path, active=LABS, overrides=[data.decode("utf-8", "surrogateescape")])


def events(data: bytes) -> None:
    """A ledger's events."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    read = from_json(text)
    assert from_json(to_json(read)) == read


def axis(data: bytes) -> None:
    """An axis of a search, from the command line."""
    _choices([data.decode("utf-8", "surrogateescape")])


def _plans() -> Mapping[str, bytes]:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, changes in _STUDIES.items():
            path = Path(folder, "study.yaml")
            path.write_text(yaml.safe_dump(STUDY | changes, sort_keys=False))
            found[name] = load_deployed_study(path, active=LABS).to_bytes()
    return found


def _run_plans() -> Mapping[str, bytes]:
    found = {}
    for name, content in _plans().items():
        values = json.loads(content) | {"digest": plan_from_bytes(content).digest}
        found[name] = yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode()
    return found


def _studies() -> Mapping[str, bytes]:
    sites = {"sites": [f"lab-{number}.yaml" for number in (1, 2, 3)]}
    return {name: yaml.safe_dump(STUDY | sites | more, sort_keys=False).encode() for name, more in _STUDIES.items()}


def _sites() -> Mapping[str, bytes]:
    values = {"site": "lab-1", "policy": POLICY, "officer": "0" * 64, "device": "cpu"}
    data = {"points": {"path": "a.csv", "csv": {"delimiter": ";"}, "privacy": {"epsilon": 8.0, "delta": 1e-5}}}
    data["digits"] = {"builtin": {"name": "digits", "shard": 1, "of": 2}}
    return {"valid": yaml.safe_dump(values | {"datasets": data}, sort_keys=False).encode()}


def _events() -> Mapping[str, bytes]:
    event = {"kind": "poisson_gaussian", "count": 3, "sample_rate": 0.1, "noise_multiplier": 1.0}
    other = {"kind": "gaussian", "count": 1, "noise_multiplier": 1.0}
    plan = {"version": 2, "neighbouring": "add_or_remove_one_record", "events": [event, other], "held_out": [other]}
    return {"valid": json.dumps(plan).encode()}


_STUDIES: dict[str, dict[str, object]] = {
    "private": {},
    "plain": {
        "privacy": {"mechanism": "none"},
        "strategy": "fedavg",
        "model": {"name": "mlp", "hidden": [4]},
        "features": {
            "a": {"min": 0, "max": 1},
            "kind": {"categories": ["x", 1, True], "unseen": "other"},
            "trace": {"shape": [2, 2], "min": 0, "max": 1},
        },
        "task": {"kind": "multiclass", "target": "above", "classes": ["a", "b", "c"]},
        "personalise": {"method": "ditto", "epochs": 1},
    },
    "regression": {
        "task": {"kind": "regression", "target": "above", "min": 0, "max": 2},
        "checkpoints": [{"before": "release", "who": ["officer"]}],
        "signers": {"officer": ["0" * 64]},
        "privacy": {"mechanism": "distributed", "epsilon": 4.0, "delta": 1e-5, "colluding_sites": 1},
    },
}
_YAML = (
    *(b"&a ", b"*a", b"<<: ", b"!!python/object/apply:os.system [x]", b"!!binary ", b"!!set ", b"!!omap ", b"? "),
    *(b"2024-13-45", b"1:30:30", b".inf", b".nan", b"0o777", b"0x1F", b"~", b"yes", b"1e400", b"9" * 5000, b"---\n"),
    *(b"[" * 90, b"{a: " * 90, b"- " * 90, b"%YAML 9.9\n", b"\t", b"|\n", b">-\n", b"'", b'"', b"\\ud800", b": "),
)


def _read(name: str) -> Mapping[str, bytes]:
    return {"shipped": (ROOT / name).read_bytes()}


TARGETS = [
    Target(name="plan", run=plan, seeds=_plans, tries=150),
    Target(name="run-plan", run=run_plan, seeds=_run_plans, tokens=_YAML, tries=20),
    Target(name="study-file", run=study, seeds=_studies, tokens=_YAML, tries=15),
    Target(name="site-file", run=lambda data: written(data, load_site), seeds=_sites, tokens=_YAML, tries=30),
    Target(
        name="strategy-file",
        run=lambda data: written(data, lambda path: load_recipe(path.name, folder=path.parent, where="strategy")),
        seeds=lambda: _read("strategies/fedadam.yaml"),
        tokens=_YAML,
        tries=30,
    ),
    Target(
        name="weather-file",
        run=lambda data: written(data, lambda path: load_weather(path, sites=_SEVENTEEN, seed=1)),
        seeds=lambda: _read("examples/digits/weather.yaml"),
        tokens=_YAML,
        tries=25,
    ),
    Target(
        name="yaml",
        run=lambda data: written(data, lambda path: read_document(path, kind="study")),
        seeds=_studies,
        tokens=_YAML,
        tries=25,
    ),
    Target(
        name="override",
        run=override,
        seeds=lambda: {
            "number": b"training.rounds=10",
            "list": b"evaluation.metrics=[accuracy]",
            "map": b"model={name: mlp, hidden: [4]}",
        },
        tokens=(b".", b"=", b"training.", *_YAML),
        tries=20,
    ),
    Target(name="privacy-events", run=events, seeds=_events, tries=120),
    Target(
        name="search-axis",
        run=axis,
        seeds=lambda: {"list": b"training.rounds=1,2,3", "range": b"model.hidden=[4],[8, 8]"},
        tokens=(b",", b"=", *_YAML),
        tries=80,
    ),
]
