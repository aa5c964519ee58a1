import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsci.secagg import shamir

ELEMENTS = st.integers(0, shamir.PRIME - 1)


@settings(deadline=None)
@given(ELEMENTS, st.data())
def test_any_threshold_of_shares_give_the_secret(secret, data):
    points = data.draw(st.lists(st.integers(1, 65535), min_size=1, max_size=12, unique=True))
    threshold = data.draw(st.integers(1, len(points)))
    shares = dict(
        zip(
            points,
            shamir.split(secret, threshold=threshold, points=points, random_bytes=os.urandom),
            strict=True,
        )
    )
    chosen = data.draw(st.permutations(points))[:threshold]
    assert shamir.interpolate({point: shares[point] for point in chosen}) == secret


def test_fewer_shares_fit_every_secret():
    """With t - 1 shares, each candidate secret completes to exactly one polynomial: nothing is learned."""
    shares = dict(zip((1, 2, 3), shamir.split(7, threshold=3, points=(1, 2, 3), random_bytes=os.urandom), strict=True))
    for candidate in (0, 7, 12345):
        known = {0: candidate, 1: shares[1], 2: shares[2]}
        third = shamir.interpolate(known, 3)
        assert shamir.interpolate({1: shares[1], 2: shares[2], 3: third}) == candidate


def test_large_thresholds_reduce_correctly():
    points = tuple(range(65000, 65060))
    shares = shamir.split(5, threshold=60, points=points, random_bytes=os.urandom)
    assert shamir.interpolate(dict(zip(points, shares, strict=True))) == 5


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 3), st.randoms(use_true_random=False))
def test_up_to_the_spare_number_of_liars_is_found(liars, random):
    points = list(range(1, 18))
    shares = dict(zip(points, shamir.split(9, threshold=12, points=points, random_bytes=os.urandom), strict=True))
    lying = set(random.sample(points, liars))
    for point in lying:
        shares[point] = (shares[point] + 1) % shamir.PRIME
    found = shamir.recover(shares, threshold=12, confirms=lambda value: value == 9)
    assert found is not None
    assert found.secret == 9
    assert set(found.wrong) == lying


def test_a_secret_that_was_never_committed_is_not_confirmed():
    points = list(range(1, 6))
    shares = dict(zip(points, shamir.split(9, threshold=3, points=points, random_bytes=os.urandom), strict=True))
    assert shamir.recover(shares, threshold=3, confirms=lambda value: value == 10) is None
    assert shamir.recover({1: 1}, threshold=3, confirms=lambda value: True) is None


def test_impossible_sharings_are_refused(broken_rule):
    for threshold in (0, 4):
        with broken_rule("bad-threshold"):
            shamir.split(1, threshold=threshold, points=(1, 2, 3), random_bytes=os.urandom)
    for points in ((0, 1), (1, 1), (1, 1 << 16)):
        with broken_rule("bad-share-point"):
            shamir.split(1, threshold=2, points=points, random_bytes=os.urandom)


@pytest.mark.parametrize("content", [b"", bytes(31), bytes(33), b"\xff" * 32, shamir.PRIME.to_bytes(32, "big")])
def test_only_reduced_elements_decode(broken_rule, content):
    with broken_rule("malformed-message"):
        shamir.decode_element(content)


def test_draws_above_the_field_are_rejected():
    blocks = iter([b"\xff" * 32, (5).to_bytes(32, "big")])
    assert shamir.draw_elements(1, lambda _: next(blocks)) == [5]


def test_colluding_holders_cannot_frame_an_honest_one():
    """Errors chosen so that the first shares still give the secret, but not the polynomial."""
    points = tuple(range(1, 18))
    shares = dict(zip(points, shamir.split(9, threshold=12, points=points, random_bytes=os.urandom), strict=True))
    weights = shamir.lagrange_weights(points[:12])
    shares[1] = (shares[1] + weights[1]) % shamir.PRIME
    shares[2] = (shares[2] - weights[0]) % shamir.PRIME
    assert shamir.interpolate({point: shares[point] for point in points[:12]}) == 9
    found = shamir.recover(shares, threshold=12, confirms=lambda value: value == 9)
    assert found == shamir.Recovered(secret=9, wrong=(1, 2))


def test_more_liars_than_can_be_told_apart_are_not_named_but_the_secret_opens():
    points = tuple(range(1, 18))
    shares = dict(zip(points, shamir.split(9, threshold=12, points=points, random_bytes=os.urandom), strict=True))
    for point in (13, 14, 15, 16, 17):
        shares[point] = 0
    found = shamir.recover(shares, threshold=12, confirms=lambda value: value == 9)
    assert found == shamir.Recovered(secret=9, wrong=())
