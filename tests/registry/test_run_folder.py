import json

import numpy as np
import pytest
import yaml
from safetensors.numpy import load

from fedsci import names
from fedsci.errors import InputError
from fedsci.registry.run_folder import RunFolder, create_run_folder
from fedsci.vectors.layout import Layout

LAYOUT = Layout(entries=(("weight", (1, 2)), ("bias", (1,))))
DIGEST = "sha256:" + "ab12cd34" * 8


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return create_run_folder(tmp_path / "runs", study="heart", plan_digest=DIGEST)


def test_a_folder_is_named_after_study_time_and_plan(folder):
    study, stamp, digest = folder.path.name.split("-")
    assert (study, digest) == ("heart", "ab12cd34")
    assert len(stamp) == len("20260102T030405Z")


def test_two_runs_of_one_second_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("fedsci.registry.run_folder.time.strftime", lambda *_: "now")
    paths = [create_run_folder(tmp_path, study="x", plan_digest=DIGEST).path.name for _ in range(3)]
    assert paths == ["x-now-ab12cd34", "x-now-ab12cd34-2", "x-now-ab12cd34-3"]


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError) as refused:
        create_run_folder(tmp_path / "runs", study="x", plan_digest=DIGEST)
    assert "--out" in refused.value.hint


def test_a_file_is_written_whole_and_replaced_whole(folder):
    folder.write("a.txt", b"first")
    folder.write("a.txt", b"second")
    assert (folder.path / "a.txt").read_bytes() == b"second"
    assert [path.name for path in folder.path.iterdir()] == ["a.txt"]


def test_a_write_that_fails_leaves_the_old_file(folder, monkeypatch):
    folder.write("a.txt", b"first")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedsci.registry.run_folder.os.fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*a\.txt: No space left") as refused:
        folder.write("a.txt", b"second")
    assert "stays spent" in refused.value.hint
    assert (folder.path / "a.txt").read_bytes() == b"first"
    assert [path.name for path in folder.path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_json_is_never_written(folder, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.write_json("summary.json", {"x": value})
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.append_metrics({"x": value})
    assert not (folder.path / "summary.json").exists()
    assert not (folder.path / "metrics.jsonl").exists() or (folder.path / "metrics.jsonl").read_text() == ""


def test_metrics_are_a_line_each(folder):
    folder.append_metrics({"round": 1})
    folder.append_metrics({"round": 2})
    assert (folder.path / "metrics.jsonl").read_text() == '{"round": 1}\n{"round": 2}\n'


def test_metrics_that_cannot_be_written_are_an_error(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        RunFolder(path=tmp_path / "gone").append_metrics({"round": 1})


def test_a_plan_is_yaml_in_its_own_order(folder):
    folder.write_plan({"study": {"question": "Ünï?"}, "a": 1})
    text = (folder.path / "plan.yaml").read_text(encoding="utf-8")
    assert "Ünï" in text
    assert list(yaml.safe_load(text)) == ["study", "a"]


def test_a_model_is_stored_by_its_digest(folder):
    digest = folder.write_model(np.array([1, 2, 3], np.float32), LAYOUT, {"study": "heart"})
    content = (folder.path / "model.safetensors").read_bytes()
    about = json.loads((folder.path / "model.json").read_text())
    assert digest == about["digest"] == names.digest(content)
    assert about["study"] == "heart"
    assert about["tensors"] == LAYOUT.to_json()
    assert {name: tensor.tolist() for name, tensor in load(content).items()} == {"weight": [[1, 2]], "bias": [3]}


def test_a_model_that_does_not_fit_its_layout_is_not_stored(folder):
    with pytest.raises(InputError, match="does not fit"):
        folder.write_model(np.zeros(4, np.float32), LAYOUT, {})
    assert list(folder.path.iterdir()) == []


HALF = [b'{"round": 1e999}', b"[" * 100_000, b"[]", b'{"round": null}', b'{"rou']


@pytest.mark.parametrize("half", HALF)
def test_a_last_line_that_is_no_round_is_dropped(folder, half):
    folder.append_metrics({"round": 1})
    whole = (folder.path / "metrics.jsonl").read_bytes()
    (folder.path / "metrics.jsonl").write_bytes(whole + half)
    assert folder.settle_metrics() == {1}
    assert (folder.path / "metrics.jsonl").read_bytes() == whole


@pytest.mark.parametrize("damage", HALF)
def test_rounds_are_not_dropped_for_a_damaged_line_before_them(folder, damage):
    content = b'{"round": 1}\n' + damage + b'\n{"round": 3}\n'
    (folder.path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=r"line 2 of .*metrics\.jsonl is damaged") as refused:
        folder.settle_metrics()
    assert "backup" in refused.value.hint
    assert (folder.path / "metrics.jsonl").read_bytes() == content
