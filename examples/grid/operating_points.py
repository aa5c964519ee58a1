"""Operating points of the IEEE 30-bus grid, as eight operating regions would have recorded them.

Physics is the same everywhere (:mod:`examples.grid.power_flow`, reactive limits enforced). Regions differ in what they
see (:data:`REGIONS`) and in two things that nobody writes down: how much a line may carry in their climate
(``rating_factor``), and how high they hold voltages (``setpoint_shift_pu``). The first kind of difference is what
joining helps with, the second is what it cannot average away.

An operating point of region r, all draws independent:

- hour: uniform over the day; daily shape 1 + 0.12 sin(2 pi (hour - 9) / 24)
- total load: the case's 283.4 MW x load_level x shape x (1 + 0.06 z), at least half the case's; each area's share
  moves by (1 + 0.10 z), each bus's by (1 + 0.15 z); reactive load the case's ratio x reactive_factor
- wind: speed Weibull(shape 2, scale wind_speed_m_s), turbine curve 3 / 12 / 25 m/s, at buses 12 and 15
- solar: max(0, sin(pi (hour - 6) / 12)) x clearness, uniform from 0.3 to 1, at buses 21, 24 and 30
- generators 2, 5, 8, 11 and 13 share 70 % of what wind and sun leave, by fixed parts each x (1 + 0.1 z); slack the rest
- one branch of the region's list is out, or none

Points without a solution are drawn again and counted.
"""

from dataclasses import dataclass, replace

import numpy as np

from examples.draws import Draws, Floats
from examples.grid.power_flow import Flow, Grid, PowerFlowFailed, load_case, solve

AREAS = {
    "load_132kv_mw": (2, 3, 4, 5, 7, 8),
    "load_hancock_mw": (12, 14, 15, 16, 17, 18, 19, 20, 23),
    "load_roanoke_mw": (10, 21, 24, 26, 29, 30),
}
WIND_BUSES = {12: 0.6, 15: 0.4}
SOLAR_BUSES = {21: 0.5, 24: 0.3, 30: 0.2}
GENERATOR_PARTS = {2: 0.25, 5: 0.15, 8: 0.10, 11: 0.10, 13: 0.10}
SETPOINT_PU = 1.035
LOWEST_PU, HIGHEST_PU = 0.95, 1.05
OUTAGES = ("none", "2-5", "4-12", "6-10", "6-28", "9-10", "10-21", "12-15", "15-23", "27-30")


@dataclass(frozen=True, kw_only=True)
class Region:
    """What distinguishes an operating region.

    Attributes:
        name: of the site.
        records: operating points it has.
        load_level: mean load over the case's.
        reactive_factor: reactive over active load, over the case's: industry above 1, homes below.
        wind_mw, wind_speed_m_s: capacity, and Weibull scale.
        solar_mw: capacity.
        outages: probability of each branch being out; what is missing to 1 is ``none``.
        rating_factor: what lines carry in this climate, over their nominal rating; not recorded.
        setpoint_shift_pu: added to all voltage set points; not recorded.
    """

    name: str
    records: int
    load_level: float
    reactive_factor: float
    wind_mw: float
    wind_speed_m_s: float
    solar_mw: float
    outages: dict[str, float]
    rating_factor: float
    setpoint_shift_pu: float


def _region(number: int, *values: float, outages: dict[str, float]) -> Region:
    records, level, reactive, wind, speed, solar, rating, shift = values
    return Region(
        name=f"region-{number}",
        records=int(records),
        load_level=level,
        reactive_factor=reactive,
        wind_mw=wind,
        wind_speed_m_s=speed,
        solar_mw=solar,
        outages=outages,
        rating_factor=rating,
        setpoint_shift_pu=shift,
    )


REGIONS = (
    # records, load, reactive, wind MW, m/s, solar MW, rating factor, setpoint shift
    _region(1, 300, 0.90, 0.9, 80, 9.5, 10, 1.03, 0.000, outages={"4-12": 0.15, "12-15": 0.10}),
    _region(2, 220, 1.00, 1.0, 40, 8.0, 30, 1.00, 0.000, outages={"2-5": 0.10, "6-10": 0.10}),
    _region(3, 200, 1.10, 1.2, 10, 7.0, 10, 1.00, -0.003, outages={"2-5": 0.15, "10-21": 0.10}),
    _region(4, 150, 0.80, 0.9, 10, 6.5, 80, 0.97, -0.003, outages={"27-30": 0.10, "15-23": 0.10}),
    _region(5, 120, 1.05, 1.1, 60, 8.5, 60, 1.00, 0.000, outages={"6-28": 0.20, "4-12": 0.05}),
    _region(6, 100, 0.95, 1.3, 20, 7.0, 50, 0.96, 0.003, outages={"9-10": 0.20, "10-21": 0.10}),
    _region(7, 80, 0.90, 0.9, 100, 10.0, 20, 1.04, -0.003, outages={"12-15": 0.15, "15-23": 0.15}),
    _region(8, 60, 1.15, 1.0, 30, 8.0, 30, 1.00, 0.000, outages={"2-5": 0.10, "6-28": 0.10, "4-12": 0.10}),
)


