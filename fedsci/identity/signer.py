"""A person's signing key: 32 bytes in a file of their own, which only they may read.

An officer's key file of ``fedsci privacy set`` is one, too.
"""

import secrets
from pathlib import Path

from fedsci.errors import InputError, PolicyRefused
from fedsci.identity.files import write_private
from fedsci.secagg import Seed, SigningKey
from fedsci.secagg.keys import KEY_BYTES


def new_signer(path: Path) -> SigningKey:
    """Make a key in ``path`` and return it; a file that is there is never replaced.

    Raises:
        InputError: the file is there already, or cannot be written.
    """
    if path.exists():
        raise InputError(f"{path} exists already", hint="name another file, or: fedsci signer show FILE")
    try:
        write_private(path, secrets.token_bytes(KEY_BYTES))
    except OSError as error:
        raise _unusable(path, error) from None
    return read_signer(path)


def read_signer(path: Path) -> SigningKey:
    """Return the key in ``path``.

    Raises:
        InputError: the file cannot be read, or is no key.
        PolicyRefused: others may read it.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise PolicyRefused(f"the key {path} is open to other users", hint=f"chmod 600 {path}")
        seed = path.read_bytes()
    except OSError as error:
        raise _unusable(path, error) from None
    if len(seed) != KEY_BYTES:
        raise InputError(f"{path} is not a signer's key", hint="fedsci signer new FILE makes one")
    return SigningKey(Seed(seed))


def _unusable(path: Path, error: OSError) -> InputError:
    return InputError(f"the key {path}: {error.strerror}", hint="name a file of your own")
