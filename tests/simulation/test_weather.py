"""Labs that are away or late are missed by the real code, and virtual time is what the slowest awaited lab takes."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from fedsci.cli.progress import SilentDisplay
from fedsci.config.study_file import load_study
from fedsci.config.weather import Weather
from fedsci.errors import InputError, RoundAborted, SiteFailed
from fedsci.simulation.run import SimulatedRun
from fedsci.simulation.weather import WeatherLink, is_away, work
from fedsci.transport.in_memory import LocalGrid
from fedsci.transport.messages import Reply, Request
from fedsci.transport.site_app import build_site_app

LABS = tuple(f"lab-{number}" for number in (1, 2, 3, 4))
TRAIN = {"round": 1, "records": {lab: [100 * number, 10] for number, lab in enumerate(LABS, start=1)}}


def weather(**values) -> Weather:
    return Weather.model_validate({"seed": 5, **values})


@pytest.fixture
def connect(make_plan):
    """A link under some weather to four sites that note what they are asked and send four numbers back."""
    grids = []

    def make(under: Weather, **values) -> tuple[WeatherLink, list[tuple[str, str]]]:
        asked: list[tuple[str, str]] = []

        def named(number):
            def handle(request: Request) -> Reply:
                asked.append((LABS[number], request.action))
                if request.action == "hello":
                    return Reply(fields={"site": LABS[number]})
                return Reply(fields={}, vector=np.ones(4, np.float32))

            return handle

        grid = LocalGrid(build_site_app(named), len(LABS))
        grids.append(grid)
        link = WeatherLink(grid=grid, timeout_s=10, plan=make_plan(sites=len(LABS), **values), weather=under)
        link.discover(LABS)
        asked.clear()
        return link, asked

    yield make
    for grid in grids:
        grid.close()


def ask(link: WeatherLink, action: str = "train", **fields):
    return link.ask({lab: Request(action=action, fields=TRAIN | fields) for lab in LABS})


def missing(replies) -> set[str]:
    return {site for site, reply in replies.items() if isinstance(reply, SiteFailed)}


def test_absences_are_those_of_the_seed_and_as_frequent_as_the_availability_says():
    under = weather(every_lab={"availability": 0.8})
    drawn = [[is_away(under, lab, number) for lab in LABS] for number in range(1, 1001)]
    assert drawn == [[is_away(under, lab, number) for lab in LABS] for number in range(1, 1001)]
    assert np.mean(drawn) == pytest.approx(0.2, abs=4 * (0.16 / 4000) ** 0.5)
    assert np.mean(drawn) != pytest.approx(0.25, abs=4 * (0.16 / 4000) ** 0.5)  # the bound would see 0.75
    other = weather(seed=6, every_lab={"availability": 0.8})
    assert drawn != [[is_away(other, lab, number) for lab in LABS] for number in range(1, 1001)]


@pytest.mark.parametrize(("availability", "away"), [(0, True), (1, False)])
def test_a_lab_is_never_or_always_there(availability, away):
    under = weather(every_lab={"availability": availability})
    assert {is_away(under, "lab-1", number) for number in range(200)} == {away}


def test_a_lab_that_is_away_is_not_asked_in_any_exchange_of_its_round_and_is_there_for_all_else(connect):
    link, asked = connect(weather(labs={"lab-2": {"availability": 0}}))
    for action in ("prepare", "share"):
        assert missing(ask(link, action)) == set()
    for action in ("train", "unmask", "votes"):
        replies = ask(link, action)
        assert missing(replies) == {"lab-2"}
        assert list(replies) == list(LABS)
        assert ("lab-2", action) not in asked
    for action in ("evaluate", "unmask", "alone", "finish"):
        assert missing(ask(link, action)) == set()


def test_an_exchange_takes_what_its_slowest_lab_takes(connect):
    lines = {"down_bytes_per_s": 50.0, "up_bytes_per_s": 20.0}
    link, _ = connect(weather(every_lab={"records_per_s": 1000}, labs={"lab-1": {"records_per_s": 10, **lines}}))
    replies = ask(link)
    traffic = link.traffic_of["lab-1"]
    assert missing(replies) == set()
    assert traffic.up >= 16
    computing = work(link.plan, 100) / 10
    assert link.virtual_seconds == pytest.approx(computing + traffic.down / 50 + traffic.up / 20)
    before, moved = link.virtual_seconds, (traffic.down, traffic.up)
    ask(link, "unmask")  # nothing is computed in the extra exchange
    assert link.virtual_seconds - before == pytest.approx((traffic.down - moved[0]) / 50 + (traffic.up - moved[1]) / 20)
    before = link.virtual_seconds
    ask(link, "evaluate")
    assert link.virtual_seconds == before


def begin(link: WeatherLink, version: int, *labs: str):
    fields = {"version": version, "records": TRAIN["records"]}
    return link.ask({lab: Request(action="begin", fields=fields) for lab in labs or LABS})


def test_a_lab_that_begins_is_not_waited_for_and_has_finished_when_its_speed_and_line_say(connect, make_plan):
    buffers = {"strategy": "fedbuff", "privacy": {"mechanism": "none", "epsilon": None}}
    slow = {"lab-1": {"records_per_s": 10, "down_bytes_per_s": 50.0}, "lab-2": {"availability": 0}}
    link, asked = connect(weather(every_lab={"records_per_s": 1000}, labs=slow), **buffers)
    assert missing(begin(link, 0)) == {"lab-2"}
    assert ("lab-2", "begin") not in asked
    assert link.virtual_seconds == 0
    there = ("lab-1", "lab-3", "lab-4")
    assert link.finished(there, count=0, round_number=1) == ()
    computing = {lab: work(link.plan, TRAIN["records"][lab][0]) for lab in LABS}
    assert link.finished(there, count=1, round_number=1) == ("lab-3",)
    assert link.virtual_seconds == pytest.approx(computing["lab-3"] / 1000)
    assert link.finished(there, count=2, round_number=1) == ("lab-3", "lab-4")
    begin(link, 1, "lab-3")  # while lab-1 still trains on the first model
    began = link.virtual_seconds
    assert link.finished(there, count=9, round_number=2) == there
    down = link.traffic_of["lab-1"].down / 50
    assert link.virtual_seconds == pytest.approx(computing["lab-1"] / 10 + down)
    assert link.virtual_seconds > began + computing["lab-3"] / 1000
    before = link.virtual_seconds
    ask(link)  # to send what was made takes no computing
    assert link.virtual_seconds - before < 0.2 * computing["lab-1"] / 10


def test_what_cannot_be_reached_in_a_round_has_not_finished_in_it(connect):
    buffers = {"strategy": "fedbuff", "privacy": {"mechanism": "none", "epsilon": None}}
    under = weather(labs={"lab-2": {"availability": 0.5}})
    link, _ = connect(under, **buffers)
    there = next(number for number in range(1, 50) if not is_away(under, "lab-2", number))
    away = next(number for number in range(1, 50) if is_away(under, "lab-2", number))
    assert missing(begin(link, there - 1)) == set()
    assert link.finished(LABS, count=4, round_number=away) == ("lab-1", "lab-3", "lab-4")
    assert link.finished(LABS, count=4, round_number=there) == LABS


def test_steps_that_the_round_says_are_what_it_takes(connect):
    link, _ = connect(weather(every_lab={"records_per_s": 10}), strategy="fedavg", training={"batch_size": 10},
                      privacy={"mechanism": "none", "epsilon": None})  # fmt: skip
    ask(link, steps={"lab-1": 10, "lab-2": 1, "lab-3": 2, "lab-4": 3})
    assert link.virtual_seconds == pytest.approx(10 * 10 / 10)
    assert link.records_per_s("lab-1") == 10


def test_what_a_round_takes_on_a_line_is_known_after_it_and_is_the_least_so_far(connect):
    link, _ = connect(weather(labs={"lab-1": {"records_per_s": 10, "down_bytes_per_s": 50.0}}))
    assert link.line_s("lab-1") == 0
    ask(link, setup_delivery="a" * 1000)
    first = link.line_s("lab-1")
    assert first == pytest.approx(link.traffic_of["lab-1"].down / 50)
    ask(link)
    assert link.line_s("lab-1") < first
    ask(link, setup_delivery="a" * 1000)
    assert link.line_s("lab-1") < first
    assert link.line_s("lab-2") == 0


def test_a_lab_that_is_late_computes_and_is_not_heard_and_the_deadline_is_waited_for(connect):
    link, asked = connect(weather(labs={"lab-3": {"records_per_s": 1}}), training={"round_deadline_s": 7.5})
    replies = ask(link)
    assert missing(replies) == {"lab-3"}
    assert ("lab-3", "train") in asked
    assert str(replies["lab-3"]) == "lab-3: late: no answer within 7.5 virtual s"
    assert link.virtual_seconds == 7.5


def test_a_rounds_work_is_the_records_that_go_through_its_steps(make_plan):
    training = {"local_epochs": 3, "batch_size": 10, "sample_rate": 0.5}
    local = make_plan(
        sites=len(LABS), strategy="fedavg", training=training, privacy={"mechanism": "none", "epsilon": None}
    )
    assert work(local, 100) == 3 * 100
    assert work(local, 4) == 3 * 4
    gradient = make_plan(
        sites=len(LABS), strategy="dp_fedsgd", training=training, privacy={"mechanism": "none", "epsilon": None}
    )
    assert work(gradient, 100) == 50


def lab_file(folder: Path, number: int) -> str:
    policy = {
        "approval": "auto", "strategies": ["fedavg", "fedbuff", "fednova", "dp_fedsgd"],
        "models": ["linear"], "mechanisms": ["none"], "min_cohort": 1,
        "exact_evaluation": True, "show_own_metrics": True, "unmasked_updates": True,
    }  # fmt: skip
    source = {"builtin": {"name": "breast_cancer", "shard": number, "of": 4}}
    values = {"site": f"lab-{number}", "datasets": {"cells": source}, "policy": policy}
    (folder / f"lab-{number}.yaml").write_text(yaml.safe_dump(values))
    return f"lab-{number}.yaml"


@pytest.fixture
def run(tmp_path):
    """Runs a tiny study of four labs under some weather and returns its summary, lines and model."""
    study = {
        "study": "cells", "dataset": "cells", "task": {"kind": "binary", "target": "benign"},
        "features": {"mean_radius": {"min": 5, "max": 30}}, "model": {"name": "linear"}, "strategy": "fedavg",
        "training": {"rounds": 6, "learning_rate": 0.5}, "privacy": {"mechanism": "none"},
        "evaluation": {"baselines": []}, "sites": [lab_file(tmp_path, number) for number in (1, 2, 3, 4)], "seed": 5,
        "secure_aggregation": {"min_survivors": 3},
    }  # fmt: skip
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))

    def go(out: str, under: Weather | None, *overrides: str):
        simulated = SimulatedRun(
            study=load_study(tmp_path / "study.yaml", overrides=list(overrides)), engine="local", state=None,
            out=tmp_path / out, display=SilentDisplay(), timeout_s=60, weather=under,
        )  # fmt: skip
        summary = simulated.run()
        folder = simulated.folder.path
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return summary, lines, (folder / "model.safetensors").read_bytes()

    return go


UNSTEADY = {
    "seed": 2,
    "every_lab": {"records_per_s": 20, "down_bytes_per_s": 1e5, "up_bytes_per_s": 1e4},
    "labs": {"lab-2": {"availability": 0.6}},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("masked", ["true", "false"])
def test_the_same_seed_gives_the_same_absences_hours_and_model(run, masked):
    override = f"secure_aggregation.enabled={masked}"
    under = Weather.model_validate(UNSTEADY)
    late = "training.round_deadline_s=20"
    first, lines, model = run("1", under, override, late)
    again, others, same = run("2", under, override, late)
    away = [number for number in range(1, 7) if is_away(under, "lab-2", number)]
    assert 0 < len(away) < 6
    assert first["secure_aggregation"]["dropped"] == [["lab-2", number] for number in away]
    assert [line["sites"] for line in lines] == [3 if number in away else 4 for number in range(1, 7)]
    assert model == same
    assert first["virtual_hours"] == again["virtual_hours"]
    assert [line["virtual_seconds"] for line in lines] == [line["virtual_seconds"] for line in others]
    assert sum(line["virtual_seconds"] for line in lines) == pytest.approx(3600 * first["virtual_hours"], abs=1e-4)
    assert all(0 < line["virtual_seconds"] < 2 * 20 for line in lines)


MACHINES = {"seed": 2, "every_lab": {"records_per_s": 20}, "labs": {"lab-2": {"records_per_s": 3}}}


@pytest.mark.slow
def test_steps_by_speed_are_done_earlier_and_the_same_again(run):
    under, settings = Weather.model_validate(MACHINES), ("strategy=fednova", "training.batch_size=8")
    waits, _, _ = run("waits", under, *settings)
    paced, _, model = run("paced", under, *settings, "training.pace=by_speed")
    again, _, same = run("again", under, *settings, "training.pace=by_speed")
    assert paced["virtual_hours"] < waits["virtual_hours"] / 2
    assert (again["virtual_hours"], same) == (paced["virtual_hours"], model)


@pytest.mark.slow
def test_buffers_do_not_wait_for_the_slowest_lab_and_are_the_same_again(run, tmp_path):
    (tmp_path / "mine.yaml").write_text("name: fedbuff\nsees: sum\noptions: {buffer: 3, together: 1}\n")
    under = Weather.model_validate(MACHINES)
    settings = ("strategy=mine.yaml", "training.batch_size=8", "secure_aggregation.enabled=false")
    waits, _, _ = run("waits", under, "strategy=fedavg", *settings[1:])
    buffered, lines, model = run("buffered", under, *settings)
    again, _, same = run("again", under, *settings)
    assert buffered["virtual_hours"] < waits["virtual_hours"] / 2
    assert (again["virtual_hours"], same) == (buffered["virtual_hours"], model)
    assert [line["dropped"] for line in lines][:3] == [["lab-2"]] * 3
    assert {line["sites"] for line in lines} >= {3}


@pytest.mark.slow
def test_four_masked_labs_are_too_few_to_leave_one_behind(run):
    """Three must finish, and whoever is left must have company: all are waited for."""
    under, settings = Weather.model_validate(MACHINES), ("training.batch_size=8",)
    waits, _, _ = run("waits", under, "strategy=fedavg", *settings)
    buffered, lines, _ = run("buffered", under, "strategy=fedbuff", *settings)
    assert buffered["virtual_hours"] == waits["virtual_hours"]
    assert [line["sites"] for line in lines] == [4] * 6
    assert buffered["secure_aggregation"]["smallest_sum"] == 3


@pytest.mark.parametrize("needy", ["strategy=fedbuff", "strategy=fednova"])
def test_without_weather_what_needs_a_clock_is_refused_before_there_is_a_run(run, tmp_path, needy):
    with pytest.raises(InputError, match="nothing here knows how long they take") as refused:
        run("refused", None, needy, *(["training.pace=by_speed"] if "nova" in needy else []))
    assert "--weather" in refused.value.hint
    assert not (tmp_path / "refused").exists()


@pytest.mark.slow
def test_weather_changes_nothing_that_a_site_relies_on_and_none_adds_no_keys(run):
    still, lines, model = run("still", None)
    calm, _, same = run("calm", weather())
    assert still["plan_digest"] == calm["plan_digest"]
    assert model == same
    assert set(calm) - set(still) == {"virtual_hours", "weather"}
    assert calm["virtual_hours"] == 0
    assert "virtual_seconds" not in lines[0]
    assert all(line["traffic_bytes"]["up"] > 0 < line["traffic_bytes"]["down"] for line in lines)
    assert sum(line["traffic_bytes"]["up"] for line in lines) < still["traffic_bytes"]["up"]


def test_too_many_absent_labs_abort_the_run_as_in_production(run, tmp_path):
    with pytest.raises(RoundAborted, match="round 1: only 2 of 4 sites finished") as aborted:
        run("aborted", weather(labs={lab: {"availability": 0} for lab in ("lab-1", "lab-4")}))
    assert "lab-1: not connected" in aborted.value.message
    [folder] = (tmp_path / "aborted").iterdir()
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["virtual_hours"]) == ("aborted", 0)
