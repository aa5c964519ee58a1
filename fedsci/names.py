"""The names that travel: sites, studies and digests, each checked once where it enters."""

import hashlib
import re
from typing import NewType

from fedsci.errors import InputError

SiteId = NewType("SiteId", str)
StudyId = NewType("StudyId", str)
Digest = NewType("Digest", str)

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")


def _check(kind: str, text: str) -> str:
    if not _NAME.fullmatch(text):
        raise InputError(
            f"{kind} name {text!r} is not usable",
            hint="use 1 to 64 lower-case letters, digits, '.', '_' or '-', starting and ending with a letter or digit",
        )
    return text


def site_id(text: str) -> SiteId:
    """Return ``text`` as a site name; it is safe in file names and logs.

    Raises:
        InputError: if it is empty, too long, or holds other characters.
    """
    return SiteId(_check("site", text))


def study_id(text: str) -> StudyId:
    """Return ``text`` as a study name; same rules as :func:`site_id`."""
    return StudyId(_check("study", text))


def digest(content: bytes) -> Digest:
    """Return the SHA-256 of ``content`` as ``sha256:<hex>`` (FIPS 180-4)."""
    return Digest("sha256:" + hashlib.sha256(content).hexdigest())


def is_unicode(text: str) -> bool:
    """Say whether a text is whole characters; JSON's and YAML's escapes, and a command line's bytes, may be halves.

    >>> is_unicode("é"), is_unicode("\\ud800")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
