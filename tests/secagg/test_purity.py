"""The package is values in, values out; its public surface is what its docstring promises."""

import ast
import doctest
import importlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fedsci import secagg

FILES = sorted(Path(secagg.__file__).parent.glob("*.py"))
ALLOWED = {
    "abc",
    "collections",
    "contextlib",
    "cryptography",
    "dataclasses",
    "enum",
    "fedsci",
    "fractions",
    "functools",
    "hashlib",
    "hmac",
    "itertools",
    "math",
    "numpy",
    "typing",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nothing_impure_is_imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.split(".")[0] in ALLOWED
            if name.startswith("fedsci"):
                assert name in ("fedsci.errors", "fedsci.names") or name.startswith("fedsci.secagg")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_examples_in_docstrings_hold(path):
    name = "fedsci.secagg" if path.stem == "__init__" else f"fedsci.secagg.{path.stem}"
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_every_public_name_exists_and_is_listed_in_order():
    assert secagg.__all__ == sorted(secagg.__all__)
    for name in secagg.__all__:
        assert getattr(secagg, name).__doc__ or name in ("RandomBytes", "RingVector", "SignedVector")


def test_masking_takes_one_copy_of_the_vector_and_unmasking_none(worlds, key_of):
    world = worlds.build(5).set_up()
    vector = world.setup.cohort.ring.zeros(4_000_000)
    spare = 2_000_000
    tracemalloc.start()
    try:
        _, masked = secagg.mask(world.state(1), world.call(), vector, signing_key=key_of(1))
        assert tracemalloc.get_traced_memory()[1] < vector.nbytes + spare
        collector = world.collector(world.call(), vector.size)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        collector.add_input(masked.header, masked.payload.data)
        assert tracemalloc.get_traced_memory()[1] - before < spare
    finally:
        tracemalloc.stop()
    assert np.count_nonzero(vector) == 0
