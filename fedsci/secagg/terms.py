"""How many sites must agree, may be corrupt, and must finish."""

from dataclasses import dataclass

from fedsci.errors import ProtocolError

SMALLEST_COHORT = 3
LARGEST_COMPLETE = 100


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The three numbers that secrecy and progress rest on.

    Attributes:
        threshold: ``t``; shares that open a secret, and votes that settle who survived.
        corrupt: ``f``; sites that may collude with a cheating coordinator. Two disjoint sets of honest
            sites can never both reach ``t`` because ``2t > n + f``, so no site's two secrets are ever both
            opened.
        min_survivors: ``m >= t``; a sum covers at least ``m`` sites, of which at least ``m - f`` are honest.
    """

    threshold: int
    corrupt: int
    min_survivors: int

    def check(self, sites: int) -> None:
        """Refuse terms that do not protect ``sites`` sites."""
        t, f, m = self.threshold, self.corrupt, self.min_survivors
        if sites < SMALLEST_COHORT:
            raise ProtocolError(
                f"{sites} sites are too few: the sum of two tells each the other's", rule="cohort-too-small"
            )
        if not (f >= 0 and 2 * t > sites + f):
            raise ProtocolError(
                f"threshold {t} of {sites} sites with {f} corrupt breaks 2t > n + f", rule="threshold-too-low"
            )
        if not t <= m <= sites:
            raise ProtocolError(
                f"min_survivors {m} is not between threshold {t} and {sites} sites", rule="min-survivors"
            )
        if m - f < 2:
            raise ProtocolError(f"a sum over {m} sites with {f} corrupt may hold one honest site", rule="min-survivors")


def default_terms(sites: int) -> Terms:
    """Return the terms a roster or cohort of ``sites`` sites has unless its consortium chose others.

    ``t = m = floor(2n/3) + 1``, and the most corrupt sites this allows: ``f = min(2t - n - 1, m - 2)``, so
    that a sum always mixes two honest sites. Above 100 sites masks go to neighbours only, which needs a
    smaller corrupt share: ``f = floor(n/10)``.

    >>> default_terms(17)
    Terms(threshold=12, corrupt=6, min_survivors=12)
    >>> default_terms(4), default_terms(3)
    (Terms(threshold=3, corrupt=1, min_survivors=3), Terms(threshold=3, corrupt=1, min_survivors=3))
    """
    threshold = 2 * sites // 3 + 1
    most = sites // 10 if sites > LARGEST_COMPLETE else 2 * threshold - sites - 1
    corrupt = min(most, threshold - 2)
    terms = Terms(threshold=threshold, corrupt=corrupt, min_survivors=threshold)
    terms.check(sites)
    return terms
