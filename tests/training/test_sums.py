"""Uploads as integers: what goes in comes out, within half a step, and no sum of sites can wrap."""

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsci.config.study import METRICS
from fedsci.errors import InputError, ProtocolError
from fedsci.secagg import plan_quantisation
from fedsci.training.metrics import caps, names_of
from fedsci.training.sums import SumEncoding, exact_table

KINDS = sorted(METRICS)
HOLDOUT = 40


def encoding_for(kind: str, *, sites: int = 3, bits: int = 32, dimension: int = 5, tables: int = 2) -> SumEncoding:
    grid = plan_quantisation(bound=16.0, sites=sites, ring_bits=bits)
    return SumEncoding(grid=grid, dimension=dimension, tables=[exact_table(kind, grid, holdout=HOLDOUT)] * tables)


def total_of(encoding: SumEncoding, vectors) -> np.ndarray:
    return encoding.grid.ring.to_signed(reduce(add, vectors))


def sums(kind: str, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(-1, 1, len(names_of(kind))) * caps(kind, records=HOLDOUT)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(KINDS), st.sampled_from([32, 64]), st.integers(1, 17), st.integers(0, 2**32))
def test_a_sum_of_uploads_is_the_sum_within_half_a_step_a_site(kind, bits, sites, seed):
    rng = np.random.default_rng(seed)
    encoding = encoding_for(kind, sites=sites, bits=bits)
    weights = rng.dirichlet(np.ones(sites))
    updates = rng.uniform(-16, 16, (sites, encoding.dimension)).astype(np.float32)
    tables = [[sums(kind, rng), sums(kind, rng)] for _ in range(sites)]
    coded = [encoding.encode(updates[i], list(tables[i]), weight=weights[i]) for i in range(sites)]
    assert [clipped for _, clipped in coded] == [0] * sites
    contribution, metrics = encoding.decode(total_of(encoding, [vector for vector, _ in coded]))
    slack = sites * encoding.grid.error_bound + 16 * 2.0**-23
    assert contribution.dtype == np.float32
    assert contribution == pytest.approx(weights @ updates.astype(np.float64), abs=slack)
    for at, decoded in enumerate(metrics):
        expected = reduce(add, [site[at] for site in tables])
        room = sites * (0.5 * encoding.tables[at].steps + caps(kind, records=HOLDOUT) * 1e-12)
        assert (np.abs(decoded - expected) <= room).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_site_that_shows_nothing_adds_nothing_and_cannot_be_told_from_its_upload(kind):
    encoding, rng = encoding_for(kind), np.random.default_rng(1)
    shown = sums(kind, rng)
    nothing, _ = encoding.encode(np.zeros(5, np.float32), [None, None], weight=1.0)
    something, _ = encoding.encode(np.zeros(5, np.float32), [shown, None], weight=1.0)
    assert nothing.shape == something.shape == (encoding.length,)
    assert not nothing.any()
    _, [first, second] = encoding.decode(total_of(encoding, [nothing, something]))
    assert first == pytest.approx(shown, abs=1e-3)
    assert not second.any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("value", [1e30, -1e30, np.inf, -np.inf, np.nan])
def test_no_metrics_can_wrap_the_ring_whatever_a_site_measures(kind, bits, value):
    encoding = encoding_for(kind, bits=bits, dimension=0, tables=1)
    wild = np.full(len(names_of(kind)), value)
    vector, _ = encoding.encode(None, [wild], weight=1.0)
    alone = encoding.grid.ring.to_signed(vector).astype(object)
    assert max(abs(alone)) <= encoding.grid.levels
    assert total_of(encoding, [vector] * 3).astype(object).tolist() == (3 * alone).tolist()
    _, [decoded] = encoding.decode(total_of(encoding, [vector] * 3))
    assert (np.abs(decoded) <= 3 * caps(kind, records=HOLDOUT) * (1 + 1e-9)).all()


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("value", [3e38, -3e38])
def test_no_update_can_wrap_the_ring(bits, value):
    encoding = encoding_for("binary", bits=bits, tables=0)
    vector, clipped = encoding.encode(np.full(5, value, np.float32), [], weight=1.0)
    assert clipped == 5
    contribution, _ = encoding.decode(total_of(encoding, [vector] * 3))
    assert contribution == pytest.approx(np.full(5, 3 * np.sign(value) * 16.0))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_no_number_is_refused(value):
    update = np.array([0, 0, value, 0, 0], np.float32)
    with pytest.raises(ProtocolError) as refused:
        encoding_for("binary").encode(update, [None, None], weight=1.0)
    assert refused.value.rule == "not-finite"


def test_a_holdout_that_leaves_no_room_in_the_ring_is_refused_with_the_way_out():
    grid = plan_quantisation(bound=16.0, sites=17, ring_bits=32)
    with pytest.raises(InputError, match="metric sums over 100000000 records do not fit a ring of 32 bits") as refused:
        exact_table("binary", grid, holdout=10**8)
    assert refused.value.hint == "use secure_aggregation.ring_bits: 64"
    wide = plan_quantisation(bound=16.0, sites=17, ring_bits=64)
    assert (exact_table("binary", wide, holdout=10**8).steps <= 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_caps_bound_every_number_and_grow_with_the_records(kind):
    few, many = caps(kind, records=1), caps(kind, records=1000)
    assert few.shape == (len(names_of(kind)),)
    assert (few > 0).all()
    own = 3 * len(METRICS[kind])
    assert many[:-own].tolist() == (1000 * few[:-own]).tolist()
    assert many[-own:].tolist() == few[-own:].tolist()
    assert (np.abs(np.log2(encoding_for(kind).tables[0].steps)) % 1 == 0).all()
