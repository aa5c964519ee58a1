"""Processes that are killed in the middle of a study over SuperLink."""

import threading
import time

import pytest

from fedsci.errors import ConnectionFailed
from fedsci.transport.flower_coordinator import connect_grid
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Request

pytestmark = [
    pytest.mark.slow,
    # httpcore leaves a Unix socket on which nobody listens to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


def test_a_site_killed_in_a_round_and_restarted_costs_that_round_only(deployment, study):
    tiny = study(labs=4, training={"rounds": 3}, secure_aggregation={"min_survivors": 3})
    deployment.enrol(*tiny.plan.sites)
    for file in tiny.files:
        hold = "train:0" if file.stem == "lab-2" else ""
        deployment.start_site(file, tiny.consortium.public, hold)

    def strike() -> None:
        deployment.wait_for(deployment.site_state("lab-2") / "held", seconds=120)
        deployment.kill_site("lab-2")
        deployment.start_site(tiny.files[1], tiny.consortium.public)

    killer = threading.Thread(target=strike)
    killer.start()
    began = time.monotonic()
    progress = tiny.run_deployed(deployment, timeout_s=600)
    killer.join()
    assert progress.rounds_completed == 3
    assert ("lab-2", 1) in progress.dropped
    assert {site for site, _ in progress.dropped} == {"lab-2"}
    assert time.monotonic() - began < 300  # it was told, or noticed; it did not wait for its timeout


def test_a_superlink_killed_in_a_study_and_restarted_changes_nothing(deployment, study, tmp_path):
    tiny = study(labs=3, training={"rounds": 4})
    deployment.enrol(*tiny.plan.sites)
    for file in tiny.files:
        deployment.start_site(file, tiny.consortium.public)
    killed = []

    def after_round(number: int) -> None:
        if number == 2:
            deployment.kill_superlink()
            killed.append(number)
            threading.Timer(3.0, deployment.start_superlink).start()

    tiny.after_round = after_round
    progress = tiny.run_deployed(deployment)
    assert killed == [2]
    assert progress.rounds_completed == 4
    assert progress.dropped == []
    tiny.after_round = lambda number: None
    assert progress.model.tobytes() == tiny.run_in_process(tmp_path / "local").model.tobytes()


def test_sites_come_back_to_a_superlink_that_was_away_for_long(deployment, study):
    tiny = study(labs=3)
    deployment.enrol(*tiny.plan.sites)
    for file in tiny.files:
        deployment.start_site(file, tiny.consortium.public)
    with connect_grid(deployment.state) as grid:
        link = SiteLink(grid=grid, registered=grid.nodes)
        assert set(link.discover(tiny.plan.sites, wait_s=120)) == set(tiny.plan.sites)
        deployment.kill_superlink()
        time.sleep(65)  # Flower gives sites and the study up
        deployment.start_superlink()
        with pytest.raises(ConnectionFailed, match="given this study up"):
            link.ask({site: Request(action="hello") for site in tiny.plan.sites})
    with connect_grid(deployment.state) as grid:
        link = SiteLink(grid=grid, registered=grid.nodes)
        assert set(link.discover(tiny.plan.sites, wait_s=120)) == set(tiny.plan.sites)
