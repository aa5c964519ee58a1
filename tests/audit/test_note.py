"""A note says what its signers signed, in one spelling, and nothing else opens."""

from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.audit.checkpoint import Checkpoint, check_origin
from fedsci.audit.note import MOST_LINES, add_line, open_checkpoint, open_note, sign_note
from fedsci.audit.note_keys import (
    PostQuantumKey,
    Use,
    cosignature_line,
    cosigner_key,
    log_key,
)
from fedsci.errors import ProtocolError, VerificationFailed
from fedsci.secagg.keys import SigningKey
from fedsci.secagg.seed import Seed

RUN = "5f0c0f6d1f6a4c0ab6a3b1a5c9f3c7d2"
ORIGIN = f"fedsci/{RUN}"
COORDINATOR, LAB, OTHER = (SigningKey(Seed(bytes([n]) * 32)) for n in (1, 2, 3))
LATTICE, LATTICE_2 = (PostQuantumKey(Seed(bytes([n]) * 32)) for n in (4, 5))
POINT = Checkpoint(origin=ORIGIN, size=12, root=bytes(range(32)))
TIME = 1_700_000_000
WHO = {"origin": ORIGIN, "coordinator": COORDINATOR.public}
COSIGNERS = {"lab-1": (LAB.public, LATTICE.public)}


def signed(point=POINT, key=COORDINATOR):
    return sign_note(point, key)


def cosigned():
    note = add_line(signed(), cosignature_line(POINT, "lab-1", LAB, time=TIME))
    return add_line(note, cosignature_line(POINT, "lab-1", LATTICE, time=TIME))


def test_what_was_signed_comes_back_with_its_signers_and_times():
    note = open_checkpoint(cosigned(), **WHO, cosigners=COSIGNERS)
    assert note.checkpoint == POINT
    assert note.signed_by == {
        log_key(ORIGIN, COORDINATOR.public): 0,
        cosigner_key("lab-1", LAB.public): TIME,
        cosigner_key("lab-1", LATTICE.public): TIME,
    }
    assert note.unknown == ()


def test_the_text_is_the_one_others_read_too():
    body, _, lines = cosigned().partition(b"\n\n")
    assert body.decode().split("\n") == [ORIGIN, "12", b64encode(bytes(range(32))).decode()]
    assert lines.decode().startswith(f"— {ORIGIN} ")
    # https://pkg.go.dev/golang.org/x/mod/sumdb/note: its example of a verifier's key
    public = b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")[1:]
    assert log_key("PeterNeumann", public).key_id.hex() == "c74f20a3"


def test_the_messages_are_those_of_the_cosignature_format():
    lab = cosignature_line(POINT, "lab-1", LAB, time=TIME).split(" ")[2]
    raw = b64decode(lab)
    assert int.from_bytes(raw[4:12], "big") == TIME
    assert raw[12:] == LAB.sign_exact(f"cosignature/v1\ntime {TIME}\n".encode() + POINT.body())
    lattice = b64decode(cosignature_line(POINT, "lab-1", LATTICE, time=TIME).split(" ")[2])
    assert len(lattice) == 4 + 8 + 2420
    assert lattice[:4] == cosigner_key("lab-1", LATTICE.public).key_id


@given(st.data())
def test_no_changed_byte_of_a_note_passes(data):
    content = cosigned()
    at = data.draw(st.one_of(st.integers(0, 400), st.integers(0, len(content) - 1)))
    changed = bytearray(content)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        note = open_checkpoint(bytes(changed), **WHO, cosigners=COSIGNERS)
    except VerificationFailed:
        return
    assert note.unknown  # a name or a key's id that nobody has: the line counts for nothing
    assert note.checkpoint == POINT
    assert len(note.signed_by) == 2


def test_every_byte_of_a_log_s_own_note_counts():
    content = signed()
    for at in range(len(content)):
        for flip in (1, 0x20, 0x80):
            changed = bytearray(content)
            changed[at] ^= flip
            with pytest.raises(VerificationFailed):
                open_checkpoint(bytes(changed), **WHO)


