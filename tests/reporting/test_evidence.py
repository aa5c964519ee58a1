"""What a run's files say of rounds that were charged and not applied."""

from types import SimpleNamespace

import pytest

from fedsci.reporting.evidence import _unfinished


@pytest.mark.parametrize(
    ("charged", "dropped", "abandoned", "unfinished"),
    [
        ((10, 10, 10), [], 0, 0),
        ((11, 11, 11), [], 1, 1),
        ((11, 11, 11), [], 0, 1),  # the last round of a run that was aborted
        ((10, 10, 10), [], 1, 0),  # it was given up before any lab was asked
        ((10, 10, 10), [("a", 1), ("b", 2), ("c", 3)], 1, 1),  # each was away once, and charged for the abandoned one
        ((10, 9, 9), [("a", 1), ("b", 2), ("c", 3)], 0, 0),  # one was charged for a round that it did not finish
        ((9, 9, 9), [("a", 1), ("b", 2), ("c", 3)], 1, 0),
    ],
)
def test_a_sum_of_an_abandoned_round_is_counted_with_the_fewest_labs(charged, dropped, abandoned, unfinished):
    sites = tuple(SimpleNamespace(site=name, rounds=rounds) for name, rounds in zip("abc", charged, strict=True))
    assert _unfinished(sites, tuple(dropped), rounds=10, abandoned=abandoned) == unfinished
