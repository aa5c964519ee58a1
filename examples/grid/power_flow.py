"""AC power flow: the voltages at which every bus of a grid balances, by Newton-Raphson in polar form.

Tinney and Hart 1967, Power Flow Solution by Newton's Method. The branch model is the usual pi circuit with an
off-nominal turns ratio on its ``from`` side. Everything inside is per unit on ``base_mva``; dense matrices, since
the grids here have a few dozen buses. numpy only.
"""

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

CASES = Path(__file__).parent / "cases"
BASE_MVA = 100.0


class PowerFlowFailed(Exception):
    """There is no solution to report: the iteration did not converge, or a bus is cut off."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """Buses and branches, n and m of them; positions count from 0, bus numbers are the case's own.

    Attributes:
        name: of the case.
        buses: bus numbers, shape ``(n,)``.
        slack: position of the bus that holds angle 0 and covers the losses.
        pv: positions of the buses that hold their voltage.
        load_mw, load_mvar, generation_mw: shape ``(n,)``.
        shunt_mw, shunt_mvar: consumed and injected at 1 p.u. voltage, shape ``(n,)``.
        setpoint_pu: voltage magnitude at slack and pv buses, 1 elsewhere, shape ``(n,)``.
        lowest_mvar, highest_mvar: what a generator can give, infinite where there is no limit, shape ``(n,)``.
        ends: positions of each branch's ``from`` and ``to`` bus, shape ``(m, 2)``.
        impedance_pu: series r + jx, shape ``(m,)``.
        charging_pu: total line charging susceptance, shape ``(m,)``.
        ratio: turns ratio at the ``from`` end, 1 for lines, shape ``(m,)``.
        rating_mva: what a branch may carry, NaN where the case gives none, shape ``(m,)``.
        in_service: shape ``(m,)``.
    """

    name: str
    buses: NDArray[np.int64]
    slack: int
    pv: NDArray[np.int64]
    load_mw: Floats
    load_mvar: Floats
    generation_mw: Floats
    shunt_mw: Floats
    shunt_mvar: Floats
    setpoint_pu: Floats
    lowest_mvar: Floats
    highest_mvar: Floats
    ends: NDArray[np.int64]
    impedance_pu: Complexes
    charging_pu: Floats
    ratio: Floats
    rating_mva: Floats
    in_service: NDArray[np.bool_]

    def without(self, from_bus: int, to_bus: int) -> "Grid":
        """Return the grid with the branch between these bus numbers out of service.

        Raises:
            PowerFlowFailed: there is no such branch.
        """
        numbers = self.buses[self.ends]
        found = (numbers[:, 0] == from_bus) & (numbers[:, 1] == to_bus)
        if not found.any():
            raise PowerFlowFailed(f"{self.name}: there is no branch {from_bus}-{to_bus}")
        return replace(self, in_service=self.in_service & ~found)

    def position(self, bus: int) -> int:
        """Return the position of a bus number."""
        return int(np.flatnonzero(self.buses == bus)[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class Flow:
    """A solved grid.

    Attributes:
        voltage: complex, per unit, shape ``(n,)``.
        from_mva, to_mva: complex power that enters each branch at either end, MW + j MVAr, shape ``(m,)``.
        injected_mva: complex power that generators and loads together inject, shape ``(n,)``.
        iterations: Newton steps, over all reactive-limit passes.
        at_limit: positions of pv buses that could not hold their voltage.
    """

    voltage: Complexes
    from_mva: Complexes
    to_mva: Complexes
    injected_mva: Complexes
    iterations: int
    at_limit: NDArray[np.int64]

    def loading_percent(self, grid: Grid) -> Floats:
        """Return the larger of both ends' apparent power over the rating, NaN where there is none."""
        return 100 * np.maximum(np.abs(self.from_mva), np.abs(self.to_mva)) / grid.rating_mva


