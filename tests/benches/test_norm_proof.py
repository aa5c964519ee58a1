"""The prototype of a norm proof: what is short passes, and no lie that we know of does."""

import importlib
import sys
from dataclasses import replace

import numpy as np
import pytest

from fedsci.config.shipped import shipped

SEED = b"the coordinator's"


@pytest.fixture
def proving(monkeypatch):
    monkeypatch.syspath_prepend(str(shipped("examples").parent / "benches"))
    yield importlib.import_module("norm_proof")
    for name in ("norm_proof", "norm_curve"):
        sys.modules.pop(name, None)


@pytest.fixture
def curve(proving):
    return sys.modules["norm_curve"]


def vector(size, norm):
    drawn = np.random.default_rng(size).normal(size=size)
    return np.rint(drawn * norm / np.linalg.norm(drawn)).astype(np.int64)


def proved(proving, statement, upload):
    commitment = proving.commit(statement, upload)
    return commitment, proving.prove(statement, upload, commitment, rows_seed=SEED)


def test_sums_of_points_are_those_of_the_group(curve):
    a, b = curve.generators(2)
    assert curve.same(curve.times_and_sum([curve.ORDER], [a]), curve.ZERO)
    assert curve.same(curve.times_and_sum([5, -3], [a, b]), curve.times_and_sum([5, curve.ORDER - 3], [a, b]))
    assert curve.same(curve.twice(a), curve.plus(a, a))
    assert not curve.same(a, b)
    for point in (a, b):  # on the curve: -x^2 + y^2 = 1 + d x^2 y^2
        x, y, z, t = point
        assert (y * y - x * x - z * z - curve._D * t * t) % curve.P == 0


@pytest.mark.slow
@pytest.mark.parametrize("rows", [4, None])
def test_a_short_vector_passes_and_a_long_one_does_not(proving, rows):
    statement = proving.Statement(dimension=12, bound=100, rows=rows, error=0.01)
    for norm, passes in ((90, True), (110 * statement.slack, False)):
        commitment, proof = proved(proving, statement, vector(12, norm))
        assert proving.holds(statement, commitment.point, proof, rows_seed=SEED) is passes


@pytest.mark.slow
def test_nothing_of_a_proof_can_be_changed(proving):
    statement = proving.Statement(dimension=6, bound=50, rows=4, error=0.01)
    commitment, proof = proved(proving, statement, vector(6, 40))
    others, other = proved(proving, statement, vector(6, 40))
    assert not proving.holds(statement, others.point, proof, rows_seed=SEED)
    assert not proving.holds(statement, commitment.point, proof, rows_seed=b"the lab's own")
    for name in ("points", "deltas", "upload", "numbers", "bits", "blindings"):
        for place in range(len(getattr(proof, name))):
            parts = list(getattr(proof, name))
            parts[place] = getattr(other, name)[place]
            assert not proving.holds(statement, commitment.point, replace(proof, **{name: parts}), rows_seed=SEED)
        shorter = replace(proof, **{name: getattr(proof, name)[:-1]})
        assert not proving.holds(statement, commitment.point, shorter, rows_seed=SEED)


def test_bits_that_are_none_are_found(proving, monkeypatch):
    """Numbers that add up to what the range asks for, but are not 0 or 1: only their squares tell."""
    statement = proving.Statement(dimension=6, bound=50, rows=None)
    upload = vector(6, 200)

    def cheating(statement, y, v):
        per, half = statement.number_bits, 1 << statement.number_bits - 1
        parts = [[number + half] + [0] * (per - 1) for number in y]
        return [*(part for each in parts for part in each), statement.most - v, *[0] * (statement.rest_bits - 1)]

    monkeypatch.setattr(proving, "_bits", cheating)
    commitment, proof = proved(proving, statement, upload)
    assert not proving.holds(statement, commitment.point, proof, rows_seed=SEED)
    squares = [f * (1 - f) for f in cheating(statement, upload.tolist(), int((upload**2).sum()))]
    assert any(squares)


def test_opened_sums_are_held_against_the_commitments(proving):
    statement = proving.Statement(dimension=6, bound=50, rows=4)
    made = [proving.commit(statement, vector(6, norm)) for norm in (20, 30)]
    total, blinding = vector(6, 20) + vector(6, 30), sum(each.blinding for each in made)
    points = [each.point for each in made]
    assert proving.sums_to(statement, points, total, blinding)
    assert not proving.sums_to(statement, points, total + 1, blinding)
    assert not proving.sums_to(statement, points[:1], total, blinding)


def test_a_projection_is_as_long_as_it_should_be(proving):
    statement = proving.Statement(dimension=400, bound=1000, rows=128)
    upload = vector(400, 1000)
    squares = []
    for number in range(200):
        projected = proving._rows(statement, f"{number}".encode()) @ upload
        squares.append(float(projected @ projected) / statement.bound**2)
    assert abs(np.mean(squares) / 64 - 1) < 0.05
    assert abs(np.std(squares) / (64 * (2 / 128) ** 0.5) - 1) < 0.25
    assert max(squares) * statement.bound**2 < statement.most
