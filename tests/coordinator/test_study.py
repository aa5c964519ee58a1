"""A study from first question to settlement, over simulated labs."""

import numpy as np
import pytest

from fedsci.config.study_file import load_study
from fedsci.coordinator.study import Progress, run_study
from fedsci.errors import ConnectionFailed, RoundAborted, SiteFailed
from fedsci.simulation.labs import Labs
from fedsci.site.ledger import Ledger
from fedsci.site.round import Contributor
from fedsci.transport.in_memory import LocalGrid
from fedsci.transport.link import SiteLink
from fedsci.transport.site_app import build_site_app


class Watcher:
    def __init__(self) -> None:
        self.phases: list[str] = []
        self.rounds: list[int] = []

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def round_finished(self, progress, result) -> None:
        self.rounds.append(result.number)


@pytest.fixture
def conduct(write_study, make_lab, tmp_path):
    """Run a study over three labs; ``policies`` changes single labs' policies."""
    progress, watcher = Progress(), Watcher()

    def run(*, policies: dict[int, dict] | None = None, nodes: int = 3, **changes):
        files = [make_lab(number, policy=(policies or {}).get(number)).name for number in (1, 2, 3)]
        study = load_study(write_study(sites=files, **changes))
        labs = Labs(study.site_files, study.plan.sites, tmp_path / "state")
        grid = LocalGrid(build_site_app(labs.handler), nodes)
        try:
            run_study(SiteLink(grid=grid, timeout_s=30), study.plan, progress, watcher)
        finally:
            grid.close()
            labs.forget()
        return progress, watcher

    run.progress, run.watcher = progress, watcher
    return run


def kinds(tmp_path, site: str) -> list[str]:
    return [entry.kind for entry in Ledger(tmp_path / "state" / site / "ledger.sqlite").entries()]


def test_a_study_goes_through_its_phases_and_settles(conduct, tmp_path):
    progress, watcher = conduct(evaluation={"baselines": ["local"]})
    assert watcher.phases == ["preparing", "training", "baselines", "finishing"]
    assert watcher.rounds == [1, 2]
    assert progress.rounds_completed == 2
    assert np.isfinite(progress.model).all()
    assert set(progress.alone) == {"local", "local_no_dp"}
    for site in ("lab-1", "lab-2", "lab-3"):
        assert kinds(tmp_path, site) == ["register", "reserve", "step", "step", "settle"]


def test_evaluation_may_be_every_few_rounds_and_always_at_the_end(conduct, monkeypatch):
    measured = []
    monkeypatch.setattr(
        conduct.watcher, "round_finished", lambda _, result: measured.append(result.measured is not None)
    )
    conduct(training={"rounds": 5}, evaluation={"every": 2, "baselines": []})
    assert measured == [False, True, False, True, True]


def test_a_site_that_refuses_stops_the_study_and_the_others_get_their_charge_back(conduct, tmp_path):
    with pytest.raises(SiteFailed) as refused:
        conduct(policies={2: {"models": ["mlp"]}})
    assert (refused.value.site, refused.value.exit_code) == ("lab-2", 4)
    assert conduct.watcher.phases == ["preparing", "finishing"]
    assert kinds(tmp_path, "lab-1") == ["register", "reserve", "settle"]
    assert not (tmp_path / "state" / "lab-2" / "ledger.sqlite").exists()


def test_too_few_survivors_stop_the_study_after_the_last_good_round(conduct, tmp_path, monkeypatch):
    contribution = Contributor.contribution

    def fail_later(self, model, number):
        if number == 2 and self.name != "lab-1":
            raise ValueError("disk")
        return contribution(self, model, number)

    monkeypatch.setattr(Contributor, "contribution", fail_later)
    with pytest.raises(RoundAborted, match="round 2: only 1 of 3 sites finished"):
        conduct(secure_aggregation={"min_survivors": 2})
    assert conduct.progress.rounds_completed == 1
    # what was computed before it failed was noised and written down: it stays charged
    assert kinds(tmp_path, "lab-2") == ["register", "reserve", "step", "step", "settle"]


def test_a_dropped_site_is_on_record_with_its_round(conduct, monkeypatch):
    contribution = Contributor.contribution

    def fail_once(self, model, number):
        if number == 1 and self.name == "lab-3":
            raise ValueError("disk")
        return contribution(self, model, number)

    monkeypatch.setattr(Contributor, "contribution", fail_once)
    progress, _ = conduct(secure_aggregation={"min_survivors": 2}, evaluation={"baselines": []})
    assert progress.dropped == [("lab-3", 1)]
    assert progress.rounds_completed == 2


def test_a_site_that_is_not_there_is_named_before_anything_is_charged(conduct, tmp_path, monkeypatch):
    discover = SiteLink.discover
    monkeypatch.setattr(SiteLink, "discover", lambda self, sites: discover(self, sites, wait_s=0.1))
    with pytest.raises(ConnectionFailed, match="no answer from lab-3"):
        conduct(nodes=2)
    assert not list((tmp_path / "state").rglob("ledger.sqlite"))
