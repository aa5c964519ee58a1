"""The tree is that of RFC 6962, and a proof of anything else is refused."""

import hashlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.audit.merkle import EMPTY_ROOT, Tree, check_consistency, check_inclusion, leaf_hash
from fedsci.errors import VerificationFailed

# The test vectors of Certificate Transparency's reference implementation.
LEAVES = [bytes.fromhex(one) for one in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
LEAVES.append(bytes.fromhex("606162636465666768696a6b6c6d6e6f"))
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
A, B, C = (
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
)
D, E, F, G = (
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
)
SIZES = st.integers(1, 70)


def tree_of(size, salt=b""):
    tree = Tree()
    for number in range(size):
        tree.append(salt + b"%d" % number)
    return tree


def reference(leaves):
    """MTH as RFC 6962 writes it."""
    if len(leaves) < 2:
        return hashlib.sha256(b"\0" + leaves[0]).digest() if leaves else hashlib.sha256().digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\1" + reference(leaves[:split]) + reference(leaves[split:])).digest()


def test_the_roots_are_those_of_certificate_transparency():
    tree = Tree()
    assert tree.root().hex() == ROOTS[0]
    for leaf, root in zip(LEAVES, ROOTS[1:], strict=True):
        tree.append(leaf)
        assert tree.root().hex() == root
    assert [tree.root(size).hex() for size in range(9)] == ROOTS


def test_the_proofs_are_those_of_certificate_transparency():
    tree = Tree()
    for leaf in LEAVES:
        tree.append(leaf)

    def inclusion(index, size):
        return [one.hex() for one in tree.inclusion_proof(index, size)]

    def consistency(old, new):
        return [one.hex() for one in tree.consistency_proof(old, new)]

    assert inclusion(0, 1) == []
    assert inclusion(0, 8) == [A, B, C]
    assert inclusion(5, 8) == [D, E, F]
    assert inclusion(2, 3) == [ROOTS[2]]
    assert inclusion(1, 5) == [ROOTS[1], B, D]
    assert consistency(1, 1) == []
    assert consistency(1, 8) == [A, B, C]
    assert consistency(6, 8) == [G, E, F]
    assert consistency(2, 5) == [B, D]


def test_every_root_and_proof_of_small_trees_checks():
    tree = tree_of(40)
    leaves = [b"%d" % number for number in range(40)]
    for new in range(41):
        assert tree.root(new) == reference(leaves[:new])
        for index in range(new):
            check_inclusion(leaf_hash(leaves[index]), index, new, tree.inclusion_proof(index, new), tree.root(new))
        for old in range(new + 1):
            check_consistency(old, new, tree.consistency_proof(old, new), tree.root(old), tree.root(new))


@given(SIZES, st.data())
def test_no_changed_inclusion_proof_passes(size, data):
    tree = tree_of(size)
    index = data.draw(st.integers(0, size - 1))
    leaf, proof, root = leaf_hash(b"%d" % index), list(tree.inclusion_proof(index)), tree.root()
    other = data.draw(st.integers(0, size - 1).filter(lambda at: at != index) if size > 1 else st.just(size))
    with pytest.raises(VerificationFailed):
        check_inclusion(leaf, other, size, proof, root)
    for changed in changes(proof, data):
        with pytest.raises(VerificationFailed):
            check_inclusion(leaf, index, size, changed, root)
    with pytest.raises(VerificationFailed):
        check_inclusion(flipped(leaf, data), index, size, proof, root)
    with pytest.raises(VerificationFailed):
        check_inclusion(leaf, index, size, proof, flipped(root, data))


@given(SIZES, st.data())
def test_no_changed_consistency_proof_passes(new, data):
    tree, old = tree_of(new), data.draw(st.integers(1, new))
    proof, roots = list(tree.consistency_proof(old)), (tree.root(old), tree.root())
    for changed in changes(proof, data):
        with pytest.raises(VerificationFailed):
            check_consistency(old, new, changed, *roots)
    for wrong in ((flipped(roots[0], data), roots[1]), (roots[0], flipped(roots[1], data)), roots[::-1]):
        if wrong != roots:
            with pytest.raises(VerificationFailed):
                check_consistency(old, new, proof, *wrong)
    if old < new:
        with pytest.raises(VerificationFailed):
            check_consistency(new, old, proof, roots[1], roots[0])
        with pytest.raises(VerificationFailed):
            check_consistency(old, old, proof, *roots)


@given(SIZES, st.data())
def test_a_tree_that_changed_an_old_leaf_proves_nothing(new, data):
    old = data.draw(st.integers(1, new))
    honest, forked = tree_of(new), tree_of(new, salt=b"x")
    with pytest.raises(VerificationFailed):
        check_consistency(old, new, forked.consistency_proof(old), honest.root(old), forked.root())


def changes(proof, data):
    """A bit, an end and an order that are wrong."""
    at = data.draw(st.integers(0, len(proof)))
    yield [*proof[:at], bytes(data.draw(st.binary(min_size=32, max_size=32))), *proof[at:]]
    yield [*proof, b""]
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        yield [*proof[:at], flipped(proof[at], data), *proof[at + 1 :]]
        yield [*proof[:at], *proof[at + 1 :]]
        yield [*proof[:at], proof[at][:-1], *proof[at + 1 :]]
    if len(set(proof)) > 1:
        yield proof[::-1]


def flipped(value, data):
    at = data.draw(st.integers(0, 8 * len(value) - 1))
    return bytes(byte ^ (1 << at % 8 if number == at // 8 else 0) for number, byte in enumerate(value))


def test_a_tree_of_another_shape_is_not_what_was_proven():
    tree = tree_of(9)
    for size in (7, 8, 10, 0, -1):
        with pytest.raises(VerificationFailed):
            check_inclusion(leaf_hash(b"8"), 8, size, tree.inclusion_proof(8), tree.root())
    for old, new in (
        (6, 8),
        (6, 17),
        (7, 9),
        (5, 9),
    ):  # a size of the same shape is told apart by its signed checkpoint
        with pytest.raises(VerificationFailed):
            check_consistency(old, new, tree.consistency_proof(6, 9), tree.root(6), tree.root(9))


def test_from_nothing_every_log_is_consistent_and_nothing_else_is_nothing():
    tree = tree_of(3)
    check_consistency(0, 3, (), EMPTY_ROOT, tree.root())
    check_consistency(0, 0, (), EMPTY_ROOT, EMPTY_ROOT)
    for old_size, new_size, proof, old, new in (
        (0, 3, (), tree.root(), tree.root()),
        (0, 3, (tree.root(),), EMPTY_ROOT, tree.root()),
        (0, 0, (), EMPTY_ROOT, tree.root()),
        (3, 3, (), tree.root(), EMPTY_ROOT),
        (-1, 3, (), EMPTY_ROOT, tree.root()),
    ):
        with pytest.raises(VerificationFailed):
            check_consistency(old_size, new_size, proof, old, new)


@pytest.mark.parametrize("ask", [lambda t: t.root(4), lambda t: t.inclusion_proof(3), lambda t: t.consistency_proof(4)])
def test_a_tree_says_nothing_of_leaves_it_does_not_have(ask):
    with pytest.raises(ValueError, match="3"):
        ask(tree_of(3))


def test_a_proof_is_as_long_as_the_tree_is_deep_and_no_longer_made():
    tree = tree_of(20_000)
    start = time.perf_counter()
    proofs = [tree.inclusion_proof(index) for index in range(0, 20_000, 20)]
    assert max(map(len, proofs)) <= 15
    assert time.perf_counter() - start < 5  # hashing the leaves anew for each would take minutes