def load_case(name: str, folder: Path = CASES) -> Grid:
    """Return the case whose tables are ``<name>_buses.csv`` and ``<name>_branches.csv``."""
    buses, branches = _rows(folder / f"{name}_buses.csv"), _rows(folder / f"{name}_branches.csv")
    numbers = np.array([int(row["bus"]) for row in buses])
    position = {number: place for place, number in enumerate(numbers.tolist())}
    kinds = [row["kind"] for row in buses]
    if kinds.count("slack") != 1 or set(kinds) - {"slack", "pv", "pq"}:
        raise PowerFlowFailed(f"{name}: give one slack bus, and pv or pq for all others")
    return Grid(
        name=name,
        buses=numbers,
        slack=kinds.index("slack"),
        pv=np.array([place for place, kind in enumerate(kinds) if kind == "pv"], dtype=np.int64),
        load_mw=_column(buses, "load_mw", 0.0),
        load_mvar=_column(buses, "load_mvar", 0.0),
        generation_mw=_column(buses, "generation_mw", 0.0),
        shunt_mw=_column(buses, "shunt_mw", 0.0),
        shunt_mvar=_column(buses, "shunt_mvar", 0.0),
        setpoint_pu=_column(buses, "setpoint_pu", 1.0),
        lowest_mvar=_column(buses, "lowest_mvar", -np.inf),
        highest_mvar=_column(buses, "highest_mvar", np.inf),
        ends=np.array([[position[int(row["from_bus"])], position[int(row["to_bus"])]] for row in branches]),
        impedance_pu=_column(branches, "r_pu", 0.0) + 1j * _column(branches, "x_pu", 0.0),
        charging_pu=_column(branches, "charging_pu", 0.0),
        ratio=_column(branches, "ratio", 1.0),
        rating_mva=_column(branches, "rating_mva", np.nan),
        in_service=np.ones(len(branches), dtype=np.bool_),
    )


def solve(grid: Grid, *, reactive_limits: bool = False, tolerance_pu: float = 1e-10, most_iterations: int = 20) -> Flow:
    """Return the flow from a flat start.

    Args:
        grid: what to solve.
        reactive_limits: a pv bus whose generator would pass a limit gives that limit and lets its voltage go; checked
            after each solution for all buses at once, and never taken back.
        tolerance_pu: largest power mismatch of any bus.
        most_iterations: Newton steps of one pass.

    Raises:
        PowerFlowFailed: no convergence (as beyond the grid's transfer limit), or a bus without a path to the slack.
    """
    _refuse_islands(grid)
    admittance, ends = _admittance(grid)
    injected = np.asarray(grid.generation_mw - grid.load_mw - 1j * grid.load_mvar, dtype=np.complex128) / BASE_MVA
    pv, at_limit, iterations = grid.pv, np.array([], dtype=np.int64), 0
    while True:
        voltage, steps = _newton(grid, admittance, injected, pv, tolerance_pu, most_iterations)
        iterations += steps
        power = voltage * np.conj(admittance @ voltage) * BASE_MVA
        given = power.imag + grid.load_mvar
        beyond = pv[(given[pv] > grid.highest_mvar[pv] + 1e-6) | (given[pv] < grid.lowest_mvar[pv] - 1e-6)]
        if not reactive_limits or not len(beyond):
            break
        held = np.clip(given, grid.lowest_mvar, grid.highest_mvar)[beyond]
        injected[beyond] = injected[beyond].real + 1j * (held - grid.load_mvar[beyond]) / BASE_MVA
        pv, at_limit = np.setdiff1d(pv, beyond), np.union1d(at_limit, beyond)
    a, b = grid.ends.T
    from_current = ends[0] * voltage[a] + ends[1] * voltage[b]
    to_current = ends[2] * voltage[a] + ends[3] * voltage[b]
    return Flow(
        voltage=voltage,
        from_mva=voltage[a] * np.conj(from_current) * BASE_MVA,
        to_mva=voltage[b] * np.conj(to_current) * BASE_MVA,
        injected_mva=power,
        iterations=iterations,
        at_limit=at_limit,
    )


