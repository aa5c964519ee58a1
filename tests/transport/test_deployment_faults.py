"""Processes that are killed in the middle of a study over SuperLink."""

import contextlib
import os
import signal
import sqlite3
import threading
import time
from datetime import datetime, timedelta

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fedsci.errors import ConnectionFailed
from fedsci.transport.flower_coordinator import connect_grid
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Reply, Request

pytestmark = [
    pytest.mark.slow,
    # httpcore leaves a Unix socket on which nobody listens to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


def test_a_site_killed_in_a_round_and_restarted_costs_that_round_only(deployment, study):
    tiny = study(labs=4, training={"rounds": 3}, secure_aggregation={"min_survivors": 3})
    deployment.enrol(*tiny.plan.sites)
    killed, *others = tiny.files
    deployment.start_sites(others, tiny.consortium.public)
    deployment.start_sites([killed], tiny.consortium.public, hold="train:0")

    def strike() -> None:
        deployment.wait_for(deployment.site_state("lab-1") / "held", seconds=120)
        deployment.kill_site("lab-1")
        deployment.start_sites([killed], tiny.consortium.public)

    killer = threading.Thread(target=strike)
    killer.start()
    began = time.monotonic()
    progress = tiny.run_deployed(deployment, timeout_s=600)
    killer.join()
    assert progress.rounds_completed == 3
    assert ("lab-1", 1) in progress.dropped
    assert {site for site, _ in progress.dropped} == {"lab-1"}
    assert time.monotonic() - began < 300  # it was told, or noticed; it did not wait for its timeout


def test_a_superlink_killed_in_a_study_and_restarted_changes_nothing(deployment, study, tmp_path):
    tiny = study(labs=3, training={"rounds": 4})
    deployment.enrol(*tiny.plan.sites)
    deployment.start_sites(tiny.files, tiny.consortium.public)
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


def test_a_superlink_that_was_away_for_minutes_is_forgiven_and_nothing_in_work_is_lost(deployment, study, tmp_path):
    tiny = study(labs=3, training={"rounds": 4})
    deployment.enrol(*tiny.plan.sites)
    deployment.start_sites(tiny.files, tiny.consortium.public)
    away = threading.Thread(target=lambda: (time.sleep(1), deployment.kill_superlink(), back()))

    def back() -> None:
        lapse(deployment, seconds=600)  # nobody was heard for ten minutes
        deployment.start_superlink()

    tiny.after_round = lambda number: away.start() if number == 2 else None
    progress = tiny.run_deployed(deployment, timeout_s=120)
    away.join()
    assert progress.rounds_completed == 4
    assert progress.dropped == []
    tiny.after_round = lambda number: None
    assert progress.model.tobytes() == tiny.run_in_process(tmp_path / "local").model.tobytes()


def test_a_superlink_that_stood_still_holds_it_against_nobody(deployment, study):
    tiny = study(labs=3)
    deployment.enrol(*tiny.plan.sites)
    deployment.start_sites(tiny.files, tiny.consortium.public)
    with connect_grid(deployment.state) as grid:
        link = SiteLink(grid=grid, registered=grid.nodes, timeout_s=120)
        link.discover(tiny.plan.sites, wait_s=120)
        pid = deployment.superlink.pid
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(8.0, lambda: (lapse(deployment, seconds=600), os.kill(pid, signal.SIGCONT))).start()
        replies = link.ask({site: Request(action="hello") for site in tiny.plan.sites})
    assert all(isinstance(reply, Reply) for reply in replies.values()), replies


def test_another_coordinators_process_ends_the_runs_of_the_one_before(deployment):
    [node] = deployment.enrol("lab-1").values()
    with connect_grid(deployment.state) as grid:
        grid.push_messages([Message(RecordDict({"c": ConfigRecord({"n": 1})}), node, "query.hello", ttl=60)])
        deployment.superlink.stop()
        (deployment.state / "superlink.owner").write_text("a process that is gone")
        deployment.start_superlink()
        with pytest.raises(ConnectionFailed, match="given this study up"):
            grid.push_messages([Message(RecordDict({"c": ConfigRecord({"n": 2})}), node, "query.hello", ttl=60)])


def lapse(deployment, *, seconds: float) -> None:
    """Let all that Flower has heard of lie further back."""
    with contextlib.closing(sqlite3.connect(deployment.state / "superlink.db")) as database, database:
        database.execute("UPDATE node SET online_until = online_until - ?", (seconds,))
        for number, until in database.execute(
            "SELECT task_id, active_until FROM task WHERE token IS NOT NULL"
        ).fetchall():
            earlier = datetime.fromisoformat(until) - timedelta(seconds=seconds)
            database.execute(
                "UPDATE task SET active_until = ? WHERE task_id = ?", (earlier.isoformat(" ", "microseconds"), number)
            )
