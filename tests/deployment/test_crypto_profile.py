"""A masked, private study between processes in the crypto profile ``fips``, in which nothing else can be made."""

import json
import os

import pytest

# read by every process that starts: what the profile does not have ends it, or the call that asked for it
FORBIDDEN = """
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519
from cryptography.hazmat.primitives.ciphers import aead, algorithms

def refuse(*_, **__):
    raise RuntimeError("outside the crypto profile")

for kind in (ed25519.Ed25519PrivateKey, x25519.X25519PrivateKey):
    kind.generate = kind.from_private_bytes = refuse
for kind in (ed25519.Ed25519PublicKey, x25519.X25519PublicKey):
    kind.from_public_bytes = refuse
aead.ChaCha20Poly1305 = algorithms.ChaCha20.__init__ = refuse
"""


@pytest.mark.slow
def test_three_labs_finish_a_study_in_fips_and_refuse_one_that_asks_for_the_default(deploy, monkeypatch):
    consortium = deploy()
    (consortium.folder / "sitecustomize.py").write_text(FORBIDDEN)
    paths = [str(consortium.folder), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    consortium.found("--crypto-profile", "fips")
    for lab in consortium.study.labs:
        assert consortium.json("site", "identity", f"{lab}.yaml")["crypto_profile"] == "fips"
        consortium.start_site(lab)
    outcome = consortium.submit("--wait", "--json")
    assert outcome.code == 0, outcome.err + consortium.said()
    summary = json.loads(outcome.out)
    assert (summary["status"], summary["rounds_completed"]) == ("completed", 3)
    assert summary["secure_aggregation"]["crypto_profile"] == "fips"
    refused = consortium.submit("--set", "secure_aggregation.crypto_profile=default", "--wait", "--json")
    assert refused.code == 5, refused.out + refused.err + consortium.said()
    assert "crypto profile fips, not of default" in refused.err + refused.out
