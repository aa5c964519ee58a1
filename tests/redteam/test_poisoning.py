"""Poisoning works on the small study, and the rows say so."""

import json

import pytest

from fedsci.redteam import poisoning as module
from fedsci.redteam.attackers import Attackers, line, mean, shown
from fedsci.redteam.poisoning import poisoning
from fedsci.redteam.robust_rules import _judged, _mean_loses


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
def test_an_attack_that_takes_nothing_says_so(rows, monkeypatch):
    monkeypatch.setattr(module, "LOST", 9.0)
    monkeypatch.setattr("fedsci.redteam.backdoor.PLANTED", 9.0)
    monkeypatch.setattr("fedsci.redteam.robust_rules.WORKS", 9.0)
    found = rows(privacy={"mechanism": "none"}, strategy="fedavg")
    assert {row.verdict for row in found.values()} == {"not measured"}
    assert found["poisoning"].result.startswith("hardly works here")
    assert found["backdoor"].result.startswith("hardly opens here")
    assert found["poisoning-robust-control"].result.startswith("the plain mean hardly loses")


@pytest.mark.parametrize(
    ("mean_of_all", "median", "fewer", "verdict", "why"),
    [
        ({0: 0.9, 1: 0.3, 3: None}, {0: 0.9, 1: 0.85, 3: 0.88}, [1, 3], "not measured", "it stands here"),
        ({0: 0.9, 1: 0.3, 3: None}, {0: 0.9, 1: 0.85, 3: 0.4}, [1, 3], "not protected", ""),
        ({0: 0.9, 1: 0.3, 3: None}, {0: 0.9, 1: 0.85, 3: 0.4}, [1], "not measured", "up to k = 1"),
        ({0: 0.9, 1: 0.9, 3: 0.85}, {0: 0.9, 1: 0.9, 3: 0.9}, [1, 3], "not measured", "hardly loses"),
        ({0: 0.9, 1: 0.3, 3: 0.3}, {0: None, 1: None, 3: None}, [1, 3], "not measured", "without any attack"),
        ({0: 0.9, 1: 0.3, 3: 0.3}, {0: 0.9, 1: 0.3, 3: 0.3}, [], "not measured", "half of the groups already"),
    ],
)
def test_nothing_is_claimed_of_a_median_and_its_row_says_what_it_kept(mean_of_all, median, fewer, verdict, why):
    attackers = Attackers(sites=[f"lab-{number}" for number in range(10)], metric="accuracy", seed=3)
    found = {"mean of all labs": mean_of_all, "median over groups": median}
    said, reason = _judged(attackers, found, fewer)
    assert said == verdict
    assert why in reason


def test_the_plain_mean_is_a_control_only_where_it_loses():
    attackers = Attackers(sites=[f"lab-{number}" for number in range(17)], metric="accuracy", seed=3)
    assert _mean_loses(attackers, {0: 0.9, 1: 0.9, 3: 0.85, 5: 0.2})
    assert _mean_loses(attackers, {0: 0.9, 1: 0.9, 3: 0.85, 5: None})
    assert not _mean_loses(attackers, {0: 0.9, 1: 0.9, 3: 0.85, 5: 0.8})


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
