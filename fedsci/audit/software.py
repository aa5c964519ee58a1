"""Which software runs here, as one digest: the same release with the same libraries gives the same everywhere."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import fedsci
from fedsci import __version__
from fedsci.audit.statement import digest_of
from fedsci.names import Digest

#: The libraries on whose version results and guarantees rest.
LIBRARIES = ("cryptography", "flwr", "numpy", "opacus", "torch")


@dataclass(frozen=True, kw_only=True)
class Software:
    """What runs.

    Attributes:
        version: fedsci's.
        digest: over the version, the SHA-256 of every source file of the package and the versions of ``LIBRARIES``.
    """

    version: str
    digest: Digest


@lru_cache(maxsize=1)
def software() -> Software:
    """Return what runs in this process; read once, so that an update shows only after a restart."""
    root = Path(fedsci.__file__).parent
    sources = {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.py")
    }
    libraries = {name: _version(name) for name in LIBRARIES}
    return Software(
        version=__version__,
        digest=digest_of({"version": __version__, "sources": sources, "libraries": libraries}),
    )


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
