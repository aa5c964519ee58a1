"""Labs that upload what they like, in whole simulated runs: what alarms, who is found, and what it costs the others."""

import json
from dataclasses import dataclass, field

import numpy as np
import pytest

from fedsci.cli.progress import SilentDisplay
from fedsci.config.masking import grid_for
from fedsci.config.study_file import load_study
from fedsci.errors import RoundAborted
from fedsci.reporting import write_report
from fedsci.reporting.evidence import read_evidence
from fedsci.reporting.verify import verify_run
from fedsci.simulation.run import SimulatedRun
from fedsci.site.service import SiteService

DISTRIBUTED = {"mechanism": "distributed", "epsilon": 4.0, "delta": 1e-5, "colluding_sites": 1}
POLICY = {
    "strategies": [
        "dp_fedsgd",
        "fedavg",
        "fedbuff",
        "fednova",
        "fedprox",
        "krum",
        "feature_statistics",
        "one_shot_ridge",
    ],
    "mechanisms": ["local", "distributed", "none"],
    "exact_evaluation": False,
}


@dataclass(frozen=True, kw_only=True)
class Liar:
    """What a lab that spoils sums does: it multiplies what it should send, in some rounds."""

    factor: float
    when: object = field(default=lambda number, cohort: True)


def liars(who):
    class Service(SiteService):
        def _send(self, upload, contribution, metrics, fields):
            liar, request = who.get(self.site.site), upload.request
            if liar and request.action == "train" and liar.when(request.fields["round"], request.fields.get("cohort")):
                bound = grid_for(self._active(request.fields["run"]).plan).site_bound
                larger = contribution.astype(np.float64) * liar.factor
                if contribution.dtype.kind == "i":
                    larger = np.rint(np.clip(larger, -bound, bound))
                contribution = larger.astype(contribution.dtype)
            return super()._send(upload, contribution, metrics, fields)

    return Service


@pytest.fixture
def run_with(tmp_path, make_lab, write_study):
    """Run a study of labs, some of which lie; return its summary, its rounds and its folder."""

    def run(who, *, labs=5, rounds=12, masked=True, unit="record", raises=None, **changes):
        budget = {"privacy": {"unit": unit}}
        files = [make_lab(number, policy=POLICY, dataset=budget) for number in range(1, labs + 1)]
        values = {
            "privacy": DISTRIBUTED,
            "training": {"rounds": rounds, "sample_rate": 1.0, "learning_rate": 0.3},
            "evaluation": {"baselines": []},
            "secure_aggregation": {"enabled": masked},
            "audit_log": {"enabled": True},
            "sites": [str(file) for file in files],
        }
        study = load_study(write_study(**(values | changes)))
        simulated = SimulatedRun(
            study=study,
            engine="local",
            state=None,
            out=tmp_path / "runs",
            display=SilentDisplay(),
            service=liars(who),
        )
        if raises is not None:
            with pytest.raises(raises) as error:
                simulated.run()
            simulated.error = error.value
        else:
            simulated.run()
        folder = simulated.folder.path
        simulated.summary = json.loads((folder / "summary.json").read_text())
        simulated.lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return simulated

    return run


def test_a_lab_that_sends_too_much_is_found_and_left_out_and_the_others_end_their_run(run_with):
    done = run_with({"lab-2": Liar(factor=1e5)})
    summary, folder = done.summary, done.folder.path
    assert summary["status"] == "completed"
    assert summary["blame"]["verdict"] == "found"
    assert summary["blame"]["named"] == ["lab-2"]
    assert {one["kind"] for one in summary["alarms"]} == {"above-bound"}
    alarmed = [one["round"] for one in summary["alarms"]]
    assert summary["rounds_abandoned"] == alarmed
    assert summary["rounds_completed"] == 12 - len(alarmed)
    assert all("lab-2" in one["sites"] for one in summary["alarms"])
    assert all("lab-2" in line["dropped"] for line in done.lines[alarmed[-1] :])
    assert all(line["abandoned"] is True for line in done.lines if line["norm"]["alarm"])
    charged = {site: said["rounds_charged"] for site, said in summary["privacy"]["by_site"].items()}
    assert max(charged.values()) <= 12
    assert charged["lab-2"] == sum(one["alarm"] for one in summary["blame"]["rounds"]) < charged["lab-5"]
    verify_run(folder)
    assert read_evidence(folder).abandoned == tuple(alarmed)
    page = write_report(folder).read_text()
    assert "lab-2" in page
    assert "cannot come from honest labs" in page
    assert "Leaving out labs in turn points to <bdi>lab-2</bdi>" in page


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.0, 1.0])
def test_what_a_lab_may_send_raises_no_alarm(run_with, factor):
    """Nor does a lab that contributes nothing: a sum is only ever too large, or too quiet for many numbers."""
    summary = run_with({"lab-2": Liar(factor=factor)}, rounds=4).summary
    assert (summary["alarms"], summary["blame"], summary["rounds_completed"]) == ([], None, 4)


