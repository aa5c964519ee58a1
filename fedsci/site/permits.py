"""The permits of a site, as files in its state folder: one each, and a mark for each that was used, for good."""

import os
from pathlib import Path

from fedsci.audit.statement import digest_of, peek
from fedsci.errors import VerificationFailed
from fedsci.identity.files import replace_private
from fedsci.names import Digest
from fedsci.site.permit import Permit, PermitRefused


class Permits:
    """Permits in ``permits/`` of a state folder.

    Args:
        state: the site's state folder.
    """

    def __init__(self, state: Path) -> None:
        self._folder = state / "permits"

    def keep(self, content: bytes) -> tuple[Digest, Path]:
        """Keep an envelope, in place of one with fewer signatures; return the permit's digest and the file."""
        digest = digest_of(dict(peek(content)[1]))
        path = self.path(digest)
        replace_private(path, content)
        return digest, path

    def read(self, digest: str) -> bytes:
        """Return the envelope of a permit.

        Raises:
            PermitRefused: it is not there, or is another.
        """
        path = self.path(digest)
        try:
            content = path.read_bytes()
            if digest_of(dict(peek(content)[1])) == digest:
                return content
            problem = "is not the one that was decided on"
        except (OSError, VerificationFailed) as error:
            problem = f"cannot be read ({error.strerror if isinstance(error, OSError) else error.message})"
        raise PermitRefused(
            "digest", f"permit: digest: the permit {problem}", hint=f"approve the study again; the file is {path}"
        )

    def path(self, digest: str) -> Path:
        """Return the file of a permit."""
        return self._folder / f"{digest.removeprefix('sha256:')}.json"

    def use(self, permit: Permit, run: str) -> None:
        """Use a permit up, durably, for one run.

        Raises:
            PermitRefused: it was used before.
        """
        used = self._folder / "used"
        used.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = used / permit.nonce
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise PermitRefused("run", "permit: run: it was used for another run, and is for one") from None
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(run)
                file.flush()
                os.fsync(file.fileno())
        except OSError:  # a full disk: nothing was charged, so the permit is still good
            path.unlink(missing_ok=True)
            raise
        folder = os.open(used, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def check_used(self, permit: Permit, run: str) -> None:
        """Pass if this run is the one that the permit was used for.

        Raises:
            PermitRefused: it is another, or there is none.
        """
        try:
            used = (self._folder / "used" / permit.nonce).read_text(encoding="ascii")
        except (OSError, ValueError):
            used = ""
        if used != run:
            raise PermitRefused("run", "permit: run: it was not used for this run, and is for one")
