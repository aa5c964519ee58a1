"""A study from first question to settlement, over simulated labs."""

from dataclasses import replace

import numpy as np
import pytest

from fedsci.config.study_file import load_study
from fedsci.coordinator.progress import Progress
from fedsci.coordinator.study import run_study
from fedsci.errors import ConnectionFailed, FedsciError, InputError, RoundAborted, SiteFailed
from fedsci.simulation.consortium import SimulatedConsortium
from fedsci.simulation.labs import Labs
from fedsci.site.ledger import Ledger
from fedsci.site.round import Contributor
from fedsci.transport.in_memory import LocalGrid
from fedsci.transport.link import SiteLink
from fedsci.transport.site_app import build_site_app

LABS = ("lab-1", "lab-2", "lab-3", "lab-4")


class Watcher:
    def __init__(self) -> None:
        self.phases: list[str] = []
        self.rounds: list[int] = []

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def round_finished(self, progress, result) -> None:
        self.rounds.append(result.number)


@pytest.fixture(params=["plain", "masked"])
def way(request):
    return request.param


@pytest.fixture
def conduct(write_study, make_lab, tmp_path, way):
    """Run a study over four labs; ``policies`` changes single labs' policies."""
    progress, watcher = Progress(), Watcher()

    def run(*, policies: dict[int, dict] | None = None, nodes: int = 4, **changes):
        files = [make_lab(number, policy=(policies or {}).get(number)).name for number in (1, 2, 3, 4)]
        masked = {"enabled": way == "masked", "min_survivors": 3}
        study = load_study(write_study(sites=files, secure_aggregation=masked, **changes))
        labs = Labs(study.site_files, study.plan.sites, tmp_path / "state")
        consortium = SimulatedConsortium(tmp_path / "state")
        labs.enrol(consortium.public)
        grid = LocalGrid(build_site_app(labs.handler), nodes)
        link = SiteLink(grid=grid, timeout_s=30)
        try:
            keys = link.discover(study.plan.sites)
            roster = consortium.roster(study.plan, keys) if way == "masked" else None
            run_study(link, study.plan, progress, watcher, roster=roster)
        finally:
            grid.close()
            labs.forget(progress.run)
        return progress, watcher

    run.progress, run.watcher = progress, watcher
    return run


def kinds(tmp_path, site: str) -> list[str]:
    return [entry.kind for entry in Ledger(tmp_path / "state" / site).entries()]


@pytest.mark.slow
def test_a_study_goes_through_its_phases_and_settles(conduct, tmp_path):
    progress, watcher = conduct(evaluation={"baselines": ["local"]})
    assert watcher.phases == ["preparing", "training", "baselines", "finishing"]
    assert watcher.rounds == [1, 2]
    assert progress.rounds_completed == 2
    assert np.isfinite(progress.model).all()
    assert set(progress.alone) == {"local", "local_no_dp"}
    for site in LABS:
        assert kinds(tmp_path, site) == ["register", "reserve", "step", "step", "settle"]


@pytest.mark.slow
def test_evaluation_may_be_every_few_rounds_and_always_at_the_end(conduct, monkeypatch):
    measured = []
    monkeypatch.setattr(
        conduct.watcher, "round_finished", lambda _, result: measured.append(result.measured is not None)
    )
    conduct(training={"rounds": 5}, evaluation={"every": 2, "baselines": []})
    assert measured == [False, True, False, True, True]


NOISED = {2: {"exact_evaluation": False}}
DISTRIBUTED = {"privacy": {"mechanism": "distributed", "colluding_sites": 1}}


@pytest.mark.slow
@pytest.mark.parametrize(("way", "changes"), [("plain", {}), ("masked", {}), ("masked", DISTRIBUTED)], indirect=["way"])
def test_one_site_that_lets_no_exact_metrics_leave_has_all_measured_with_noise(conduct, tmp_path, changes):
    progress, watcher = conduct(policies=NOISED, training={"rounds": 5}, evaluation={"every": 2}, **changes)
    assert watcher.phases == ["preparing", "training", "baselines", "finishing"]
    assert progress.alone["local"].pooled() is None  # no lab says what it reaches alone: nobody charged for it
    assert progress.measurements == 3
    pooled = progress.federated.pooled()
    assert pooled["balanced_accuracy"] is pooled["calibration_error"] is None  # told exactly or not at all
    assert pooled["log_loss"] is not None
    assert 0 <= progress.federated.pooled()["accuracy"] <= 1
    assert progress.federated.noise_deviation()["accuracy"] > 0
    for site in LABS:
        assert (progress.federated.of(site) is None) == (site == "lab-2")
        assert progress.privacy[site]["study"] <= 4.0
        made = kinds(tmp_path, site)
        assert made.count("measure") == 3
        assert made == ["register", "reserve", *["step"] * 3, "measure", *["step"] * 2, "measure", "measure", "settle"]


@pytest.mark.parametrize("way", ["masked"], indirect=True)
def test_noised_metrics_are_measured_at_the_end_only_unless_the_study_says_more(conduct, monkeypatch):
    measured = []
    monkeypatch.setattr(
        conduct.watcher, "round_finished", lambda _, result: measured.append(result.measured is not None)
    )
    conduct(policies=NOISED, training={"rounds": 4})
    assert measured == [False, False, False, True]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["masked"], indirect=True)
