"""Who masks with whom: everybody up to 100 sites, a ring of near neighbours above.

Sparse graph after Bell, Bonawitz, Gascón, Lepoint, Raykova, "Secure single-server aggregation with
(poly)logarithmic overhead", CCS 2020. Sites are put on a ring in the order of a hash of the setup transcript;
each masks with, and shares its secrets among, the ``k/2`` next on both sides. A secret opens with ``t_k``
of the ``k + 1`` shares of a neighbourhood (its dealer holds one itself).

Why that is safe: if every honest site has at most ``c`` corrupt neighbours and ``t_k = k/2 + c + 2``, then
a site's self-mask opens only if more than ``k/2`` of its neighbours are honest survivors. Such survivors
are dense on the ring (no gap reaches ``k/2``), so all honest survivors lie in one connected piece, whatever
the coordinator declares dropped. It can learn the sum over all of them or nothing. ``c`` is chosen so that
a uniformly random order passes it with probability below ``2**-80``: 40 bits of statistical security after
40 bits for a coordinator that, with its corrupt sites, tries many transcripts.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import comb

from fedsci.errors import ProtocolError
from fedsci.secagg.keys import tagged_hash
from fedsci.secagg.terms import LARGEST_COMPLETE, Terms
from fedsci.secagg.wire import number

SECRECY_BITS = 80
PROGRESS_BITS = 20
DROPPED_PERCENT = 5


@dataclass(frozen=True, kw_only=True)
class Degree:
    """The size of a neighbourhood.

    Attributes:
        neighbours: ``k``, even in a sparse graph; ``n - 1`` in the complete one.
        threshold: shares that open a secret, of the ``k + 1`` dealt.
    """

    neighbours: int
    threshold: int


def _exceeding(population: int, marked: int, drawn: int, limit: int) -> int:
    """Count the ``drawn``-subsets of ``population`` that hold more than ``limit`` of the ``marked``."""
    most = min(marked, drawn)
    return sum(comb(marked, c) * comb(population - marked, drawn - c) for c in range(limit + 1, most + 1))


@lru_cache(maxsize=64)
def choose_degree(sites: int, terms: Terms) -> Degree:
    """Return the smallest neighbourhoods that keep secrecy and progress, or the complete graph.

    Secrecy: see the module. Progress: with 5 % of the sites dropped at random, all neighbourhoods keep enough
    shares with probability ``1 - 2**-20``. Exact integer counting; no floating point.
    """
    complete = Degree(neighbours=sites - 1, threshold=terms.threshold)
    if sites <= LARGEST_COMPLETE:
        return complete
    others, dropped = sites - 1, -(-sites * DROPPED_PERCENT // 100)
    for k in range(4, others, 2):
        subsets = comb(others, k)
        worst = next(
            c for c in range(k + 1) if (_exceeding(others, terms.corrupt, k, c) * sites) << SECRECY_BITS <= subsets
        )
        threshold = k // 2 + worst + 2
        spare = k + 1 - threshold
        if spare >= 0 and (_exceeding(others, dropped, k, spare) * sites) << PROGRESS_BITS <= subsets:
            return Degree(neighbours=k, threshold=threshold)
    return complete


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The neighbourhoods of one setup.

    Attributes:
        order: the members around the ring.
        degree: how far neighbours reach.
    """

    order: tuple[int, ...]
    degree: Degree

    def neighbours(self, site: int) -> tuple[int, ...]:
        """Return the sites that ``site`` masks with, rising; the relation is symmetric."""
        if site not in self.order:
            raise ProtocolError(f"site index {site} is not in the setup", rule="unknown-site")
        if self.degree.neighbours >= len(self.order) - 1:
            return tuple(sorted(other for other in self.order if other != site))
        at, half, n = self.order.index(site), self.degree.neighbours // 2, len(self.order)
        around = [*range(at - half, at), *range(at + 1, at + half + 1)]
        return tuple(sorted(self.order[place % n] for place in around))


def build_graph(members: tuple[int, ...], terms: Terms, transcript: bytes) -> Graph:
    """Return the graph that every site derives from the same transcript."""
    order = sorted(members, key=lambda member: tagged_hash("ring order", transcript, number(member, 2)))
    return Graph(order=tuple(order), degree=choose_degree(len(members), terms))
