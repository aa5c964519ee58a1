"""The privacy officer's key and signature: nobody else changes a budget or takes a strange ledger as the site's own.

A key in a file of its own, readable by its owner only. Its public half is written in the site file
(``officer:``), which is the safe way, or pinned by the ledger with the first change that is signed.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsci.errors import InputError, PolicyRefused, ProtocolError
from fedsci.identity.files import write_private
from fedsci.secagg import Seed, SigningKey
from fedsci.secagg.keys import check_signature
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import DEFAULT, profile_of_seed, require_profile
from fedsci.site.keystore import random_seed

_LABEL = "ledger change"


def default_key_path() -> Path:
    """Return where the officer's key lies unless told otherwise."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "fedsci" / "officer.key"


def officer_key(path: Path, profile: Profile = DEFAULT) -> tuple[SigningKey, bool]:
    """Return the key in ``path``, and whether it was made just now, of the site's crypto profile.

    Raises:
        InputError: the file cannot be read or written, or is no key.
        PolicyRefused: others may read it.
        ProtocolError: ``wrong-profile``: it is of another crypto profile.
    """
    try:
        fresh = not path.exists()
        if fresh:
            write_private(path, random_seed(profile))
        if path.stat().st_mode & 0o077:
            raise PolicyRefused(f"the officer's key {path} is open to other users", hint=f"chmod 600 {path}")
        seed = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"the officer's key {path}: {error.strerror}", hint="name a file of your own with --key"
        ) from None
    if profile_of_seed(seed) is None:
        raise InputError(
            f"{path} is not an officer's key", hint="a key has 32 bytes, or 48 in fips; name another with --key"
        )
    key = SigningKey(Seed(seed))
    require_profile(key.profile, profile, f"the officer's key {path}")
    return key, fresh


def sign(key: SigningKey, content: Mapping[str, Any]) -> str:
    """Return the signature over ``content`` as canonical JSON, in hex."""
    return key.sign(_LABEL, _canonical(content)).hex()


def is_signed(content: Mapping[str, Any], *, public: str, signature: str) -> bool:
    """Return whether ``public`` signed ``content``; both in hex."""
    try:
        check_signature(
            bytes.fromhex(public), _LABEL, _canonical(content), bytes.fromhex(signature), rule="officer", who="officer"
        )
    except (ProtocolError, ValueError):
        return False
    return True


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
