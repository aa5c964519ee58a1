"""Free riders get the model; labs without noise weaken it as far as the accountant says."""

import json
from types import SimpleNamespace

import pytest

from fedsci.redteam import free_riding as module
from fedsci.redteam.free_riding import free_riding
from fedsci.redteam.omitted_noise import Left, _row, omitted_noise
from fedsci.redteam.together import Together


@pytest.fixture
def rows(small_study, monkeypatch):
    monkeypatch.setattr(module, "REPEATS", 1)

    def run(**changes):
        return {row.key: row for row in free_riding(small_study(**changes), seed=1)}

    return run


@pytest.mark.slow
def test_noise_that_labs_leave_out_is_missed_only_beyond_colluding_sites(rows):
    columns = {"a": {"min": 0, "max": 1}, "b": {"min": 0, "max": 1}}
    found = rows(model={"name": "mlp", "hidden": [64]}, features=columns)
    covered, beyond = found["omitted-noise"], found["omitted-noise-more"]
    assert covered.verdict == "holds"
    assert covered.measured["epsilon_left"] <= covered.measured["epsilon_promised"] * (1 + 1e-9)
    assert abs(covered.measured["shares_left"] - covered.measured["shares_counted"]) < 1
    assert beyond.measured["epsilon_left"] > covered.measured["epsilon_promised"]
    assert beyond.measured["shares_left"] < covered.measured["shares_counted"]
    assert beyond.verdict == "control"
    for each in found.values():
        json.dumps(each.to_json(), allow_nan=False)


def test_a_free_rider_has_the_model_whatever_it_sends(rows):
    found = rows(privacy={"mechanism": "none"}, strategy="fedavg")["free-riding"]
    assert set(found.measured["own"]) == {"nothing", "the last step again"}
    for value in found.measured["own"].values():
        assert value["1"] > 0.6
    assert len(found.plot.curves) == 2


@pytest.mark.parametrize(("mechanism", "why"), [("none", "no noise"), ("local", "itself")])
def test_where_no_privacy_rests_on_others_noise_there_is_nothing_to_leave_out(small_study, mechanism, why):
    study = small_study(privacy={"mechanism": mechanism})
    (row,) = omitted_noise(study, Together.of(study), seed=1, told=lambda text: None)
    assert row.verdict == "not measured"
    assert why in row.result


@pytest.mark.parametrize(
    ("omit", "left", "verdict", "why"),
    [
        (2, Left(shares=8.1, error=0.1, finished=10), "holds", "8.10"),
        (2, Left(shares=5.0, error=0.1, finished=10), "broken", "5.00"),
        (2, Left(shares=8.1, error=2.0, finished=10), "not measured", "too few numbers"),
        (2, "a lab failed", "not measured", "a lab failed"),
        (6, Left(shares=4.0, error=0.1, finished=10), "control", "4.00"),
        (6, Left(shares=8.1, error=0.1, finished=10), "not measured", "none is seen to be missing"),
        (6, Left(shares=4.0, error=2.0, finished=10), "not measured", "too few numbers"),
        (6, "a lab failed", "not measured", "a lab failed"),
    ],
)
def test_what_a_real_run_did_not_show_is_not_measured(omit, left, verdict, why):
    privacy = SimpleNamespace(colluding_sites=2)
    plan = SimpleNamespace(study=SimpleNamespace(privacy=privacy), min_survivors=10, sites=range(12))
    row = _row("omitted-noise", plan, {2: 3.0, 6: 4.5}, left, omit=omit, promised=3.0, measured={}, plot=None)
    assert row.verdict == verdict
    assert why in row.result


def test_an_accountant_that_promises_too_much_is_broken_without_any_run():
    privacy = SimpleNamespace(colluding_sites=2)
    plan = SimpleNamespace(study=SimpleNamespace(privacy=privacy), min_survivors=10, sites=range(12))
    row = _row("omitted-noise", plan, {2: 3.1}, "a lab failed", omit=2, promised=3.0, measured={}, plot=None)
    assert row.verdict == "broken"
