"""What is not in the profile ``fips`` has one place in the source, and nothing else reaches for it."""

import ast
from pathlib import Path

import pytest

import fedsci

ROOT = Path(fedsci.__file__).parent
ONLY_IN = ROOT / "secagg" / "profile_default.py"
OUTSIDE = ("x25519", "ed25519", "x448", "ed448", "chacha20", "chacha20poly1305")


def reached_for(source: str) -> list[str]:
    """Return the primitives outside ``fips`` that a module imports from ``cryptography`` or names as its attribute."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [f"cryptography.{node.attr}"]
        found += [
            name for name in names if name.startswith("cryptography") and any(part in name.lower() for part in OUTSIDE)
        ]
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_default_profile_imports_what_fips_does_not_have(path):
    assert bool(reached_for(path.read_text())) is (path == ONLY_IN)


@pytest.mark.parametrize(
    "source",
    [
        "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey",
        "from cryptography.hazmat.primitives.asymmetric import x25519 as curve",
        "import cryptography.hazmat.primitives.asymmetric.x25519",
        "from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305",
        "aead.ChaCha20Poly1305(key)",
        "algorithms.ChaCha20(key, nonce)",
    ],
)
def test_the_look_at_imports_sees_every_way_there_is(source):
    assert reached_for(source)
