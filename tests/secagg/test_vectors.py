"""The protocol vectors: good ones reproduced, some from the definitions alone; bad ones refused."""

import hashlib
import hmac
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedsci import secagg
from fedsci.secagg import shamir
from fedsci.secagg.keys import check_exchange_key
from fedsci.secagg.prg import add_masks
from fedsci.secagg.round_messages import UnmaskShares

FOLDER = Path(__file__).parents[1] / "vectors"
LOADED = {path.stem: json.loads(path.read_text()) for path in sorted((FOLDER / "secagg_v1").glob("*.json"))}
STEPS = {
    "share": lambda state, message, key: secagg.share(state, message, random_bytes=bytes),
    "accept_shares": lambda state, message, key: secagg.accept_shares(state, message),
    "answer_survivors": lambda state, message, key: secagg.answer_survivors(state, message, signing_key=key),
    "answer_votes": lambda state, message, key: secagg.answer_votes(state, message, signing_key=key),
}


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


# The definitions of docs/protocol.md, written without the package.


def labelled(label: str, *parts: bytes) -> bytes:
    return b"fedsci/secagg/v1/" + label.encode() + b"\0" + b"".join(len(p).to_bytes(8, "big") + p for p in parts)


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    prk = hmac.new(salt or bytes(32), secret, hashlib.sha256).digest()
    return hmac.new(prk, info + b"\1", hashlib.sha256).digest()


def private(seed: bytes) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(hkdf(seed, b"", labelled("exchange key")))


def test_all_files_are_here():
    assert set(LOADED) == {"masks", "derivations", "shamir", "rosters", "round", "refusals"}


