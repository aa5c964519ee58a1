"""TLS 1.3 contexts of both ends. A server's reads new certificates and revocations before the next handshake."""

import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from cryptography import x509

from fedsci.errors import ConfigError
from fedsci.identity.files import settle_pair


class ServerTls(ssl.SSLContext):
    """A server's context. Its files may be replaced while the server runs: every connection begins by those of then.

    A file that is missing or damaged, and a revocation list that is out of date, refuse everybody. Sessions are not
    resumed, since a resumed one would not be checked again; a connection that is open already stays open.
    """

    _files: tuple[Path, Path, Path | None, Path | None]
    _stamps: tuple[Any, ...]
    _current: ssl.SSLContext
    _revoked: frozenset[int]
    _lock: threading.Lock

    @classmethod
    def of(cls, *, certificate: Path, key: Path, root: Path | None = None, revoked: Path | None = None) -> "ServerTls":
        """Return the context of these files, all PEM.

        Args:
            certificate: the leaf and what leads to the root.
            key: its private key.
            root: with it, clients must show a certificate under this root.
            revoked: the revocation list of those who issue client certificates; needed with ``root``.

        Raises:
            ConfigError: a file is missing or does not fit; a root without a list of the revoked.
        """
        if (root is None) != (revoked is None):
            raise ConfigError("clients' certificates are checked against a root and a revocation list, both or neither")
        self = cls(ssl.PROTOCOL_TLS_SERVER)
        self._files, self._lock, self._stamps = (certificate, key, root, revoked), threading.Lock(), ()
        self._refresh()
        return self

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin one connection, by the files as they are now."""
        return self._refresh()[0].wrap_bio(*args, **kwargs)

    def is_revoked(self, serial: int) -> bool:
        """Say whether a certificate of this serial number is on the list as it is now."""
        return serial in self._refresh()[1]

    def _refresh(self) -> tuple[ssl.SSLContext, frozenset[int]]:
        with self._lock:
            stamps = self._stamp()
            while stamps != self._stamps:
                try:
                    self._current, self._revoked = _context(*self._files)
                    self._stamps = stamps
                except ConfigError:
                    before, stamps = stamps, self._stamp()
                    if stamps == before:  # else somebody was replacing them meanwhile
                        raise
            return self._current, self._revoked

    def _stamp(self) -> tuple[Any, ...]:
        settle_pair(self._files[1], self._files[0])
        return tuple(_about(path) for path in self._files if path is not None)


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


def load(action: Callable[[], Any], path: Path) -> Any:
    """Return what an action on a TLS file returns.

    Raises:
        ConfigError: it cannot be used; names the file.
    """
    try:
        return action()
    except ssl.SSLError as error:
        refuse_file(path, error.reason or "not what OpenSSL expects")
    except OSError as error:
        refuse_file(path, error.strerror or "unreadable")
    except ValueError:
        refuse_file(path, "it is not PEM")


def refuse_file(path: Path, problem: str) -> NoReturn:
    """Raise that a TLS file cannot be used."""
    raise ConfigError(f"cannot use {path} for TLS: {problem}")


def _context(
    certificate: Path, key: Path, root: Path | None, revoked: Path | None
) -> tuple[ssl.SSLContext, frozenset[int]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    load(lambda: context.load_cert_chain(certificate, key), certificate)
    if root is None or revoked is None:
        return context, frozenset()
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_X509_STRICT
    load(lambda: context.load_verify_locations(cafile=root), root)
    load(lambda: context.load_verify_locations(cafile=revoked), revoked)
    listed = load(lambda: x509.load_pem_x509_crl(revoked.read_bytes()), revoked)
    return context, frozenset(entry.serial_number for entry in listed)


def _about(path: Path) -> tuple[int, int, int]:
    status = load(path.stat, path)
    return status.st_mtime_ns, status.st_size, status.st_ino