@pytest.mark.parametrize("word", ["exact", None])
def test_sites_that_are_told_to_measure_differently_are_in_no_sum_together(conduct, monkeypatch, word):
    """Half of the sites would add no noise: the sum of the others' noise and their exact numbers is never opened."""
    ask, answered = SiteLink.ask, []

    def split(self, requests):
        def other(site, request):
            if request.action != "evaluate" or site in ("lab-1", "lab-2"):
                return request
            fields = {name: value for name, value in request.fields.items() if name != "evaluate"}
            return replace(request, fields=fields | ({"evaluate": word} if word else {}))

        changed = {site: other(site, request) for site, request in requests.items()}
        replies = ask(self, changed)
        answered.extend(request.action for request in requests.values())
        return replies

    monkeypatch.setattr(SiteLink, "ask", split)
    with pytest.raises(RoundAborted):
        conduct(policies={n: {"exact_evaluation": n > 2} for n in (1, 2, 3, 4)})
    assert "unmask" not in answered[answered.index("evaluate") :]


def test_a_holdout_too_large_for_the_ring_stops_the_study_before_anything_is_computed(conduct, tmp_path, monkeypatch):
    monkeypatch.setattr("fedsci.training.sums.room_for_noise", lambda *_, **__: 1)
    with pytest.raises(InputError, match="do not fit a ring of 32 bits"):
        conduct(policies=NOISED)
    for site in LABS:
        assert kinds(tmp_path, site) == ["register", "reserve", "settle"]


@pytest.mark.slow
def test_a_site_that_refuses_stops_the_study_and_the_others_get_their_charge_back(conduct, tmp_path):
    with pytest.raises(SiteFailed) as refused:
        conduct(policies={2: {"models": ["mlp"]}})
    assert (refused.value.site, refused.value.exit_code) == ("lab-2", 4)
    assert conduct.watcher.phases == ["preparing", "finishing"]
    for site in LABS:
        assert site == "lab-2" or kinds(tmp_path, site) == ["register", "reserve", "settle"]
    assert not (tmp_path / "state" / "lab-2" / "ledger.sqlite").exists()


@pytest.mark.slow
def test_a_study_ends_after_the_rounds_that_every_site_pays_for(conduct, tmp_path, monkeypatch):
    """Masked, the batch of slots that the plan's last rounds would have needed is never set up."""
    reserve = Ledger.reserve

    def less(self, *arguments, rounds, **more):
        return reserve(self, *arguments, rounds={"lab-2": 3, "lab-4": 2}.get(self.site, rounds), **more)

    monkeypatch.setattr(Ledger, "reserve", less)
    progress, watcher = conduct(training={"rounds": 150}, evaluation={"baselines": ["local"]})
    assert (progress.rounds_allowed, progress.short_of_budget) == (2, ("lab-4",))
    assert watcher.rounds == [1, 2]
    assert progress.federated.pooled()["accuracy"] is not None
    for site in LABS:
        assert kinds(tmp_path, site) == ["register", "reserve", "step", "step", "settle"]


@pytest.mark.slow
def test_too_few_survivors_stop_the_study_after_the_last_good_round(conduct, tmp_path, monkeypatch):
    contribution = Contributor.contribution

    def fail_later(self, model, number, **rest):
        if number == 2 and self.name in ("lab-2", "lab-3"):
            raise ValueError("disk")
        return contribution(self, model, number, **rest)

    monkeypatch.setattr(Contributor, "contribution", fail_later)
    with pytest.raises(RoundAborted, match="round 2: only 2 of 4 sites finished"):
        conduct()
    assert conduct.progress.rounds_completed == 1
    # what was computed before it failed was noised and written down: it stays charged
    assert kinds(tmp_path, "lab-2") == ["register", "reserve", "step", "step", "settle"]


@pytest.mark.parametrize("way", ["masked"], indirect=True)
def test_a_masked_study_needs_a_roster_and_does_not_go_on_without(conduct, monkeypatch, tmp_path):
    monkeypatch.setattr(SimulatedConsortium, "roster", lambda *_: None)
    with pytest.raises(InputError, match="a masked study needs a signed roster"):
        conduct()
    assert not list((tmp_path / "state").rglob("ledger.sqlite"))


@pytest.mark.parametrize("way", ["masked"], indirect=True)
@pytest.mark.parametrize("field", ["roster", "setup_batch"])
def test_a_masked_study_that_leaves_out_the_setup_computes_nothing(conduct, monkeypatch, tmp_path, field):
    ask = SiteLink.ask

    def without(self, requests):
        stripped = {
            site: replace(request, fields={name: value for name, value in request.fields.items() if name != field})
            for site, request in requests.items()
        }
        return ask(self, stripped)

    monkeypatch.setattr(SiteLink, "ask", without)
    with pytest.raises(FedsciError):
        conduct()
    assert conduct.progress.rounds_completed == 0
    for site in LABS:
        assert not (tmp_path / "state" / site / "ledger.sqlite").exists() or "step" not in kinds(tmp_path, site)


@pytest.mark.slow
def test_a_dropped_site_is_on_record_with_its_round(conduct, monkeypatch):
    contribution = Contributor.contribution

    def fail_once(self, model, number, **rest):
        if number == 1 and self.name == "lab-3":
            raise ValueError("disk")
        return contribution(self, model, number, **rest)

    monkeypatch.setattr(Contributor, "contribution", fail_once)
    progress, _ = conduct(evaluation={"baselines": []})
    assert progress.dropped == [("lab-3", 1)]
    assert progress.rounds_completed == 2


def test_a_site_that_is_not_there_is_named_before_anything_is_charged(conduct, tmp_path, monkeypatch):
    discover = SiteLink.discover
    monkeypatch.setattr(SiteLink, "discover", lambda self, sites: discover(self, sites, wait_s=0.1))
    with pytest.raises(ConnectionFailed, match="no answer from lab-4"):
        conduct(nodes=3)
    assert not list((tmp_path / "state").rglob("ledger.sqlite"))
