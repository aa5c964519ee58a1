import hashlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.errors import InputError
from fedsci.names import digest, site_id, study_id

ENDS = string.ascii_lowercase + string.digits


@given(st.text(ENDS, min_size=1, max_size=1), st.text(ENDS + "._-", max_size=62), st.text(ENDS, min_size=1, max_size=1))
def test_a_usable_name_is_kept_as_it_is(first, middle, last):
    assert site_id(first + middle + last) == first + middle + last
    assert study_id(first + middle + last) == first + middle + last


@given(st.text())
def test_whatever_passes_is_safe_in_a_path(text):
    try:
        name = site_id(text)
    except InputError:
        return
    assert 1 <= len(name) <= 64
    assert name.isascii()
    assert not set(name) & set("/\\\0 \n")
    assert name[0] not in ".-_"


@pytest.mark.parametrize(
    "text", ["", "Lab", "-lab", "lab-", ".", "..", "../lab", "a/b", "lab 1", "lab\n", "lab\0", "läb", "a" * 65, "٣"]
)
@pytest.mark.parametrize(("check", "kind"), [(site_id, "site"), (study_id, "study")])
def test_an_unusable_name_is_refused(check, kind, text):
    with pytest.raises(InputError, match=f"{kind} name") as refused:
        check(text)
    assert "lower-case" in refused.value.hint


def test_the_shortest_and_the_longest_name_are_fine():
    assert site_id("a") == "a"
    assert site_id("a" * 64) == "a" * 64


def test_a_digest_is_sha256_in_hex():
    # FIPS 180-4, the one-block example
    assert digest(b"abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest(b"") == "sha256:" + hashlib.sha256().hexdigest()
