"""Our power flow against pandapower's, against the laws it solves, and where there is nothing to solve."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from examples.grid.power_flow import BASE_MVA, PowerFlowFailed, load_case, solve

HERE = Path(__file__).parent
STORED = json.loads((HERE / "power_flow_oracle.json").read_text())["scenarios"]
TOLERANCE_PU = 1e-6


def scenario_grid(scenario):
    grid = load_case(scenario["case"])
    scale = scenario.get("scale", 1.0)
    grid = replace(grid, load_mw=scale * grid.load_mw, load_mvar=scale * grid.load_mvar)
    for one, other in scenario.get("out", []):
        grid = grid.without(one, other)
    return grid


def furthest_from(answer, grid, *, limits):
    """The largest difference to an oracle's answer, per unit (voltages as complex numbers)."""
    flow = solve(grid, reactive_limits=limits)
    voltage = np.array(answer["magnitude_pu"]) * np.exp(1j * np.radians(answer["angle_degrees"]))
    into = np.array(answer["from_active_pu"]) + 1j * np.array(answer["from_reactive_pu"])
    out_of = np.array(answer["to_active_pu"]) + 1j * np.array(answer["to_reactive_pu"])
    pairs = ((flow.voltage, voltage), (flow.from_mva / BASE_MVA, into), (flow.to_mva / BASE_MVA, out_of))
    return max(np.abs(ours - theirs).max() for ours, theirs in pairs)


@pytest.mark.parametrize("name", STORED)
def test_voltages_and_flows_are_those_that_pandapower_found(name):
    scenario = STORED[name]["scenario"]
    furthest = furthest_from(STORED[name], scenario_grid(scenario), limits=scenario.get("limits", False))
    assert furthest < TOLERANCE_PU


def test_a_slightly_wrong_grid_is_told_from_the_right_one():
    grid = load_case("ieee30")
    for change in (
        {"ratio": 1.001 * grid.ratio},
        {"impedance_pu": 1.001 * grid.impedance_pu},
        {"shunt_mvar": 0 * grid.ratio[:30]},
    ):
        assert furthest_from(STORED["ieee30"], replace(grid, **change), limits=False) > 10 * TOLERANCE_PU


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", STORED)
def test_the_stored_answers_are_still_pandapowers(name):
    pytest.importorskip("pandapower", reason="pip install '.[oracle]' to ask pandapower again")
    spec = importlib.util.spec_from_file_location("make_power_flow_oracle", HERE / "make_power_flow_oracle.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.SCENARIOS.keys() == STORED.keys()
    for key, values in module.oracle(module.SCENARIOS[name]).items():
        assert np.allclose(values, STORED[name][key], rtol=0, atol=TOLERANCE_PU / 10)


@pytest.mark.parametrize("case", ["ieee14", "ieee30"])
def test_every_bus_balances(case):
    grid = load_case(case)
    flow = solve(grid)
    leaving = np.zeros(len(grid.buses), dtype=complex)
    np.add.at(leaving, grid.ends[:, 0], flow.from_mva)
    np.add.at(leaving, grid.ends[:, 1], flow.to_mva)
    leaving += np.abs(flow.voltage) ** 2 * (grid.shunt_mw - 1j * grid.shunt_mvar)
    assert np.abs(leaving - flow.injected_mva).max() < 1e-8
    wanted = grid.generation_mw - grid.load_mw
    others = np.delete(np.arange(len(grid.buses)), grid.slack)
    assert np.abs(flow.injected_mva.real - wanted)[others].max() < 1e-7
    assert np.allclose(np.abs(flow.voltage[grid.pv]), grid.setpoint_pu[grid.pv])


def test_a_generator_gives_no_more_than_its_limit_and_lets_its_voltage_go():
    grid = load_case("ieee30")
    flow = solve(grid, reactive_limits=True)
    given = flow.injected_mva.imag + grid.load_mvar
    assert (given[grid.pv] <= grid.highest_mvar[grid.pv] + 1e-6).all()
    assert grid.buses[flow.at_limit].tolist() == [2]
    assert np.abs(flow.voltage[flow.at_limit]) < grid.setpoint_pu[flow.at_limit]
    free = solve(grid)
    assert (free.injected_mva.imag + grid.load_mvar)[flow.at_limit] > grid.highest_mvar[flow.at_limit]


def test_a_load_beyond_the_grids_reach_is_refused():
    grid = load_case("ieee30")
    with pytest.raises(
        PowerFlowFailed, match=r"ieee30: no solution after \d+ Newton steps, bus \d+ .* cannot carry 1134 MW"
    ):
        solve(replace(grid, load_mw=4 * grid.load_mw, load_mvar=4 * grid.load_mvar))


def test_a_bus_that_is_cut_off_is_named():
    with pytest.raises(PowerFlowFailed, match="from bus 26 to the slack bus"):
        solve(load_case("ieee30").without(25, 26))


def test_a_branch_that_does_not_exist_cannot_be_taken_out():
    with pytest.raises(PowerFlowFailed, match="there is no branch 1-30"):
        load_case("ieee30").without(1, 30)


def test_loading_is_over_the_rating_and_unknown_without_one():
    grid = load_case("ieee30")
    flow = solve(grid)
    first = max(abs(flow.from_mva[0]), abs(flow.to_mva[0]))
    assert flow.loading_percent(grid)[0] == pytest.approx(100 * first / 130)
    assert np.isnan(solve(load_case("ieee14")).loading_percent(load_case("ieee14"))).all()