@pytest.mark.parametrize(
    "body",
    [
        f"{ORIGIN}\n012\n",
        f"{ORIGIN}\n+12\n",
        f"{ORIGIN}\n-1\n",
        f"{ORIGIN}\n12 \n",
        f"{ORIGIN}\n99999999999999999999\n",
        f"{ORIGIN}\n9999999999999999999\n",
        f"{ORIGIN}\r\n12\n",
        "fedsci/secagg/v1/\n12\n",
        "elsewhere\n12\n",
    ],
)
def test_a_checkpoint_has_one_spelling(body):
    text = body.encode() + b64encode(POINT.root) + b"\n"
    key = log_key(ORIGIN, OTHER.public)
    try:
        line = key.line(OTHER.sign_exact(text))
    except ProtocolError:
        line = key.line(bytes(64))
    with pytest.raises(VerificationFailed, match=r"size|names no log|three lines|root"):
        open_note(text + f"\n{line}\n".encode(), [key])


@pytest.mark.parametrize(
    "root", ["", "AA==", b64encode(bytes(31)).decode(), b64encode(bytes(32)).decode().rstrip("="), "A" * 42 + "B=", "é"]
)
def test_a_root_is_32_bytes_in_one_spelling(root):
    text = f"{ORIGIN}\n12\n{root}\n".encode()
    key = log_key(ORIGIN, OTHER.public)
    with pytest.raises(VerificationFailed):
        open_note(text + f"\n{key.line(OTHER.sign_exact(text))}\n".encode(), [key])


def test_extension_lines_are_refused():
    text = POINT.body() + b"more\n"
    key = log_key(ORIGIN, OTHER.public)
    with pytest.raises(VerificationFailed, match="three lines"):
        open_note(text + f"\n{key.line(OTHER.sign_exact(text))}\n".encode(), [key])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "a text, an empty line"),
        (POINT.body(), "a text, an empty line"),
        (POINT.body() + b"\n", "a text, an empty line"),
        (signed()[:-1], "a text, an empty line"),
        (signed() + b"\n", "a text, an empty line"),
        (signed() + b"- lab-1 AAAAAAAA\n", "a dash, a name and base64"),
        (signed() + "—  AAAAAAAA\n".encode(), "a dash, a name and base64"),
        (signed() + "— lab+1 AAAAAAAA\n".encode(), "a dash, a name and base64"),
        (signed() + "— lab-1 AAAAAAA\n".encode(), "a dash, a name and base64"),
        (signed() + "— lab-1 AAAAAAB=\n".encode(), "no base64"),
        (signed() + "— lab-1 AAAAAA==\n".encode(), "a dash, a name and base64"),
        (signed() + "— lab-1 AAAAAAAA AAAA\n".encode(), "a dash, a name and base64"),
        (signed() + b"\xff\n", "text"),
        (signed() + b"x" * (1 << 20), "passes"),
        (signed() + "— lab-1 AAAAAAAA\n".encode() * MOST_LINES, "1 to 256"),
        (signed() + signed().partition(b"\n\n")[2], "signed twice"),
        (signed() + "— lab-1 AAAAAAAA\n— lab-1 AAAAAAAB\n".encode(), "signed twice"),
    ],
)
def test_what_is_no_note_is_refused(content, why):
    with pytest.raises(VerificationFailed, match=why):
        open_checkpoint(content, **WHO)


def test_another_signer_log_or_use_is_refused():
    with pytest.raises(VerificationFailed, match="no signature of a known key"):
        open_checkpoint(signed(key=OTHER), **WHO)
    with pytest.raises(VerificationFailed, match="no signature of a known key"):
        open_checkpoint(signed(), origin="fedsci/" + "0" * 32, coordinator=COORDINATOR.public)
    alone = POINT.body() + f"\n{cosignature_line(POINT, 'lab-1', LAB, time=TIME)}\n".encode()
    with pytest.raises(VerificationFailed, match="not signed by the coordinator"):
        open_checkpoint(alone, **WHO, cosigners=COSIGNERS)
    # the coordinator's key under the name of a lab cosigns, and does not sign the log
    itself = POINT.body() + f"\n{cosignature_line(POINT, ORIGIN, COORDINATOR, time=TIME)}\n".encode()
    with pytest.raises(VerificationFailed, match="no signature of a known key"):
        open_checkpoint(itself, **WHO)


