import copy
import pickle

import pytest

from fedsci.secagg.keys import SigningKey
from fedsci.secagg.seed import ERASED, Seed


def test_a_seed_never_prints_itself():
    seed = Seed(b"very secret")
    assert repr(seed) == str(seed) == f"{seed}" == "Seed(…)"
    assert "secret" not in repr([seed]) + repr({"seed": seed})


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_seed_is_never_pickled_copied_or_hashed(protocol):
    with pytest.raises(TypeError):
        pickle.dumps(Seed(b"x" * 32), protocol)
    with pytest.raises(TypeError):
        copy.deepcopy(Seed(b"x" * 32))
    with pytest.raises(TypeError):
        hash(Seed(b"x"))


def test_a_signing_key_is_as_shy():
    key = SigningKey(Seed(bytes(32)))
    assert repr(key) == "SigningKey(…)"
    with pytest.raises(TypeError):
        pickle.dumps(key)


def test_seeds_compare_by_content():
    assert Seed(b"a") == Seed(b"a")
    assert Seed(b"a") != Seed(b"b")
    assert Seed(b"a") != b"a"
    assert ERASED.erased
    assert not Seed(b"a").erased
