"""``fedsci verify`` names the first file and field that is not as it was signed; an honest run is verified whole."""

import json
import shutil
import struct
import time
from base64 import b64decode, b64encode
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from fedsci.audit.checkpoint import Checkpoint
from fedsci.audit.merkle import Tree
from fedsci.audit.note import sign_note
from fedsci.audit.statement import canonical, sign_statement
from fedsci.cli.progress import SilentDisplay
from fedsci.config.study_file import load_study
from fedsci.coordinator.deciding import hand_in
from fedsci.coordinator.decisions import sign_decision
from fedsci.coordinator.study_log import StudyLog
from fedsci.errors import FedsciError, PolicyRefused, VerificationFailed
from fedsci.names import digest
from fedsci.reporting import write_report
from fedsci.reporting.verify import verify_run
from fedsci.secagg import Seed, SigningKey
from fedsci.simulation.run import SimulatedRun

LABS = 4


def write_labs(folder: Path) -> None:
    for number in range(1, LABS + 1):
        points = np.random.default_rng(number).uniform(size=(60, 2))
        lines = ["a,b,above", *(f"{a:.6f},{b:.6f},{int(a > b)}" for a, b in points)]
        (folder / f"lab-{number}.csv").write_text("\n".join(lines) + "\n")
        source = {"path": f"lab-{number}.csv", "privacy": {"epsilon": 8.0, "delta": 1.0e-5}}
        policy = {"approval": "auto", "min_cohort": 2, "max_epsilon_per_study": 5.0, "exact_evaluation": True}
        policy |= {"strategies": ["dp_fedsgd"], "models": ["linear"]}
        values = {"site": f"lab-{number}", "datasets": {"points": source}, "policy": policy}
        (folder / f"lab-{number}.yaml").write_text(yaml.safe_dump(values))