def _newton(
    grid: Grid, admittance: Complexes, injected: Complexes, pv: NDArray[np.int64], tolerance: float, most: int
) -> tuple[Complexes, int]:
    """Return voltages and steps taken; unknown are angles but at the slack, and magnitudes at pq buses."""
    n = len(grid.buses)
    holds = np.union1d(pv, [grid.slack])
    pq = np.setdiff1d(np.arange(n), holds)
    turning = np.setdiff1d(np.arange(n), [grid.slack])
    magnitude, angle = np.ones(n), np.zeros(n)
    magnitude[holds] = grid.setpoint_pu[holds]
    for steps in range(most + 1):
        voltage = magnitude * np.exp(1j * angle)
        excess = voltage * np.conj(admittance @ voltage) - injected
        mismatch = np.concatenate([excess.real[turning], excess.imag[pq]])
        if not np.isfinite(mismatch).all():
            break
        if np.abs(mismatch).max() < tolerance:
            return voltage, steps
        if steps == most:
            break
        try:
            change = np.linalg.solve(_jacobian(admittance, voltage, magnitude, turning, pq), -mismatch)
        except np.linalg.LinAlgError:
            break
        angle[turning] += change[: len(turning)]
        magnitude[pq] += change[len(turning) :]
    worst = grid.buses[np.concatenate([turning, pq])[np.argmax(np.nan_to_num(np.abs(mismatch), nan=np.inf))]]
    raise PowerFlowFailed(
        f"{grid.name}: no solution after {steps} Newton steps, bus {worst} is out by "
        f"{np.abs(mismatch).max():.3g} p.u.: the grid cannot carry {grid.load_mw.sum():.0f} MW like this; lower the "
        "load, raise generation near it, or put branches back in service"
    )


def _jacobian(
    admittance: Complexes, voltage: Complexes, magnitude: Floats, turning: NDArray[np.int64], pq: NDArray[np.int64]
) -> Floats:
    """Return the derivative of (P at turning, Q at pq) by (angle at turning, magnitude at pq)."""
    current = admittance @ voltage
    by_angle = 1j * voltage[:, None] * np.conj(np.diag(current) - admittance * voltage)
    unit = voltage / magnitude
    by_magnitude = voltage[:, None] * np.conj(admittance * unit) + np.diag(np.conj(current) * unit)
    return np.block(
        [
            [by_angle.real[np.ix_(turning, turning)], by_magnitude.real[np.ix_(turning, pq)]],
            [by_angle.imag[np.ix_(pq, turning)], by_magnitude.imag[np.ix_(pq, pq)]],
        ]
    )


def _admittance(grid: Grid) -> tuple[Complexes, tuple[Complexes, Complexes, Complexes, Complexes]]:
    """Return the bus admittance matrix ``(n, n)``, and of each branch from-from, from-to, to-from and to-to."""
    series: Complexes = grid.in_service / grid.impedance_pu
    own: Complexes = series + 0.5j * grid.in_service * grid.charging_pu
    ends = (own / grid.ratio**2, -series / grid.ratio, -series / grid.ratio, own)
    a, b = grid.ends.T
    matrix: Complexes = np.diag((grid.shunt_mw + 1j * grid.shunt_mvar) / BASE_MVA)
    for rows, columns, values in zip((a, a, b, b), (a, b, a, b), ends, strict=True):
        np.add.at(matrix, (rows, columns), values)
    return matrix, ends


def _refuse_islands(grid: Grid) -> None:
    reached, frontier = {grid.slack}, [grid.slack]
    pairs = grid.ends[grid.in_service]
    while frontier:
        here = frontier.pop()
        for other in (*pairs[pairs[:, 0] == here, 1].tolist(), *pairs[pairs[:, 1] == here, 0].tolist()):
            if other not in reached:
                reached.add(other)
                frontier.append(other)
    alone = [str(number) for place, number in enumerate(grid.buses.tolist()) if place not in reached]
    if alone:
        raise PowerFlowFailed(
            f"{grid.name}: no branch in service leads from bus {', '.join(alone)} to the slack bus; put one back"
        )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _column(rows: list[dict[str, str]], name: str, empty: float) -> Floats:
    return np.array([float(row[name]) if row[name] else empty for row in rows])
