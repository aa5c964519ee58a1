"""Whole runs in which a lab lies, or only the coordinator: what ``fedsci verify`` says of the folder that is left."""

import json
import shutil
from base64 import b64decode
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import yaml

from fedsci.audit.statement import sign_statement
from fedsci.cli.progress import SilentDisplay
from fedsci.config.site import load_site
from fedsci.config.study_file import load_study
from fedsci.coordinator.alarms import Alarms
from fedsci.coordinator.blame import LEFT_OUT, NAMED
from fedsci.coordinator.checkpoint import Checkpoint
from fedsci.coordinator.norm_check import ABOVE, NormCheck
from fedsci.coordinator.progress import Progress, Suspended
from fedsci.coordinator.run import RunRecord
from fedsci.coordinator.study import run_study
from fedsci.coordinator.study_log import StudyLog
from fedsci.errors import FedsciError, VerificationFailed
from fedsci.names import digest
from fedsci.reporting.evidence import read_evidence
from fedsci.reporting.verify import verify_run
from fedsci.simulation.consortium import SimulatedConsortium
from fedsci.site.service import SiteService
from fedsci.transport.in_memory import LocalGrid
from fedsci.transport.link import SiteLink
from fedsci.transport.site_app import build_site_app

POLICY = {
    "approval": "auto",
    "min_cohort": 2,
    "max_epsilon_per_study": 5.0,
    "strategies": ["dp_fedsgd"],
    "models": ["linear"],
    "unmasked_updates": True,
}
STUDY = {
    "study": "tiny",
    "dataset": "points",
    "task": {"kind": "binary", "target": "above"},
    "features": {"a": {"min": 0, "max": 1}, "b": {"min": 0, "max": 1}},
    "model": {"name": "linear"},
    "strategy": "dp_fedsgd",
    "training": {"sample_rate": 1.0, "learning_rate": 0.3},
    "privacy": {"mechanism": "local", "epsilon": 4.0, "delta": 1e-5},
    "secure_aggregation": {"enabled": False},
    "evaluation": {"holdout": 0.25, "baselines": []},
    "seed": 3,
}


class Lab(SiteService):
    """One of the labs of ``Lab.liars`` sends the most there is; one of ``Lab.away`` is not there in a round."""

    liars: ClassVar[dict[str, int]] = {}
    away: ClassVar[dict[str, int]] = {}

    def handle(self, request):
        if request.action == "train" and self.away.get(self.site.site) == request.fields["round"]:
            raise RuntimeError("away")
        return super().handle(request)

    def _send(self, upload, contribution, metrics, fields):
        asked = upload.request
        if asked.action == "train" and asked.fields["round"] >= self.liars.get(self.site.site, 10**6):
            contribution = np.full_like(contribution, 1e6)
        return super()._send(upload, contribution, metrics, fields)


def run(folder, *, liars=None, away=None, labs=4, rounds=8, dies=None):
    """Run a logged study; the coordinator's process ends, once, where ``dies`` says, and another goes on.

    Returns its folder and what signs its log.
    """
    folder.mkdir(exist_ok=True)
    for number in range(1, labs + 1):
        points = np.random.default_rng(number).uniform(size=(40, 2))
        lines = ["a,b,above", *(f"{a:.6f},{b:.6f},{int(a > b)}" for a, b in points)]
        (folder / f"lab-{number}.csv").write_text("\n".join(lines) + "\n")
        source = {"path": f"lab-{number}.csv", "privacy": {"epsilon": 8.0, "delta": 1e-5}}
        values = {"site": f"lab-{number}", "datasets": {"points": source}, "policy": POLICY}
        (folder / f"lab-{number}.yaml").write_text(yaml.safe_dump(values))
    values = STUDY | {"sites": [f"lab-{number}.yaml" for number in range(1, labs + 1)]}
    values["training"] = STUDY["training"] | {"rounds": rounds}
    (folder / "study.yaml").write_text(yaml.safe_dump(values))
    study = load_study(folder / "study.yaml")
    consortium, keep, progress, died = SimulatedConsortium(folder), Checkpoint(folder / "kept"), Progress(), []
    services = [Lab(load_site(file), folder / "state" / file.stem) for file in study.site_files]
    for service in services:
        service.keystore.pin_consortium(consortium.public)
    record = RunRecord.begin(study.plan, engine="local", out=folder, display=SilentDisplay(), progress=progress)
    record.write_plan()
    grid, ask, save = LocalGrid(build_site_app(lambda n: services[n].handle), labs), SiteLink.ask, Checkpoint.save
    link = SiteLink(grid=grid, timeout_s=30)

    def end(what):
        if dies is not None and not died and dies(what, record.progress):
            died.append(what)
            raise Suspended

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lab, "liars", liars or {})
        patch.setattr(Lab, "away", away or {})
        patch.setattr(
            SiteLink, "ask", lambda self, asked: (end(next(iter(asked.values())).action), ask(self, asked))[1]
        )
        patch.setattr(Checkpoint, "save", lambda self, progress: (end("save"), save(self, progress))[1])
        link.discover(study.plan.sites)
        status, reason = "completed", ""
        while True:
            record.link, log = link, record.log(consortium.log_key, None)
            try:
                run_study(link, study.plan, record.progress, record, roster=None, keep=keep, log=log)
            except Suspended:
                kept, path = keep.restore(study.plan), record.folder.path
                record = RunRecord.reopen(
                    study.plan, engine="local", folder=path, display=SilentDisplay(), progress=kept
                )
                continue
            except FedsciError as error:
                status, reason = "aborted", error.message
            break
        if status == "completed":
            record.write_model()
        record.close(status, reason)
    grid.close()
    assert bool(died) == (dies is not None)
    return record.folder.path, consortium.log_key


