import itertools
from math import comb

import numpy as np
import pytest

from fedsci.secagg.graph import Graph, build_graph, choose_degree
from fedsci.secagg.round_messages import SurvivorVote
from fedsci.secagg.terms import Terms, default_terms


def test_up_to_a_hundred_sites_everybody_masks_with_everybody():
    for sites in (3, 17, 100):
        terms = default_terms(sites)
        graph = build_graph(tuple(range(1, sites + 1)), terms, bytes(32))
        assert graph.degree.threshold == terms.threshold
        assert all(len(graph.neighbours(site)) == sites - 1 for site in graph.order)


@pytest.mark.parametrize("sites", [101, 200, 500])
def test_neighbours_are_mutual_and_as_many_as_planned(sites):
    graph = build_graph(tuple(range(1, sites + 1)), default_terms(sites), b"\7" * 32)
    near = {site: graph.neighbours(site) for site in graph.order}
    for site, peers in near.items():
        assert len(set(peers)) == graph.degree.neighbours < sites - 1
        assert site not in peers
        assert all(site in near[peer] for peer in peers)


def test_the_graph_follows_from_the_transcript_alone(broken_rule):
    members, terms = tuple(range(1, 201)), default_terms(200)
    assert build_graph(members, terms, bytes(32)) == build_graph(members, terms, bytes(32))
    assert build_graph(members, terms, bytes(32)).order != build_graph(members, terms, b"\1" * 32).order
    with broken_rule("unknown-site"):
        build_graph(members, terms, bytes(32)).neighbours(201)


@pytest.mark.parametrize("sites", [101, 200, 500])
def test_a_neighbourhood_holds_too_many_corrupt_sites_once_in_2_to_the_80(sites):
    terms = default_terms(sites)
    degree = choose_degree(sites, terms)
    k, worst = degree.neighbours, degree.threshold - degree.neighbours // 2 - 2
    f, others = terms.corrupt, sites - 1
    bad = sum(comb(f, c) * comb(others - f, k - c) for c in range(worst + 1, min(f, k) + 1))
    assert sites * bad * 2**80 <= comb(others, k)


def test_with_a_third_corrupt_neighbourhoods_grow_to_most_of_the_cohort():
    degree = choose_degree(200, Terms(threshold=134, corrupt=66, min_survivors=134))
    assert degree.neighbours > 150
    assert choose_degree(101, Terms(threshold=90, corrupt=70, min_survivors=90)).neighbours == 100


def test_no_declared_dropout_splits_the_survivors():
    """The lemma behind the sparse graph, by exhaustion on a small ring.

    Sites that each keep more than k/2 neighbours within their own set lie in one connected piece that touches
    every other site; so no set of declared dropouts leaves two groups that could both be unmasked.
    """
    n, k = 10, 4
    ring = Graph(order=tuple(range(1, n + 1)), degree=choose_degree(n, default_terms(n)))
    near = {i: {(i + d - 1) % n + 1 for d in (-2, -1, 1, 2)} for i in ring.order}
    for size in range(1, n + 1):
        for chosen in itertools.combinations(ring.order, size):
            inside = set(chosen)
            if all(len(near[i] & inside) > k // 2 for i in inside):
                assert all(near[j] & inside for j in ring.order if j not in inside)
                reached, frontier = set(), {chosen[0]}
                while frontier:
                    reached |= frontier
                    frontier = {j for i in frontier for j in near[i] & inside} - reached
                assert reached == inside


@pytest.mark.slow
def test_a_sparse_round_is_exact_with_dropouts_and_always_votes(worlds):
    world = worlds.build(101, slots=2, site_bound=100).set_up()
    inputs = world.inputs(5)
    result = world.run(world.call(0), inputs, no_upload=(3, 60), no_shares=(7, 8))
    np.testing.assert_array_equal(result.total, sum(inputs[s] for s in result.survivors))
    assert len(result.survivors) == 99

    call = world.call(1)
    collector = world.collector(call, 5)
    for site in call.cohort:
        masked = world.mask(site, call, inputs[site])
        collector.add_input(masked.header, masked.payload)
    listed = collector.close_inputs()
    assert collector.needs_votes
    SurvivorVote.decode(world.answer_survivors(1, listed))