STUDY = {
    "study": "tiny",
    "dataset": "points",
    "task": {"kind": "binary", "target": "above"},
    "features": {"a": {"min": 0, "max": 1}, "b": {"min": 0, "max": 1}},
    "model": {"name": "linear"},
    "strategy": "dp_fedsgd",
    "training": {"rounds": 3, "learning_rate": 0.5},
    "privacy": {"mechanism": "distributed", "epsilon": 4.0, "delta": 1.0e-5, "colluding_sites": 1},
    "evaluation": {"holdout": 0.25, "baselines": []},
    "sites": [f"lab-{number}.yaml" for number in range(1, LABS + 1)],
    "seed": 3,
}


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A private, masked, logged run of four labs, and the key of its coordinator."""
    folder = tmp_path_factory.mktemp("honest")
    write_labs(folder)
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    run = SimulatedRun(
        study=load_study(folder / "study.yaml"),
        engine="local",
        state=folder / "state",
        out=folder / "runs",
        display=SilentDisplay(),
    )
    assert run.run()["status"] == "completed"
    key = SigningKey(Seed((folder / "state" / "consortium.key").read_bytes()))
    return run.folder.path, key


class Officer(SilentDisplay):
    """Decides as soon as it is asked: ``refuses`` at that checkpoint."""

    def __init__(self, refuses=""):
        self.refuses = refuses

    def waits(self, question, roles, folder):
        for role in roles:
            answer = "refuse" if question.point.checkpoint == self.refuses else "approve"
            signed = sign_decision(question.point, role=role, name="O.", answer=answer, key=OFFICER, now=time.time())
            hand_in(folder, signed)


OFFICER = SigningKey(Seed(b"o" * 32))
ASKED = {
    "checkpoints": [{"before": when, "who": ["officer"]} for when in ("training", "release")]
    + [{"every_rounds": 1, "who": ["officer"]}],
    "signers": {"officer": [OFFICER.public.hex()]},
    "training": {"rounds": 2, "learning_rate": 0.5},
}


@pytest.fixture
def asked(tmp_path):
    """Run a study that an officer decides on; return its folder, and the key of its coordinator."""

    def run(refuses="", **changes):
        write_labs(tmp_path)
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY | ASKED | changes))
        study = load_study(tmp_path / "study.yaml")
        state, out = tmp_path / "state", tmp_path / "runs"
        simulated = SimulatedRun(study=study, engine="local", state=state, out=out, display=Officer(refuses))
        try:
            simulated.run()
        except PolicyRefused:
            assert refuses
        return simulated.folder.path, SigningKey(Seed((state / "consortium.key").read_bytes()))

    return run


@pytest.fixture
def copy(honest, tmp_path):
    return Path(shutil.copytree(honest[0], tmp_path / "run"))


def wrong(folder: Path, file: str, field: str = "") -> VerificationFailed:
    with pytest.raises(VerificationFailed) as failed:
        verify_run(folder)
    assert failed.value.file == file, failed.value
    assert field in failed.value.field, failed.value
    return failed.value


def statements(folder: Path, kind: str) -> list[Path]:
    entries = [json.loads(line) for line in (folder / "audit" / "entries.jsonl").read_text().splitlines()]
    named = [entry["digest"].removeprefix("sha256:") for entry in entries if entry["kind"] == kind]
    return [folder / "audit" / "statements" / f"{name}.json" for name in named]


def change(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_bytes()) | values, indent=2) + "\n")


def sign_anew(folder: Path, key: SigningKey, **more: str) -> None:
    """What a coordinator can do afterwards: sign other files as what the run left."""
    manifest = folder / "audit" / "manifest.json"
    body = json.loads(b64decode(json.loads(manifest.read_bytes())["payload"]))
    names = {*body["files"], "model.safetensors", "model.json"}
    body["files"] = {name: digest((folder / name).read_bytes()) for name in names if (folder / name).exists()} | more
    manifest.write_bytes(sign_statement("manifest", body, [key]))


def test_an_honest_run_is_verified_and_says_what_it_rests_on(honest):
    folder, key = honest
    found = verify_run(folder, consortium=key.public)
    assert (found.status, found.rounds, len(found.sites)) == ("completed", 3, LABS)
    assert found.log.newest.checkpoint.size == len(found.log.entries)
    assert len({note.checkpoint.size for note in found.log.kept}) == 5
    assert found.consortium == digest(key.public)


def test_another_consortium_s_run_is_not_taken_for_one_s_own(honest):
    with pytest.raises(VerificationFailed) as failed:
        verify_run(honest[0], consortium=b"\1" * 32)
    assert (failed.value.file, failed.value.field) == ("audit/keys.json", "consortium")


@pytest.mark.parametrize(
    "file",
    [
        "plan.yaml",
        "metrics.jsonl",
        "summary.json",
        "model.safetensors",
        "model.json",
        "audit/keys.json",
        "audit/entries.jsonl",
        "audit/checkpoint",
        "audit/manifest.json",
    ],
)
def test_a_missing_or_empty_file_is_named(copy, file):
    (copy / file).write_bytes(b"")
    assert wrong(copy, file)
    (copy / file).unlink()
    assert wrong(copy, file)


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_every_byte_of_every_file_counts(honest, copy, data):
    files = sorted(str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file())
    file = data.draw(st.sampled_from([name for name in files if not name.endswith((".html", ".md", ".cdx.json"))]))
    content = bytearray((copy / file).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (copy / file).write_bytes(content)
    try:
        with pytest.raises(VerificationFailed) as failed:
            verify_run(copy)
        named = failed.value.file
        assert named == file or (file == "audit/keys.json" and named.startswith("audit/")), failed.value
    finally:
        shutil.copy(honest[0] / file, copy / file)


def test_a_file_too_many_is_named(copy):
    (copy / "audit" / "statements" / f"{'0' * 64}.json").write_bytes(b"{}")
    assert wrong(copy, f"audit/statements/{'0' * 64}.json")


@pytest.mark.parametrize("action", ["drop", "swap", "repeat", "cut"])
def test_entries_cannot_be_dropped_reordered_or_repeated(copy, action):
    file = copy / "audit" / "entries.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    changed = {
        "drop": lines[:2] + lines[3:],
        "swap": [*lines[:2], lines[3], lines[2], *lines[4:]],
        "repeat": [*lines[:3], lines[2], *lines[3:]],
        "cut": lines[:-1],
    }[action]
    file.write_bytes(b"".join(changed))
    assert wrong(copy, "audit/entries.jsonl")


def test_a_better_metric_is_found_even_if_the_coordinator_signs_it(honest, copy):
    summary = json.loads((copy / "summary.json").read_bytes())
    summary["metrics"]["federated"]["accuracy"] = 0.999
    (copy / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    assert wrong(copy, "summary.json", "digest")
    sign_anew(copy, honest[1])
    assert wrong(copy, "summary.json", "metrics.federated.accuracy")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epsilon_spent_study", 0.5),
        ("epsilon_enforced_total", 0.5),
        ("epsilon_budget", 80.0),
        ("noise_multiplier", 10.0),
        ("rounds_charged", 1),
    ],
)
def test_figures_of_privacy_are_those_that_sites_signed(honest, copy, key, value):
    summary = json.loads((copy / "summary.json").read_bytes())
    summary["privacy"]["by_site"]["lab-2"][key] = value
    (copy / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    sign_anew(copy, honest[1])
    assert wrong(copy, "summary.json", "privacy")


def test_other_rounds_are_found_even_if_the_coordinator_signs_them(honest, copy):
    lines = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    lines[1]["metrics"]["accuracy"] = 0.999
    (copy / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sign_anew(copy, honest[1])
    assert wrong(copy, "metrics.jsonl", "round 2: metrics")


def test_another_model_is_found_even_if_the_coordinator_signs_it(honest, copy):
    arrays = load((copy / "model.safetensors").read_bytes())
    arrays["bias"] = arrays["bias"] + np.float32(1e-6)
    (copy / "model.safetensors").write_bytes(save(arrays))
    sign_anew(copy, honest[1])
    assert wrong(copy, "model.safetensors", "model")


@pytest.mark.parametrize(("kind", "size"), [("BF16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1), ("F8_E8M0", 1)])
def test_a_model_of_numbers_that_numpy_has_not_is_found_even_if_the_coordinator_signs_it(honest, copy, kind, size):
    path, at, header = copy / "model.safetensors", 0, {}
    for name, array in load(path.read_bytes()).items():
        span = array.size * size
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [at, at + span]}
        at += span
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))
    sign_anew(copy, honest[1])
    assert wrong(copy, "model.safetensors", "dtype")
    write_report(copy, verified=verify_run)


@pytest.mark.parametrize("kind", ["plan", "sites", "round", "spend", "model"])
def test_a_statement_signed_by_somebody_else_is_found(copy, kind):
    for path in statements(copy, kind)[:1]:
        body = json.loads(b64decode(json.loads(path.read_bytes())["payload"]))
        path.write_bytes(sign_statement(kind, body, [SigningKey(Seed(b"x" * 32))]))
        assert wrong(copy, f"audit/statements/{path.name}", "signatures")


def test_a_statement_of_other_content_is_found(honest, copy):
    [path, *_] = statements(copy, "round")
    body = json.loads(b64decode(json.loads(path.read_bytes())["payload"]))
    path.write_bytes(sign_statement("round", body | {"weight": 0.5}, [honest[1]]))
    assert wrong(copy, f"audit/statements/{path.name}", "payload")


def test_keys_of_other_sites_are_found(copy):
    keys = json.loads((copy / "audit" / "keys.json").read_bytes())
    change(copy / "audit" / "keys.json", sites=keys["sites"] | {"lab-1": "11" * 32})
    assert wrong(copy, "audit/keys.json", "sites")
    change(copy / "audit" / "keys.json", sites=keys["sites"], quorum=1)
    assert wrong(copy, "audit/keys.json", "quorum")


def test_a_roster_that_the_consortium_did_not_sign_is_found(copy):
    keys = json.loads((copy / "audit" / "keys.json").read_bytes())
    roster = bytearray(b64decode(keys["roster"]))
    roster[40] ^= 1
    change(copy / "audit" / "keys.json", roster=b64encode(bytes(roster)).decode())
    assert wrong(copy, "audit/keys.json", "roster")


@pytest.mark.parametrize("file", ["summary.json", "metrics.jsonl", "audit/entries.jsonl", "audit/checkpoint"])
def test_the_report_of_a_spoilt_run_is_a_banner_and_no_number(copy, file):
    honest = write_report(copy).read_text()
    accuracy = json.loads((copy / "summary.json").read_bytes())["metrics"]["federated"]["accuracy"]
    assert "This run’s evidence does not check out" not in honest
    assert f"{accuracy:.3f}" in honest
    content = bytearray((copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / file).write_bytes(content)
    page = write_report(copy).read_text()
    assert "This run’s evidence does not check out" in page
    assert file in page
    assert not any(part in page for part in (f"{accuracy:.3f}", "<svg", "<table"))


@pytest.mark.slow
def test_a_run_without_a_log_is_not_verified(tmp_path):
    write_labs(tmp_path)
    for number in range(1, LABS + 1):
        file = tmp_path / f"lab-{number}.yaml"
        values = yaml.safe_load(file.read_text())
        values["policy"]["unlogged_studies"] = True
        file.write_text(yaml.safe_dump(values))
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY | {"audit_log": {"enabled": False}}))
    study = load_study(tmp_path / "study.yaml", overrides=["training.rounds=1"])
    run = SimulatedRun(study=study, engine="local", state=None, out=tmp_path / "runs", display=SilentDisplay())
    run.run()
    assert "no audit log" in wrong(run.folder.path, "audit").message


def test_what_is_signed_is_what_anyone_can_read(honest):
    [path] = statements(honest[0], "model")
    body = json.loads(b64decode(json.loads(path.read_bytes())["payload"]))
    assert digest(canonical(body)).removeprefix("sha256:") == path.stem
    with pytest.raises(FedsciError):
        verify_run(honest[0] / "audit")


@pytest.mark.slow
def test_a_run_with_all_its_decisions_is_verified(asked):
    folder, _ = asked()
    assert "4 signed decisions of people, each where the plan asks for it" in verify_run(folder).checks


@pytest.mark.slow
@pytest.mark.parametrize("left_out", ["before:training", "round:1", "round:2", "before:release"])
def test_a_decision_that_is_not_in_the_log_was_not_made(asked, monkeypatch, left_out):
    """A coordinator that goes on without asking; the sites cosign what they are shown."""
    keep = StudyLog.keep

    def forget(self, kind, envelope, **about):
        if kind != "decision" or left_out not in b64decode(json.loads(envelope)["payload"]).decode():
            keep(self, kind, envelope, **about)

    monkeypatch.setattr(StudyLog, "keep", forget)
    folder, key = asked()
    summary = json.loads((folder / "summary.json").read_bytes())
    left = [one for one in summary["checkpoints"] if one["checkpoint"] != left_out]
    change(folder / "summary.json", checkpoints=left)
    sign_anew(folder, key)
    assert "officer approved nothing in the log" in wrong(folder, "audit/entries.jsonl", "decision").message


@pytest.mark.slow
def test_a_refused_release_is_not_shown_as_a_completed_run(asked):
    folder, key = asked(refuses="before:release")
    assert verify_run(folder).status == "aborted"
    change(folder / "summary.json", status="completed", reason=None)
    sign_anew(folder, key)
    assert "officer refused before release" in wrong(folder, "audit/entries.jsonl", "decision").message


@pytest.mark.slow
def test_a_refused_model_is_not_in_the_folder(asked, honest):
    folder, key = asked(refuses="before:release")
    for name in ("model.safetensors", "model.json"):
        shutil.copy(honest[0] / name, folder / name)
    sign_anew(folder, key)
    wrong(folder, "model.safetensors", "model")


@pytest.mark.slow
def test_the_summary_s_decisions_are_those_of_the_log(asked):
    folder, key = asked()
    summary = json.loads((folder / "summary.json").read_bytes())
    change(folder / "summary.json", checkpoints=[one | {"reason": "good"} for one in summary["checkpoints"]])
    sign_anew(folder, key)
    wrong(folder, "summary.json", "checkpoints")


@pytest.mark.slow
def test_a_lab_that_signed_no_charge_is_not_shown_as_settled(asked, monkeypatch):
    keep = StudyLog.keep
    monkeypatch.setattr(
        StudyLog,
        "keep",
        lambda self, kind, envelope, *, site=None: (
            None if (kind, site) == ("spend", "lab-2") else keep(self, kind, envelope, site=site)
        ),
    )
    folder, _ = asked()
    assert "lab-2 signed no charge" in wrong(folder, "summary.json", "lab-2.settled").message


@pytest.mark.parametrize("status", ["", "done", "completed ", 3])
def test_a_run_ends_in_one_of_three_ways(honest, copy, status):
    change(copy / "summary.json", status=status)
    sign_anew(copy, honest[1])
    wrong(copy, "summary.json", "status")


@pytest.mark.parametrize(
    ("key", "value"), [("question", "another"), ("seed", 4), ("rounds_abandoned", [4]), ("checkpoints", [{}])]
)
def test_what_the_plan_and_the_log_say_is_what_the_summary_says(honest, copy, key, value):
    change(copy / "summary.json", **{key: value})
    sign_anew(copy, honest[1])
    wrong(copy, "summary.json", key)


def test_an_aborted_run_is_held_to_the_log_as_a_completed_one(honest, copy):
    arrays = load((copy / "model.safetensors").read_bytes())
    (copy / "model.safetensors").write_bytes(save(arrays | {"bias": arrays["bias"] + np.float32(1)}))
    change(copy / "summary.json", status="aborted", reason="stopped")
    sign_anew(copy, honest[1])
    wrong(copy, "model.safetensors", "model")


def test_rounds_that_no_quorum_saw_are_not_a_history(honest, copy):
    """An aborted run may end in one round that sites did not cosign any more, and in no more of them."""
    folder, key = copy / "audit", honest[1]
    for note in (folder / "checkpoints").glob("*.note"):
        note.unlink()
    log_again(folder, key, (folder / "entries.jsonl").read_bytes().splitlines())
    change(copy / "summary.json", status="aborted", reason="stopped")
    sign_anew(copy, key)
    second = statements(copy, "round")[1]
    assert "no quorum saw the round before it" in wrong(copy, f"audit/statements/{second.name}", "round").message


def log_again(folder: Path, key: SigningKey, lines: list[bytes]) -> None:
    """What a coordinator can do without its witnesses: sign any entries."""
    tree = Tree()
    for line in lines:
        tree.append(line)
    (folder / "entries.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    origin = (folder / "checkpoint").read_text().splitlines()[0]
    (folder / "checkpoint").write_bytes(sign_note(Checkpoint(origin=origin, size=len(lines), root=tree.root()), key))
    manifest = folder / "manifest.json"
    body = json.loads(b64decode(json.loads(manifest.read_bytes())["payload"]))
    body |= {"size": len(lines), "root": b64encode(tree.root()).decode()}
    manifest.write_bytes(sign_statement("manifest", body, [key]))


def test_an_empty_log_is_refused(honest, copy):
    for file in [*(copy / "audit" / "statements").iterdir(), *(copy / "audit" / "checkpoints").iterdir()]:
        file.unlink()
    log_again(copy / "audit", honest[1], [])
    change(copy / "summary.json", status="aborted")
    sign_anew(copy, honest[1])
    wrong(copy, "audit/entries.jsonl")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.json", "{"),
        ("model.json", "[" * 100_000),
        ("audit/keys.json", "[" * 100_000),
        ("audit/keys.json", '{"quorum": Infinity}'),
        ("metrics.jsonl", '{"round": [1]}\n' * 3),
        ("metrics.jsonl", '{"round": {}}\n{"round": null}\n{"round": true}\n'),
        ("summary.json", "[]"),
        ("summary.json", "[" * 100_000),
    ],
)
def test_what_is_malformed_is_refused_though_the_coordinator_signed_it(honest, copy, file, content):
    (copy / file).write_text(content)
    sign_anew(copy, honest[1])
    assert wrong(copy, "model.safetensors" if file == "model.json" else file)


def test_a_number_beyond_all_floats_is_refused(honest, copy):
    summary = json.loads((copy / "summary.json").read_bytes())
    summary["metrics"]["federated"]["accuracy"] = 10**400
    (copy / "summary.json").write_text(json.dumps(summary))
    sign_anew(copy, honest[1])
    wrong(copy, "summary.json", "metrics.federated.accuracy")


@pytest.mark.parametrize("name", ["../../elsewhere", "/dev/zero", "a\0b"])
def test_a_manifest_names_no_other_file(honest, copy, name):
    sign_anew(copy, honest[1], **{name: digest(b"")})
    wrong(copy, "audit/manifest.json", "files")


def test_a_run_that_was_cut_off_says_so_and_is_held_to_the_log(copy):
    for name in ("summary.json", "audit/manifest.json"):
        (copy / name).unlink()
    assert any(line.startswith("cut off") for line in verify_run(copy).checks)
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    (copy / "metrics.jsonl").write_text("".join(line + "\n" for line in lines[:-1]))
    verify_run(copy)
    (copy / "metrics.jsonl").write_text("".join(line + "\n" for line in [*lines, lines[-1]]))
    wrong(copy, "metrics.jsonl", "round")


def test_what_a_killed_process_logged_last_and_nobody_witnessed_is_left_out(copy):
    entries = copy / "audit" / "entries.jsonl"
    whole, unseen = entries.read_bytes(), json.loads(entries.read_bytes().splitlines()[-1])
    unseen["digest"] = "sha256:" + "0" * 64
    entries.write_bytes(whole + json.dumps(unseen, separators=(",", ":"), sort_keys=True).encode() + b"\n{half a li")
    wrong(copy, "audit/entries.jsonl")
    for name in ("summary.json", "audit/manifest.json"):
        (copy / name).unlink()
    verify_run(copy)
    entries.write_bytes(whole[: whole.rstrip().rindex(b"\n") + 1])
    wrong(copy, "audit/entries.jsonl")