@pytest.mark.parametrize("case", LOADED["masks"]["good"], ids=lambda case: case["name"])
def test_masks_follow_from_their_definition(case):
    size = case["ring_bits"] // 8
    content = b""
    for segment in range(-(-case["length"] * size // (1 << 18))):
        counter = segment.to_bytes(12, "big") + (2).to_bytes(4, "big")
        content += Cipher(algorithms.AES(unhex(case["key"])), modes.CTR(counter)).encryptor().update(bytes(1 << 18))
    content = content[: case["length"] * size]
    lanes = np.frombuffer(content, f"<u{size}")
    assert hashlib.sha256(content).hexdigest() == case["sha256"]
    assert [int(v) for v in lanes[:8]] == case["first"]
    assert [int(v) for v in lanes[-4:]] == case["last"]
    ours = np.zeros(case["length"], f"<u{size}")
    add_masks(ours, [(secagg.Seed(unhex(case["key"])), 1)])
    assert ours.tobytes() == content


def test_keys_follow_from_their_definition():
    case = LOADED["derivations"]["good"][0]
    low, high = unhex(case["seed_of_low"]), unhex(case["seed_of_high"])
    assert private(low).public_key().public_bytes_raw() == unhex(case["public_of_low"])
    shared = private(low).exchange(X25519PublicKey.from_public_bytes(unhex(case["public_of_high"])))
    assert shared == unhex(case["shared_secret"])
    context, transcript, bind = unhex(case["context"]), unhex(case["transcript"]), unhex(case["bind"])
    slot, one, two = b"\0\1", b"\0\1", b"\0\2"
    assert hkdf(shared, context, labelled("pair mask", slot, one, two, transcript, bind)) == unhex(case["pair_key"])
    assert case["sign_of_low"] == 1
    assert hkdf(low, context, labelled("self mask", slot, one, bind)) == unhex(case["self_key_of_low"])
    commitment = hashlib.sha256(labelled("self-mask commitment", context, one, slot, low)).digest()
    assert commitment == unhex(case["commitment_of_low"])
    assert private(high).exchange(X25519PublicKey.from_public_bytes(unhex(case["public_of_low"]))) == shared


def test_binds_follow_from_their_definition():
    case = LOADED["derivations"]["good"][1]
    cohort = len(case["cohort"]).to_bytes(2, "big") + b"".join(i.to_bytes(2, "big") for i in case["cohort"])
    parts = (
        case["slot"].to_bytes(2, "big"),
        cohort,
        unhex(case["model_digest"]),
        unhex(case["config_digest"]),
    )
    length = case["length"].to_bytes(8, "big")
    bind = hashlib.sha256(labelled("bind", unhex(case["transcript"]), *parts, length)).digest()
    assert bind == unhex(case["bind"])


@pytest.mark.parametrize("case", LOADED["derivations"]["bad"], ids=lambda case: case["name"])
def test_bad_exchange_keys_are_refused(case, broken_rule):
    with broken_rule(case["rule"]):
        check_exchange_key(unhex(case["exchange_key"]))


def test_shares_open_and_bad_elements_do_not(broken_rule):
    (case,) = LOADED["shamir"]["good"]
    shares = {int(p): int(s, 16) for p, s in case["shares"].items()}
    for chosen in ((1, 2, 5), (9, 65535, 1)):
        assert shamir.interpolate({p: shares[p] for p in chosen}) == int(case["secret"], 16)
    for bad in LOADED["shamir"]["bad"]:
        with broken_rule(bad["rule"]):
            shamir.decode_element(unhex(bad["element"]))


def test_rosters_open_or_are_refused(broken_rule):
    key = unhex(LOADED["rosters"]["consortium_key"])
    for case in LOADED["rosters"]["good"]:
        assert secagg.open_roster(unhex(case["signed_roster"]), consortium_key=key).digest == unhex(case["digest"])
    for case in LOADED["rosters"]["bad"]:
        with broken_rule(case["rule"]):
            secagg.open_roster(unhex(case["signed_roster"]), consortium_key=key)


def test_the_coordinators_side_of_the_round_is_reproduced():
    case = LOADED["round"]
    setup = secagg.Setup.decode(unhex(case["setup"]))
    assert setup.context == unhex(case["context"])
    collector = secagg.SetupCollector(setup)
    for content in case["adverts"].values():
        collector.add_advert(unhex(content))
    assert collector.close_adverts() == unhex(case["advert_set"])
    for content in case["envelopes"].values():
        collector.add_envelopes(unhex(content))
    ready, deliveries = collector.close_envelopes()
    assert {str(site): content.hex() for site, content in deliveries.items()} == case["deliveries"]
    assert ready.transcript.digest == unhex(case["transcript"])
    call = secagg.RoundCall(
        slot=case["call"]["slot"],
        cohort=tuple(case["call"]["cohort"]),
        model_digest=unhex(case["call"]["model_digest"]),
        config_digest=unhex(case["call"]["config_digest"]),
    )
    round_ = secagg.RoundCollector(ready, call, length=len(case["total"]))
    for site, header in case["headers"].items():
        round_.add_input(unhex(header), unhex(case["payloads"][site]))
    assert round_.close_inputs() == unhex(case["survivor_list"])
    for vote in case["votes"].values():
        round_.add_vote(unhex(vote))
    assert round_.close_votes() == unhex(case["vote_list"])
    for shares in case["shares"].values():
        round_.add_shares(unhex(shares))
    result = round_.finish()
    assert (
        result.total.tolist() == case["total"] == [sum(column) for column in zip(*case["inputs"].values(), strict=True)]
    )
    assert list(result.survivors) == case["survivors"]
    assert list(result.dropped) == case["dropped"]


def test_no_shares_message_of_the_round_opens_a_site_twice():
    for content in LOADED["round"]["shares"].values():
        message = UnmaskShares.decode(unhex(content))
        assert [dealer for dealer, _ in message.self_mask] == LOADED["round"]["self_mask_dealers"] == [1, 2, 4]
        assert [dealer for dealer, _ in message.mask_key] == LOADED["round"]["mask_key_dealers"] == [3]


@pytest.mark.parametrize("case", LOADED["refusals"]["bad"], ids=lambda case: case["name"])
def test_bad_messages_are_refused_by_the_rule_they_name(case, broken_rule):
    state = secagg.SiteState.decode(unhex(case["state"]))
    seed = hashlib.shake_256(f"signing key lab-{state.site:02d}/1".encode()).digest(32)
    with broken_rule(case["rule"]):
        STEPS[case["step"]](state, unhex(case["message"]), secagg.SigningKey(secagg.Seed(seed)))


def test_the_files_are_what_the_script_writes(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("make_secagg_v1", FOLDER / "make_secagg_v1.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "HERE", tmp_path)
    script.main()
    assert {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")} == LOADED