def statement(folder, kind, at):
    entries = [json.loads(line) for line in (folder / "audit" / "entries.jsonl").read_text().splitlines()]
    name = [one for one in entries if one["kind"] == kind][at]["digest"].removeprefix("sha256:")
    return f"audit/statements/{name}.json"


def wrong(folder, file, field):
    with pytest.raises(VerificationFailed) as error:
        verify_run(folder)
    assert (error.value.file, error.value.field) == (file, field), error.value
    return error.value


def rewrite(left, **files):
    """What a coordinator can do afterwards: change what the summary, or each line, says, and sign that."""
    folder, key = left
    for name, change in files.items():
        path = folder / {"summary": "summary.json", "lines": "metrics.jsonl"}[name]
        said = (
            [json.loads(line) for line in path.read_text().splitlines()]
            if name == "lines"
            else [json.loads(path.read_bytes())]
        )
        for one in said:
            change(one)
        path.write_text("".join(json.dumps(one) + "\n" for one in said))
    manifest = folder / "audit" / "manifest.json"
    body = json.loads(b64decode(json.loads(manifest.read_bytes())["payload"]))
    body["files"] = {name: digest((folder / name).read_bytes()) for name in body["files"]}
    manifest.write_bytes(sign_statement("manifest", body, [key]))


@pytest.fixture(scope="module")
def liar(tmp_path_factory):
    """A run in which lab-3 lies from the second round on, and is found."""
    return run(tmp_path_factory.mktemp("liar"), liars={"lab-3": 2})


@pytest.fixture
def left(liar, tmp_path):
    """A copy of it, and what signs its log."""
    return shutil.copytree(liar[0], tmp_path / "run"), liar[1]


def test_a_run_with_a_liar_that_was_found_is_verified(liar):
    summary = json.loads((liar[0] / "summary.json").read_bytes())
    assert (summary["blame"]["verdict"], summary["blame"]["named"]) == ("found", ["lab-3"])
    assert any("follow from the log" in line for line in verify_run(liar[0]).checks)


@pytest.mark.slow
def test_a_run_of_honest_labs_is_verified(tmp_path):
    folder, _ = run(tmp_path, rounds=2)
    assert json.loads((folder / "summary.json").read_bytes())["blame"] is None
    assert not any("no honest labs" in line for line in verify_run(folder).checks)


def test_a_run_that_was_cut_off_is_held_to_its_search_too(left):
    for name in ("summary.json", "audit/manifest.json"):
        (left[0] / name).unlink()
    verify_run(left[0])


@pytest.mark.slow
@pytest.mark.parametrize("away", [{}, {"lab-1": 3}])
@pytest.mark.parametrize(
    "dies",
    [
        pytest.param(lambda what, now: what == "save" and _alarm_is_news(now), id="an alarm logged and not kept"),
        pytest.param(lambda what, now: what == "save" and now.abandoned[-1:] == [3], id="a lost round not kept"),
        pytest.param(lambda what, now: what == "witness" and now.abandoned[-1:] == [3], id="a lost round kept"),
        pytest.param(lambda what, now: what == "train" and now.asked == 4, id="a round asked for in the search"),
        pytest.param(lambda what, now: what == "train" and now.asked == 8, id="a round asked for after the search"),
    ],
)
def test_a_run_that_went_on_in_the_middle_of_its_search_is_verified(tmp_path, dies, away):
    """Also where a lab was away from a round that left out another, so that it had too few."""
    folder, _ = run(tmp_path, liars={"lab-3": 2}, away=away, rounds=11, dies=dies)
    assert json.loads((folder / "summary.json").read_bytes())["blame"]["named"] == ["lab-3"]
    verify_run(folder)
    read_evidence(folder)


def _alarm_is_news(progress):
    """Whether the round that was asked for alarmed, and is about to be kept as given up."""
    return bool(progress.alarms and progress.abandoned) and progress.alarms[-1]["round"] == progress.asked


