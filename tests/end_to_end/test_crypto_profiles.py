"""``fedsci run`` in both crypto profiles: one model, each by its own primitives, and no way from one to the other."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.ciphers import aead, algorithms

FIPS = ("--set", "secure_aggregation.crypto_profile=fips")


class Reached(BaseException):
    """Something outside the profile was made; no handler of errors takes it for one."""


@pytest.fixture
def no_others(monkeypatch):
    """Every constructor of X25519, Ed25519 and ChaCha20 raises."""

    def refuse(*_, **__):
        raise Reached

    for kind in (ed25519.Ed25519PrivateKey, x25519.X25519PrivateKey):
        for name in ("generate", "from_private_bytes"):
            monkeypatch.setattr(kind, name, refuse)
    for kind in (ed25519.Ed25519PublicKey, x25519.X25519PublicKey):
        monkeypatch.setattr(kind, "from_public_bytes", refuse)
    monkeypatch.setattr(aead, "ChaCha20Poly1305", refuse)
    monkeypatch.setattr(algorithms.ChaCha20, "__init__", refuse)


def run(fedsci, out, *more):
    outcome = fedsci("run", "study.yaml", "--quiet", "--out", out, "--state", f"{out}-state", *more)
    assert outcome.code == 0, outcome.err
    return outcome


@pytest.mark.slow
def test_a_study_in_fips_reaches_for_nothing_else_and_gives_the_same_model(fedsci, study, monkeypatch, request):
    plain = run(fedsci, "default")
    assert fedsci.summary(plain)["secure_aggregation"]["crypto_profile"] == "default"
    request.getfixturevalue("no_others")
    strict = run(fedsci, "fips", *FIPS)
    summary = fedsci.summary(strict)
    assert summary["secure_aggregation"]["crypto_profile"] == "fips"
    assert summary["rounds_completed"] == 3
    models = [(fedsci.folder / one.folder / "model.safetensors").read_bytes() for one in (plain, strict)]
    assert models[0] == models[1]
    for lab in study.labs:
        assert len((fedsci.folder / "fips-state" / lab / "identity.key").read_bytes()) == 48
        assert len((fedsci.folder / "fips-state" / lab / "consortium.pub").read_bytes()) == 97


def test_the_check_would_see_a_study_that_reaches_for_the_others(fedsci, study, no_others):
    with pytest.raises(Reached):
        fedsci("run", "study.yaml", "--quiet", "--out", "runs")


def test_the_default_makes_no_key_of_p384(fedsci, study, monkeypatch):
    def refuse(*_, **__):
        raise Reached

    monkeypatch.setattr(ec, "derive_private_key", refuse)
    run(fedsci, "default")


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [("default", "fips"), ("fips", "default")])
def test_labs_keep_their_profile_for_life(fedsci, study, first, then):
    choose = "secure_aggregation.crypto_profile="
    common = ("run", "study.yaml", "--quiet", "--state", "labs", "--out", "runs", "--set")
    assert fedsci(*common, choose + first).code == 0
    refused = fedsci(*common, choose + then)
    assert refused.code == 2
    assert refused.error_line.endswith(f"are of the crypto profile {first}, not of {then}")
    assert "--state" in refused.hint_line
    again = fedsci(*common[:-1])  # a study that asks for none takes the labs as they are
    assert fedsci.summary(again)["secure_aggregation"]["crypto_profile"] == first


def test_a_study_names_a_profile_that_there_is(fedsci, study):
    outcome = fedsci("run", "study.yaml", "--quiet", "--set", "secure_aggregation.crypto_profile=fip")
    assert outcome.code == 2
    assert "default" in outcome.err
    assert "fips" in outcome.err
