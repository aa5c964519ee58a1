"""Write ``power_flow_oracle.json``: voltages and branch flows by pandapower, which shares no code with ours.

    pip install --constraint constraints.txt '.[oracle]'
    python -m tests.examples.make_power_flow_oracle

Cases are pandapower's own copies of the IEEE grids; only generators' reactive limits are set to our case's, since
pandapower's copies have them with the opposite sign. A scenario scales all loads and takes branches out.
"""

import json
import logging
from pathlib import Path
from typing import Any

from examples.grid.power_flow import load_case

FILE = Path(__file__).parent / "power_flow_oracle.json"
SCENARIOS: dict[str, dict[str, Any]] = {
    "ieee14": {"case": "ieee14"},
    "ieee14 heavy, two branches out": {"case": "ieee14", "scale": 1.2, "out": [[1, 5], [9, 14]]},
    "ieee30": {"case": "ieee30"},
    "ieee30 light": {"case": "ieee30", "scale": 0.5},
    "ieee30 heavy, a branch out": {"case": "ieee30", "scale": 1.3, "out": [[2, 5]]},
    "ieee30 with reactive limits": {"case": "ieee30", "limits": True},
    "ieee30 heavy, a transformer out, with reactive limits": {
        "case": "ieee30",
        "scale": 1.15,
        "out": [[4, 12]],
        "limits": True,
    },
}


def oracle(scenario: dict[str, Any]) -> dict[str, Any]:
    """Return pandapower's solution: per bus, and per branch by our order of ends; p.u. on 100 MVA and degrees."""
    import pandapower
    from pandapower import networks

    logging.getLogger("pandapower").setLevel(logging.ERROR)  # that numba is not there is no news
    grid = load_case(scenario["case"])
    net = {"ieee14": networks.case14, "ieee30": networks.case_ieee30}[scenario["case"]]()
    for unit in net.gen.index:
        place = grid.position(int(net.gen.bus.at[unit]) + 1)
        net.gen.loc[unit, ["min_q_mvar", "max_q_mvar"]] = grid.lowest_mvar[place], grid.highest_mvar[place]
    net.load[["p_mw", "q_mvar"]] *= scenario.get("scale", 1.0)
    for one, other in scenario.get("out", []):
        ends = {one - 1, other - 1}
        net.line.loc[
            [{*pair} == ends for pair in zip(net.line.from_bus, net.line.to_bus, strict=True)], "in_service"
        ] = False
        net.trafo.loc[
            [{*pair} == ends for pair in zip(net.trafo.hv_bus, net.trafo.lv_bus, strict=True)], "in_service"
        ] = False
    limits = bool(scenario.get("limits"))
    pandapower.runpp(net, init="flat", tolerance_mva=1e-9, numba=False, enforce_q_lims=limits)
    flows: dict[frozenset[int], dict[int, complex]] = {}
    for table, result, first, second, side in (
        (net.line, net.res_line, "from_bus", "to_bus", ("from", "to")),
        (net.trafo, net.res_trafo, "hv_bus", "lv_bus", ("hv", "lv")),
    ):
        for row in table.index:
            a, b = int(table.at[row, first]) + 1, int(table.at[row, second]) + 1
            flows[frozenset((a, b))] = {
                bus: complex(result.at[row, f"p_{end}_mw"], result.at[row, f"q_{end}_mvar"]) / 100
                for bus, end in zip((a, b), side, strict=True)
            }
    numbers = grid.buses[grid.ends].tolist()
    rounded = lambda values: [round(float(value), 10) for value in values]  # noqa: E731
    starts = [flows[frozenset(pair)][pair[0]] for pair in numbers]
    stops = [flows[frozenset(pair)][pair[1]] for pair in numbers]
    return {
        "magnitude_pu": rounded(net.res_bus.vm_pu),
        "angle_degrees": rounded(net.res_bus.va_degree),
        "from_active_pu": rounded(flow.real for flow in starts),
        "from_reactive_pu": rounded(flow.imag for flow in starts),
        "to_active_pu": rounded(flow.real for flow in stops),
        "to_reactive_pu": rounded(flow.imag for flow in stops),
    }


def main() -> None:
    """Write the file."""
    import pandapower

    content = {
        "by": f"pandapower {pandapower.__version__}",
        "command": "python -m tests.examples.make_power_flow_oracle",
        "scenarios": {name: {"scenario": values, **oracle(values)} for name, values in SCENARIOS.items()},
    }
    FILE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
