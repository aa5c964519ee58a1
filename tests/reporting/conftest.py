"""A finished run with all that a run folder can hold: made once, copied by each test that changes it."""

import importlib.util
import json
import shutil
import sys
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
import yaml

from fedsci.audit.statement import peek, sign_statement
from fedsci.names import digest
from fedsci.secagg.keys import SigningKey
from fedsci.secagg.seed import Seed

NAME = "fedsci_test_program"
if NAME not in sys.modules:
    spec = importlib.util.spec_from_file_location(NAME, Path(__file__).parents[1] / "cli" / "program.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[NAME])

for part in ("pages", "logged", "chromium"):  # this folder's helpers: tests are not a package
    name = f"fedsci_test_{part}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{part}.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)

fedsci = sys.modules[NAME].fedsci
study = sys.modules[NAME].study


@pytest.fixture(scope="session")
def coordinator():
    """The coordinator's key."""
    return SigningKey(Seed(bytes(range(32))))


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A private run of three labs, of which lab-3 does not let its own results be seen; nobody changes it."""
    from fedsci.cli.progress import (
        SilentDisplay,
    )  # not at the top: Flower's imports warn, and tests/conftest.py hears it
    from fedsci.config.study_file import load_study
    from fedsci.reporting.documents import write_documents
    from fedsci.simulation.run import SimulatedRun

    place = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:  # as in tests/conftest.py, whose fixture lives for one test
        patch.setattr("fedsci.site.keystore.Keystore.split_key", lambda self: b"")
        tiny = sys.modules[NAME].Study(place)
        tiny.values["privacy"] = {"mechanism": "distributed", "epsilon": 3.0, "colluding_sites": 1}
        tiny.values["evaluation"] = {"baselines": ["local", "pooled"]}
        tiny.values["audit_log"] = {"enabled": False}  # tests give it a log of their own
        tiny.values["intended_use"] = "Research on *tumours* only."
        for site in tiny.sites.values():
            site["policy"] |= {"mechanisms": ["distributed", "local", "none"], "unlogged_studies": True}
        tiny.sites["lab-3"]["policy"]["show_own_metrics"] = False
        tiny.write()
        run = SimulatedRun(
            study=load_study(tiny.path), engine="local", state=place / "state", out=place, display=SilentDisplay()
        )
        run.run()
    assert run.folder is not None
    write_documents(run.folder.path)
    return run.folder.path


@pytest.fixture
def run(made, tmp_path):
    """A copy of it."""
    return shutil.copytree(made, tmp_path / made.name)


@pytest.fixture
def audited(run, coordinator):
    """A copy with records that its labs signed and two checkpoints of its log; its card is signed."""
    from fedsci.reporting.documents import write_documents

    for number in (1, 2, 3):
        _add_record(run, f"lab-{number}")
    for size in (5, 9):
        _add_checkpoint(run, size)
    (run / "audit" / "keys.json").write_text(json.dumps({"coordinator": coordinator.public.hex(), "quorum": 2}))
    (run / "model_card.md").unlink()
    write_documents(run, signer=coordinator)
    return run


def _add_record(run, site, **changes):
    """Sign a record of a lab's data, and return its file."""
    record = {
        "@type": "sc:Dataset",
        "name": f"tumours of {site}",
        "version": "1.0.0",
        "license": "https://spdx.org/licenses/CC-BY-4.0.html",
        "rai:dataCollection": "Measured on images of cells, 1995.",
    } | changes
    body = {"site": site, "dataset": "tumours", "record": record}
    content = sign_statement("record", body, [SigningKey(Seed(site.ljust(32).encode()))])
    assert peek(content)[1] == body
    payload = json.loads(content)["payload"]
    name = digest(b64decode(payload)).removeprefix("sha256:")
    file = run / "audit" / "statements" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def _add_checkpoint(run, size):
    """Write a checkpoint that looks as if it held a quorum."""
    root = b64encode(bytes([size] * 32)).decode()
    folder = run / "audit" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    note = f"fedsci/{'ab' * 16}\n{size}\n{root}\n\n— lab-1 AAAA\n— lab-2 AAAA\n"
    (folder / f"{size}.note").write_text(note)
    (run / "audit" / "checkpoint").write_text(note)


def _edit(file, change):
    """Change a JSON or YAML file."""
    load, dump = (json.loads, json.dumps) if file.suffix == ".json" else (yaml.safe_load, yaml.safe_dump)
    values = load(file.read_text())
    change(values)
    file.write_text(dump(values, sort_keys=False))


@pytest.fixture
def add_record():
    """Sign a record of a lab's data."""
    return _add_record


@pytest.fixture
def add_checkpoint():
    """Write a checkpoint that looks as if it held a quorum."""
    return _add_checkpoint


@pytest.fixture
def edit():
    """Change a JSON or YAML file."""
    return _edit
