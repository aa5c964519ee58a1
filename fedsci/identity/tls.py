"""TLS 1.3 contexts of both ends. A server's reads new certificates and revocations at the next handshake."""

import ssl
from pathlib import Path

from fedsci.identity.files import settle_pair


class ServerTls:
    """A server's side of TLS.

    The certificate and the revocation list may be replaced while the server runs: every handshake looks whether the
    files changed. A list that is missing, damaged or out of date refuses everybody. Sessions are not resumed,
    since a resumed one would not be checked again; a connection that is open already stays open.

    Attributes:
        context: for ``uvicorn`` (``ssl_context_factory``) or ``asyncio``.

    Args:
        certificate: PEM file, the leaf and what leads to the root.
        key: its private key.
        root: PEM file; with it, clients must show a certificate under this root.
        revoked: PEM file of the revocation list of those who issue client certificates; needed with ``root``.
    """

    def __init__(self, *, certificate: Path, key: Path, root: Path | None = None, revoked: Path | None = None) -> None:
        self._certificate, self._key, self._revoked = certificate, key, revoked
        self._seen: dict[Path, tuple[int, int]] = {}
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.context.num_tickets = 0
        self.context.options |= ssl.OP_NO_TICKET
        if root is not None:
            self.context.verify_mode = ssl.CERT_REQUIRED
            self.context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_X509_STRICT
            self.context.load_verify_locations(cafile=root)
        self.reload()
        self.context.sni_callback = self._at_handshake

    def reload(self) -> None:
        """Read what changed on disk."""
        settle_pair(self._key, self._certificate)
        if self._changed(self._certificate):
            self.context.load_cert_chain(self._certificate, self._key)
        if self._revoked is not None and self._changed(self._revoked):
            self.context.load_verify_locations(cafile=self._revoked)

    def _changed(self, path: Path) -> bool:
        about = path.stat()
        now = (about.st_ino, about.st_mtime_ns)
        changed = self._seen.get(path) != now
        self._seen[path] = now
        return changed

    def _at_handshake(self, _: ssl.SSLObject, __: str | None, ___: ssl.SSLContext) -> int | None:
        try:
            self.reload()
        except (OSError, ssl.SSLError):
            self._seen.clear()  # look again next time
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        return None


def client_context(root: bytes, *, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Return a client's context that trusts one root and checks the server's name.

    Args:
        root: PEM text.
        certificate, key: what the client shows, as PEM files; both or neither.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=root.decode("ascii"))
    if certificate is not None and key is not None:
        context.load_cert_chain(certificate, key)
    return context