def wind_factor(speed_m_s: Floats) -> Floats:
    """Return output over capacity: cubic from 3 to 12 m/s, full to 25 m/s, else nothing."""
    rising = (np.clip(speed_m_s, 3, 12) ** 3 - 27) / (12**3 - 27)
    return np.where(speed_m_s > 25, 0.0, rising)


def sample(region: Region, *, records: int | None = None, seed: int = 0) -> tuple[dict[str, list[object]], int]:
    """Return the region's table by column, and how many points had no solution.

    Args:
        region: one of :data:`REGIONS`.
        records: another number of rows than the region's own; the first rows are the same.
        seed: another draw of everything.
    """
    case, draws = _prepared(region), Draws(f"grid {region.name}", seed)
    rows: list[dict[str, object]] = []
    failed = 0
    while len(rows) < (region.records if records is None else records):
        grid, features = _draw(region, case, draws)
        try:
            rows.append(features | _targets(region, grid, solve(grid, reactive_limits=True)))
        except PowerFlowFailed:
            failed += 1
    return {name: [row[name] for row in rows] for name in rows[0]}, failed


def _prepared(region: Region) -> Grid:
    case = load_case("ieee30")
    held = np.append(case.pv, case.slack)
    setpoint = case.setpoint_pu.copy()
    setpoint[held] = SETPOINT_PU + region.setpoint_shift_pu
    return replace(case, setpoint_pu=setpoint)


def _draw(region: Region, case: Grid, draws: Draws) -> tuple[Grid, dict[str, object]]:
    """Return one operating point: the grid to solve, and what the region records of it."""
    hour = draws.between(0, 24, 1)[0]
    shape = 1 + 0.12 * np.sin(2 * np.pi * (hour - 9) / 24)
    level = max(0.5, region.load_level * shape * (1 + 0.06 * draws.normal(1)[0]))
    factor = 1 + 0.15 * draws.normal(len(case.buses)).clip(-3, 3)
    for buses, part in zip(AREAS.values(), 1 + 0.10 * draws.normal(len(AREAS)).clip(-3, 3), strict=True):
        factor[[case.position(bus) for bus in buses]] *= part
    weighted = case.load_mw * factor
    load = weighted * level * case.load_mw.sum() / weighted.sum()
    reactive = load * np.divide(case.load_mvar, case.load_mw, out=np.zeros_like(load), where=case.load_mw > 0)
    reactive *= region.reactive_factor
    wind = region.wind_mw * wind_factor(draws.weibull(2, region.wind_speed_m_s, 1))[0]
    sun = max(0.0, np.sin(np.pi * (hour - 6) / 12)) * draws.between(0.3, 1.0, 1)[0]
    solar = region.solar_mw * sun
    generation = np.zeros(len(case.buses))
    for bus, part in WIND_BUSES.items():
        generation[case.position(bus)] += part * wind
    for bus, part in SOLAR_BUSES.items():
        generation[case.position(bus)] += part * solar
    left = max(0.0, load.sum() - wind - solar)
    for (bus, part), scatter in zip(GENERATOR_PARTS.items(), 1 + 0.1 * draws.normal(5).clip(-3, 3), strict=True):
        generation[case.position(bus)] += part * left * scatter
    outage = draws.choices({**region.outages, "none": 1 - sum(region.outages.values())}, 1)[0]
    grid = replace(case, load_mw=load, load_mvar=reactive, generation_mw=generation)
    if outage != "none":
        one, other = map(int, outage.split("-"))
        grid = grid.without(one, other)
    features: dict[str, object] = {
        name: float(sum(load[case.position(bus)] for bus in buses)) for name, buses in AREAS.items()
    }
    features |= {"load_mvar": float(reactive.sum()), "wind_mw": float(wind), "solar_mw": float(solar)}
    return grid, features | {"branch_out": outage}


def _targets(region: Region, grid: Grid, flow: Flow) -> dict[str, object]:
    """Return the loading of the most loaded branch, and whether any load bus leaves the voltage band."""
    loading = float(np.nanmax(flow.loading_percent(grid)) / region.rating_factor)
    held = np.append(grid.pv, grid.slack)
    magnitude = np.delete(np.abs(flow.voltage), held)
    outside = bool(((magnitude < LOWEST_PU) | (magnitude > HIGHEST_PU)).any())
    return {"loading_percent": loading, "voltage_violation": int(outside)}
