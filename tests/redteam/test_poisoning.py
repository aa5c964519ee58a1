"""Poisoning works on the small study, and the rows say so."""

import json

import pytest

from fedsci.redteam import poisoning as module
from fedsci.redteam.attackers import Attackers, line, mean, shown
from fedsci.redteam.poisoning import poisoning


@pytest.fixture
def rows(small_study, monkeypatch):
    monkeypatch.setattr(module, "REPEATS", 1)
    monkeypatch.setattr(module, "REAL_ROUNDS", 2)

    def run(**changes):
        return {row.key: row for row in poisoning(small_study(**changes), seed=1)}

    return run


@pytest.mark.slow
def test_one_lab_of_six_that_lies_spoils_the_model_and_plants_a_backdoor(rows):
    found = rows(privacy={"mechanism": "none"}, strategy="fedavg")
    assert list(found) == ["poisoning", "backdoor", "poisoning-robust", "poisoning-robust-control"]
    row = found["poisoning"]
    assert row.verdict == "not protected"
    assert row.measured["clean"] - row.measured["found"]["times -5"]["2"] > 0.05
    assert row.measured["real_run"]["dropped"] == 0
    assert found["backdoor"].measured["boosted"]["success"]["2"] > found["backdoor"].measured["boosted"]["success"]["0"]
    assert found["poisoning-robust"].measured["groups"] == 3
    assert found["poisoning-robust-control"].verdict == "control"
    for each in found.values():
        json.dumps(each.to_json(), allow_nan=False)
        assert all(curve.points for curve in each.plot.curves) if each.plot else True


@pytest.mark.slow
def test_under_shared_noise_the_grid_is_no_limit_to_speak_of(rows):
    row = rows()["poisoning"]
    assert row.measured["upload_limit"] > 1000 * row.measured["honest_norm"]


def test_a_study_that_cannot_be_attacked_so_is_not_measured(rows):
    found = rows(strategy="feature_statistics", training={"rounds": 1})
    assert {row.verdict for row in found.values()} == {"not measured"}
    assert "no model" in found["poisoning"].result


def test_more_attackers_are_the_fewer_and_others():
    attackers = Attackers(sites=[f"lab-{number}" for number in range(17)], metric="accuracy", seed=3)
    assert attackers.bad(5)[:3] == attackers.bad(3)
    assert attackers.bad(5, repeat=1) != attackers.bad(5)
    assert len(set(attackers.bad(17))) == 17


def test_what_is_lost_is_counted_the_right_way_round():
    accuracy = Attackers(sites=["a"], metric="accuracy", seed=0)
    error = Attackers(sites=["a"], metric="rmse", seed=0)
    assert accuracy.lost(0.9, 0.8) == pytest.approx(0.1)
    assert error.lost(2.0, 3.0) == pytest.approx(0.5)
    assert accuracy.lost(0.9, 0.95) < 0 < error.lost(2.0, None)
    assert accuracy.curve("x", {0: 0.5, 1: None}).points == ((0.0, 0.5), (1.0, 0.0))
    assert error.curve("x", {0: 0.5, 1: None}).points == ((0.0, 0.5),)


def test_values_in_a_line():
    assert line({0: 0.25, 1: None}, percent=True) == "0: 25%, 1: no model"
    assert [shown(value) for value in (0.5, 1.0, 12.34)] == [".500", "1", "12.3"]
    assert mean([1.0, None]) is None