def test_a_log_s_signature_under_a_foreign_origin_is_refused():
    far = Checkpoint(origin="fedsci/" + "0" * 32, size=12, root=POINT.root)
    key = log_key(ORIGIN, COORDINATOR.public)
    content = far.body() + f"\n{key.line(COORDINATOR.sign_exact(far.body()))}\n".encode()
    with pytest.raises(VerificationFailed, match="is of fedsci/0000"):
        open_checkpoint(content, **WHO)


def test_a_known_key_s_wrong_signature_refuses_the_whole_note():
    other = Checkpoint(origin=ORIGIN, size=13, root=POINT.root)
    for key in (LAB, LATTICE):
        content = add_line(signed(), cosignature_line(other, "lab-1", key, time=TIME))
        with pytest.raises(VerificationFailed, match="lab-1 on the checkpoint is not valid"):
            open_checkpoint(content, **WHO, cosigners=COSIGNERS)
        open_checkpoint(content, **WHO)  # who does not know the key cannot tell


def test_a_cosignature_of_another_time_or_name_is_refused():
    for key in (LAB, LATTICE):
        name, raw = "lab-1", b64decode(cosignature_line(POINT, "lab-1", key, time=TIME).split(" ")[2])
        later = cosigner_key(name, key.public).line((TIME + 1).to_bytes(8, "big") + raw[12:])
        never = cosigner_key(name, key.public).line(bytes([255] * 8) + raw[12:])
        for line in (later, never):
            with pytest.raises(VerificationFailed, match="not valid"):
                open_checkpoint(add_line(signed(), line), **WHO, cosigners=COSIGNERS)
    moved = cosigner_key("lab-2", LATTICE.public).line(raw[4:])
    with pytest.raises(VerificationFailed, match="lab-2 on the checkpoint is not valid"):
        open_checkpoint(add_line(signed(), moved), **WHO, cosigners={"lab-2": [LATTICE.public]})


def test_a_lattice_key_cosigns_and_does_nothing_else():
    with pytest.raises(VerificationFailed, match="signs no log"):
        log_key(ORIGIN, LATTICE.public).key_id  # noqa: B018
    with pytest.raises(ProtocolError, match="only cosigns"):
        LATTICE.sign_exact(POINT.body())
    with pytest.raises(ProtocolError, match="32 bytes"):
        PostQuantumKey(Seed(b"short"))
    with pytest.raises(TypeError, match="never pickled"):
        LATTICE.__reduce__()
    swapped = {"lab-1": (LATTICE_2.public,)}
    assert open_checkpoint(cosigned(), **WHO, cosigners=swapped).unknown == ("lab-1", "lab-1")


def test_the_ids_of_one_key_differ_by_use_and_algorithm():
    assert len({log_key("a", LAB.public).key_id, cosigner_key("a", LAB.public).key_id}) == 2
    third = bytes(97)
    assert len({log_key("a", third).key_id, cosigner_key("a", third).key_id}) == 2
    assert cosigner_key("a", third).use is Use.COSIGNER


@pytest.mark.parametrize(
    "origin", ["", "fedsci/", f"fedsci/{RUN[:-1]}", f"fedsci/{RUN}0", f"fedsci/{RUN.upper()}", RUN]
)
def test_a_log_is_named_by_its_run(origin):
    with pytest.raises(VerificationFailed, match="names no log"):
        check_origin(origin)


@pytest.mark.parametrize("wrong", [{"size": -1}, {"size": 2**63}, {"root": b""}, {"origin": "x"}])
def test_a_checkpoint_that_cannot_be_is_not_made(wrong):
    with pytest.raises(VerificationFailed):
        Checkpoint(**{"origin": ORIGIN, "size": 1, "root": bytes(32), **wrong})
