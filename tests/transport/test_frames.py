"""Frames come back as they went in, and a damaged one is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.transport.frames import pack_frames, unpack_frames


@given(st.lists(st.binary(max_size=300), min_size=1))
def test_frames_come_back(parts):
    assert unpack_frames(pack_frames(parts)) == parts


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1), st.data())
def test_a_frame_cut_short_is_refused_unless_the_cut_is_between_two(parts, data):
    whole = pack_frames(parts)
    cut = data.draw(st.integers(0, len(whole) - 1))
    try:
        assert unpack_frames(whole[:cut]) == parts[: len(unpack_frames(whole[:cut]))]
    except ValueError:
        return


@pytest.mark.parametrize("content", [b"", b"\x00", b"\x00\x00\x00", b"\x00\x00\x00\x02a", b"\xff\xff\xff\xffabc"])
def test_nonsense_is_refused(content):
    with pytest.raises(ValueError, match="frame"):
        unpack_frames(content)
