"""The Merkle tree of RFC 6962, section 2.1: one hash for a whole list, and short proofs about it.

A leaf is hashed as SHA-256(0 | data), a node as SHA-256(1 | left | right), so that neither reads as the other. The
checks are those of RFC 9162, sections 2.1.3.2 and 2.1.4.2; they return nothing and raise where a proof proves nothing.
"""

import hashlib
from collections.abc import Sequence

from fedsci.errors import VerificationFailed

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256().digest()
_LONGEST_PROOF = 64

Proof = tuple[bytes, ...]


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node over two subtrees."""
    return hashlib.sha256(b"\1" + left + right).digest()


class Tree:
    """A list that only grows; every root it ever had can be told and proven again.

    The hash of each full subtree is kept (64 bytes a leaf at most), so appending costs two hashes on average and a
    proof O(log n) look-ups and hashes.

    >>> tree = Tree()
    >>> tree.append(b"first"), tree.append(b"second"), len(tree)
    (0, 1, 2)
    >>> check_inclusion(leaf_hash(b"first"), 0, 2, tree.inclusion_proof(0), tree.root())
    """

    def __init__(self) -> None:
        self._levels: list[list[bytes]] = [[]]  # [h][i]: of the full subtree over leaves i 2^h to (i+1) 2^h

    def __len__(self) -> int:
        return len(self._levels[0])

    def append(self, data: bytes) -> int:
        """Add a leaf and return its index, from 0."""
        index, found, level = len(self), leaf_hash(data), 0
        self._levels[0].append(found)
        while len(self._levels[level]) % 2 == 0:
            found = node_hash(*self._levels[level][-2:])
            level += 1
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(found)
        return index

    def root(self, size: int | None = None) -> bytes:
        """Return the root over the first ``size`` leaves; over all by default, SHA-256 of nothing over none."""
        size = self._size(size)
        return self._over(0, size) if size else EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int | None = None) -> Proof:
        """Return what shows that leaf ``index`` is in the tree of ``size`` leaves.

        Raises:
            ValueError: there is no such leaf in a tree of that size.
        """
        size = self._size(size)
        if not 0 <= index < size:
            raise ValueError(f"no leaf {index} in a tree of {size}")
        path, start, end = [], 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._over(middle, end))
                end = middle
            else:
                path.append(self._over(start, middle))
                start = middle
        return tuple(reversed(path))

    def consistency_proof(self, old: int, new: int | None = None) -> Proof:
        """Return what shows that the tree of ``new`` leaves begins with all of that of ``old``; empty for 0.

        Raises:
            ValueError: ``old`` is more than ``new``, or ``new`` more than there are.
        """
        new = self._size(new)
        if not 0 <= old <= new:
            raise ValueError(f"no tree of {old} leaves in one of {new}")
        if old in (0, new):
            return ()
        path, start, end, known = [], 0, new, True
        while end != old:
            middle = start + _split(end - start)
            if old <= middle:
                path.append(self._over(middle, end))
                end = middle
            else:
                path.append(self._over(start, middle))
                start, known = middle, False
        if not known:  # otherwise it is the old root itself, which the other side has
            path.append(self._over(start, end))
        return tuple(reversed(path))

    def _size(self, size: int | None) -> int:
        if size is None:
            return len(self)
        if not 0 <= size <= len(self):
            raise ValueError(f"no tree of {size} leaves in one of {len(self)}")
        return size

    def _over(self, start: int, end: int) -> bytes:
        """Return the hash over leaves start to end; start is a multiple of the full subtrees in between."""
        parts = []
        while start < end:
            level = _split(end - start + 1).bit_length() - 1 if end - start > 1 else 0
            parts.append(self._levels[level][start >> level])
            start += 1 << level
        found = parts.pop()
        while parts:
            found = node_hash(parts.pop(), found)
        return found


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Refuse a proof that does not show the leaf with this hash at ``index`` of the tree with this size and root.

    Raises:
        VerificationFailed: always then.
    """
    if not 0 <= index < size:
        raise VerificationFailed(f"there is no leaf {index} in a tree of {size}")
    _check_hashes(leaf, root, *proof)
    at, last, found = index, size - 1, leaf
    for part in proof:
        if last == 0:
            raise VerificationFailed("the inclusion proof is too long")
        if at & 1 or at == last:
            found = node_hash(part, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, part)
        at, last = at >> 1, last >> 1
    if last:
        raise VerificationFailed("the inclusion proof is too short")
    if found != root:
        raise VerificationFailed(f"the inclusion proof of leaf {index} does not lead to the root")


def check_consistency(old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Refuse a proof that does not show that the new tree begins with all leaves of the old one, in their order.

    Raises:
        VerificationFailed: always then.
    """
    if not 0 <= old_size <= new_size:
        raise VerificationFailed(f"a tree of {new_size} leaves is no later one of {old_size}")
    _check_hashes(old_root, new_root, *proof)
    if old_size in (0, new_size):
        if proof:
            raise VerificationFailed("the consistency proof is too long")
        if old_root != (new_root if old_size else EMPTY_ROOT):
            raise VerificationFailed(f"two roots of {old_size} leaves")
        if new_size == 0 and new_root != EMPTY_ROOT:
            raise VerificationFailed("two roots of 0 leaves")
        return
    parts = list(proof)
    if old_size & (old_size - 1) == 0:
        parts.insert(0, old_root)
    if not parts:
        raise VerificationFailed("the consistency proof is too short")
    at, last = old_size - 1, new_size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = parts[0]
    for part in parts[1:]:
        if last == 0:
            raise VerificationFailed("the consistency proof is too long")
        if at & 1 or at == last:
            old, new = node_hash(part, old), node_hash(part, new)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new = node_hash(new, part)
        at, last = at >> 1, last >> 1
    if last:
        raise VerificationFailed("the consistency proof is too short")
    if old != old_root or new != new_root:
        raise VerificationFailed(f"the tree of {new_size} leaves is not shown to begin with that of {old_size}")


def _split(size: int) -> int:
    """Return the largest power of two below ``size``."""
    return 1 << ((size - 1).bit_length() - 1)


def _check_hashes(*hashes: bytes) -> None:
    if len(hashes) > _LONGEST_PROOF + 2 or any(len(one) != HASH_BYTES for one in hashes):
        raise VerificationFailed(f"a proof is at most {_LONGEST_PROOF} hashes of {HASH_BYTES} bytes")