@pytest.mark.slow
def test_a_lab_that_lies_once_is_not_found_and_everybody_is_back_after_a_while(run_with):
    lies = Liar(factor=1e5, when=lambda number, cohort: number == 2)
    summary = run_with({"lab-4": lies}, rounds=18, labs=5).summary
    assert (summary["status"], summary["rounds_abandoned"]) == ("completed", [2])
    assert (summary["blame"]["verdict"], summary["blame"]["named"]) == ("not found", [])
    assert not [one for one in summary["secure_aggregation"]["dropped"] if one[1] == 18]


@pytest.mark.slow
def test_two_liars_where_one_may_be_left_out_end_the_study_by_name(run_with):
    both = {"lab-1": Liar(factor=1e5), "lab-3": Liar(factor=1e5)}
    done = run_with(both, labs=5, raises=RoundAborted)
    assert done.error.exit_code == 5
    assert "lab-1" in done.error.message
    assert "lab-3" in done.error.message
    assert done.summary["status"] == "aborted"
    assert done.summary["rounds_completed"] == 0
    assert {"lab-1", "lab-3"} <= set(done.summary["blame"]["suspects"])
    assert verify_run(done.folder.path).status == "aborted"


def test_without_privacy_nobody_is_left_out_and_the_study_ends(run_with):
    """The difference of two sums without noise would be a lab's update."""
    done = run_with(
        {"lab-2": Liar(factor=1e6)},
        privacy={"mechanism": "none", "epsilon": None},
        masked=False,
        strategy="feature_statistics",
        training={"rounds": 1},
        raises=RoundAborted,
    )
    assert "without a privacy mechanism" in done.error.message
    assert done.summary["blame"] is None
    assert [one["kind"] for one in done.summary["alarms"]] == ["above-bound"]
    assert done.summary["secure_aggregation"]["dropped"] == []


LOCAL = {"mechanism": "local", "epsilon": 4.0, "delta": 1e-5}
NONE = {"mechanism": "none", "epsilon": None}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "privacy", "training"),
    [
        ("dp_fedsgd", DISTRIBUTED, {}),
        ("dp_fedsgd", DISTRIBUTED, {"sample_rate": 0.3}),
        ("fedavg", DISTRIBUTED | {"unit": "site"}, {}),
        ("feature_statistics", DISTRIBUTED, {"rounds": 1}),
        ("one_shot_ridge", DISTRIBUTED, {"rounds": 1}),
        ("dp_fedsgd", LOCAL, {"sample_rate": 0.3}),
        ("fedavg", LOCAL, {"sample_rate": 0.25, "momentum": 0.5}),
        ("fednova", LOCAL, {"sample_rate": 0.25, "momentum": 0.5}),
        ("fedprox", LOCAL, {"sample_rate": 0.25}),
        ("feature_statistics", LOCAL, {"rounds": 1}),
        ("fedavg", NONE, {}),
        ("feature_statistics", NONE, {"rounds": 1}),
    ],
)
def test_honest_labs_never_alarm(run_with, strategy, privacy, training):
    changes = {"strategy": strategy, "privacy": privacy, "training": {"rounds": 4, "learning_rate": 0.3} | training}
    done = run_with({}, unit=privacy.get("unit", "record"), audit_log={"enabled": False}, **changes)
    assert done.summary["blame"] is None
    assert [one for one in done.summary["alarms"] if one["level"] == "alarm"] == []
    for line in done.lines:
        norm = line["norm"]
        assert norm["least"] <= norm["sum"] <= norm["bound"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "privacy", "training"),
    [
        ("fedavg", DISTRIBUTED | {"unit": "site"}, {}),
        ("dp_fedsgd", LOCAL, {}),
        ("fedavg", LOCAL, {"sample_rate": 0.5}),
    ],
)
def test_a_lab_that_sends_too_much_is_found_under_every_mechanism(run_with, strategy, privacy, training):
    changes = {
        "strategy": strategy,
        "privacy": privacy,
        "training": {"rounds": 9, "learning_rate": 0.3} | training,
        "secure_aggregation": {"enabled": True, "ring_bits": 64},
    }
    unit = privacy.get("unit", "record")
    summary = run_with({"lab-3": Liar(factor=1e4)}, unit=unit, audit_log={"enabled": False}, **changes).summary
    assert (summary["status"], summary["blame"]["named"]) == ("completed", ["lab-3"])
