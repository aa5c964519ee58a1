"""Plots of numbers from anyone: whatever a float can be, they are drawn or left out, and never NaN or infinite."""

import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.reporting.comparison_plots import Series, small_plot
from fedsci.reporting.plots import Curve, Line, Spend, nice_ticks, rounds_plot, spend_plot, within
from fedsci.reporting.red_team import red_team
from fedsci.reporting.view_plots import Burn, bars_plot, burn_plot

EDGES = (0.0, 5e-324, 2e-323, 1e-322, 1e-308, 1e-301, 1.0, 1e16, 1e300, 1.0000000000000002e300, 1e301, 1e308)
NUMBERS = st.one_of(
    st.sampled_from([*EDGES, *(-edge for edge in EDGES)]), st.floats(allow_nan=False, allow_infinity=False)
)
POINTS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=4)


def sound(svg):
    """Refuse a plot with a coordinate that is no number; return it."""
    drawn = re.sub(r">[^<]*<", "><", svg)
    assert not re.search(r"\b(nan|inf)\b", drawn), svg
    return svg


def small(points):
    return small_plot([Series(letter="", style="c0", points=points, runs=())], metric="y", across="x")


@given(POINTS)
def test_a_small_plot_has_no_coordinate_that_is_no_number(points):
    sound(small(sorted(points)))


@given(POINTS, NUMBERS, st.sampled_from(["round", "epsilon"]))
def test_a_plot_by_round_has_no_coordinate_that_is_no_number(points, level, across):
    band = [(x, min(y, level), max(y, level)) for x, y in sorted(points)]
    curves, lines = [Curve(label="a", style="c0", points=sorted(points))], [Line(label="b", style="c1", value=level)]
    sound(rounds_plot(curves, lines, metric="m", across=across, band=band))


@given(st.lists(NUMBERS.map(abs), min_size=3, max_size=3))
def test_bars_have_no_coordinate_that_is_no_number(values):
    study, total, budget = values
    sound(spend_plot([Spend(site="lab-1", study=study, total=total, budget=budget)]))
    sound(bars_plot(list(enumerate(values, start=1)), title="t", words=str))
    sound(
        burn_plot(
            [Burn(label="a", ceiling=budget, points=[(0, budget), (1, study)], remark="", projected=None)], planned=2
        )
    )


def test_points_that_can_be_drawn_are_and_others_are_left_out():
    plot = small([(0.0, 0.0), (0.5, 1e308), (1.0, 1.0)])
    line = re.search(r'<polyline class="line c0" points="([^"]*)"', plot)
    assert line is not None
    assert len(line.group(1).split()) == 2
    assert small([(1e308, 1.0)]) == ""
    assert within([(math.inf, 0.0), (math.nan, 0.0), (1.0, 2.0)]) == [(1.0, 2.0)]


@pytest.mark.parametrize(("low", "high"), list(itertools.combinations(EDGES, 2)))
def test_marks_of_an_axis_are_few(low, high):
    assert 1 <= len(nice_ticks(low, high)) <= 12


@pytest.mark.parametrize("points", [[[0, 0], [5e-324, 1]], [[0, 0], [2e-323, 1]], [[-1e308, -1e308], [1e308, 1e308]]])
def test_attacks_results_from_anyone_spoil_no_report(points):
    plot = {"title": "t", "x": "x", "y": "y", "curves": [{"name": "n", "points": points}]}
    sound(red_team({"findings": [{"claim": "c", "verdict": "holds", "plot": plot}]}))
