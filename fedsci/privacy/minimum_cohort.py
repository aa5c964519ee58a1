"""When metrics of single labs may be shown: where enough show theirs and no average gives another away.

Labs that show their own metrics have agreed to it. Those that do not are in sums and means only, and what is shown
must not take a mean apart: the mean over all labs, less those that show theirs, is the mean over the others.
"""

LEAST_SHOWN = 3
"""Of two labs, each could tell the other's number from what is said of both."""


def least_shown(min_survivors: int | None) -> int:
    """Return how many labs must show their own metrics before anything of single labs is shown."""
    return max(LEAST_SHOWN, min_survivors or 0)


def tells_on_nobody(shown: int, hidden: int, *, least: int, exact: bool) -> bool:
    """Return whether the metrics of ``shown`` single labs may stand beside an average that ``hidden`` more are in.

    ``exact``: the average carries no noise, so that subtracting the shown labs leaves exactly that of the hidden ones.

    >>> tells_on_nobody(5, 0, least=3, exact=True), tells_on_nobody(5, 1, least=3, exact=True)
    (True, False)
    >>> tells_on_nobody(5, 1, least=3, exact=False), tells_on_nobody(2, 0, least=3, exact=False)
    (True, False)
    """
    return shown >= least and (not exact or hidden == 0 or hidden >= LEAST_SHOWN)