@pytest.mark.slow
def test_a_search_with_too_few_labs_in_a_round_is_verified(tmp_path):
    folder, _ = run(tmp_path, liars={"lab-3": 1}, away={"lab-4": 2}, rounds=4)
    assert 2 in json.loads((folder / "summary.json").read_bytes())["rounds_abandoned"]
    verify_run(folder)


def test_alarms_and_blame_are_not_taken_out_of_the_summary(left):
    rewrite(left, summary=lambda said: said.update(alarms=[], blame=None))
    wrong(left[0], "summary.json", "alarms")


def test_blame_is_not_taken_out_of_the_summary(left):
    rewrite(left, summary=lambda said: said.update(blame=None))
    wrong(left[0], "summary.json", "blame.named")


@pytest.mark.parametrize(
    ("name", "value"),
    [("norm", 1e12), ("kind", "below-noise"), ("bound", 1e9), ("least", 1.0), ("sites", ["lab-4"])],
)
def test_no_alarm_is_made_worse(left, name, value):
    rewrite(left, summary=lambda said: said["alarms"][0].update({name: value}))
    wrong(left[0], "summary.json", f"alarms: round 2: {name}")


def test_no_innocent_lab_is_named(left):
    rewrite(left, summary=lambda said: said["blame"].update(named=["lab-4"]))
    wrong(left[0], "summary.json", "blame.named")


def test_no_norm_is_taken_out_of_the_lines(left):
    rewrite(left, lines=lambda said: said.update(norm=None))
    wrong(left[0], "metrics.jsonl", "round 1: norm.sum")


def log_without_norm(patch, *rounds):
    append = StudyLog._append

    def without(self, kind, body, *, round=None, site=None):  # noqa: A002
        if kind == "round" and body["round"] in rounds:
            body = {name: value for name, value in body.items() if name != "norm"}
        append(self, kind, body, round=round, site=site)

    patch.setattr(StudyLog, "_append", without)


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [pytest.param((1, 2, 3), marks=pytest.mark.slow), (2,)])
def test_no_sum_is_applied_whose_norm_is_not_logged(tmp_path, rounds):
    """Thousands of times the bound, and the coordinator uses it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedsci.coordinator.norm_check._alarm", lambda value, bound: None)
        log_without_norm(patch, *rounds)
        left = run(tmp_path, liars={"lab-3": 2}, rounds=3)
    where = statement(left[0], "round", rounds[0] - 1)
    wrong(left[0], where, "norm")
    rewrite(left, lines=lambda said: said.update(norm=None))
    wrong(left[0], where, "norm")


@pytest.mark.slow
def test_no_sum_is_applied_that_honest_labs_do_not_make(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedsci.coordinator.norm_check._alarm", lambda value, bound: None)
        left = run(tmp_path, liars={"lab-3": 2}, rounds=2)
    assert (
        "applied whose sum is not as of honest labs" in wrong(left[0], statement(left[0], "round", 1), "norm").message
    )


@pytest.mark.slow
@pytest.mark.parametrize("logged", [True, False])
def test_no_lab_is_left_out_for_alarms_that_are_made_up(tmp_path, logged):
    judge = NormCheck.judge

    def invents(self, total, survivors, earlier):
        norm = judge(self, total, survivors, earlier)
        return replace(norm, alarm=ABOVE) if "lab-4" in survivors else norm

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NormCheck, "judge", invents)
        if not logged:
            log_without_norm(patch, *range(1, 9))
        folder, _ = run(tmp_path, rounds=3)
    wrong(folder, statement(folder, "round", 0), "norm")


@pytest.mark.parametrize("why", [pytest.param(LEFT_OUT, marks=pytest.mark.slow), NAMED])
def test_no_lab_is_left_out_for_no_alarm(tmp_path, why):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Alarms, "left_out", lambda self: {"lab-4": f"lab-4: {why}"})
        folder, _ = run(tmp_path, rounds=2)
    wrong(folder, statement(folder, "round", 0), "dropped")


@pytest.mark.slow
def test_a_round_whose_alarm_is_logged_as_a_restart_has_no_norm(tmp_path):
    written = StudyLog.round

    def hides(self, number, collected, *models, metrics=None, norm=None):
        if norm is not None and norm.alarm is not None:
            written(self, number, None, *models)
        else:
            written(self, number, collected, *models, metrics=metrics, norm=norm)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StudyLog, "round", hides)
        left = run(tmp_path, liars={"lab-3": 2}, rounds=3)
    wrong(left[0], "metrics.jsonl", "round 2: norm")
    rewrite(left, lines=lambda said: said.update(norm=None) if said.get("abandoned") else None)
    wrong(left[0], "summary.json", "alarms")
