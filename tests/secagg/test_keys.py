import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.secagg import keys
from fedsci.secagg.profile_default import SMALL_ORDER
from fedsci.secagg.seed import Seed

PARTS = st.lists(st.binary(max_size=6), max_size=4).map(tuple)


@given(st.sampled_from("ab"), PARTS, st.sampled_from("ab"), PARTS)
def test_different_inputs_never_read_the_same(label, parts, other_label, other_parts):
    same = (label, parts) == (other_label, other_parts)
    assert (keys.labelled(label, *parts) == keys.labelled(other_label, *other_parts)) is same


def test_two_sites_agree_on_a_secret_and_a_third_does_not():
    a, b, c = (Seed(bytes([i]) * 32) for i in (1, 2, 3))
    (ab,) = keys.exchange(a, (keys.exchange_public(b),))
    (ba,) = keys.exchange(b, (keys.exchange_public(a),))
    (ca,) = keys.exchange(c, (keys.exchange_public(a),))
    assert ab == ba
    assert ca != ab


def test_each_label_salt_and_context_gives_another_key():
    secret = Seed(bytes(32))
    derived = [
        keys.derive(secret, salt=salt, label=label, parts=parts).reveal()
        for salt, label, parts in itertools.product(
            (b"s", b"t"), ("self mask", "pair mask"), ((), (b"x",), (b"", b"x"))
        )
    ]
    assert len(set(derived)) == len(derived)


SMALL = [0, 1, 2**255 - 20, *sorted(SMALL_ORDER)[2:4]]


@pytest.mark.parametrize("value", [*SMALL, 2**255 - 19, 2**255 - 18, *(v | 1 << 255 for v in SMALL)])
def test_keys_of_small_order_are_refused(broken_rule, value):
    public = value.to_bytes(32, "little")
    with broken_rule("weak-key"):
        keys.check_exchange_key(public)
    with broken_rule("weak-key"):
        keys.exchange(Seed(bytes(32)), (public,))


def test_a_signature_counts_for_one_label_one_body_one_key(broken_rule, key_of):
    key = key_of(1)
    signature = key.sign("vote", b"body")
    keys.check_signature(key.public, "vote", b"body", signature, rule="forged-vote", who="site 1")
    for public, label, body, given_signature in (
        (key_of(2).public, "vote", b"body", signature),
        (key.public, "header", b"body", signature),
        (key.public, "vote", b"bodY", signature),
        (key.public, "vote", b"body", signature[:-1] + b"\0"),
        (key.public, "vote", b"body", b""),
        (b"\xff" * 32, "vote", b"body", signature),
    ):
        with broken_rule("forged-vote"):
            keys.check_signature(public, label, body, given_signature, rule="forged-vote", who="site 1")
    with broken_rule("weak-key"):
        keys.SigningKey(Seed(b"short"))
