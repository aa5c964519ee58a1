"""TLS 1.3 contexts of both ends. A server's reads new certificates and revocations before the next handshake."""

import contextlib
import ssl
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from cryptography import x509

from fedsci.errors import ConfigError
from fedsci.identity.certificates import parse_chain, profile_of, read_chain
from fedsci.identity.files import settle_pair
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import FIPS

_AES_GCM = ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256")


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
                    self._current, self._revoked = _server(*self._files)
                    self._stamps = stamps
                except ConfigError:
                    before, stamps = stamps, self._stamp()
                    if stamps == before:  # else somebody was replacing them meanwhile
                        raise
            return self._current, self._revoked

    def _stamp(self) -> tuple[Any, ...]:
        settle_pair(self._files[1], self._files[0])
        return tuple(load(partial(_about, path), path) for path in self._files if path is not None)


class ClientTls(ssl.SSLContext):
    """A client's context. What it shows may be replaced while it is used: every connection begins by the files of then.

    If they cannot be read, the certificate of the last connection is shown.
    """

    _files: tuple[Path, Path, Path]
    _stamps: tuple[Any, ...]
    _current: ssl.SSLContext
    _lock: threading.Lock

    @classmethod
    def of(cls, *, root: Path, certificate: Path, key: Path) -> "ClientTls":
        """Return the context.

        Args:
            root: the only root that is trusted; like the others a PEM file.
            certificate, key: what the client shows.

        Raises:
            ConfigError: a file is missing or does not fit.
        """
        self = cls(ssl.PROTOCOL_TLS_CLIENT)
        self._files, self._lock, self._stamps = (root, certificate, key), threading.Lock(), ()
        trusted = load(root.read_bytes, root)
        load(lambda: client_context(trusted), root)
        self._current = load(lambda: client_context(trusted, certificate=certificate, key=key), certificate)
        return self

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """Begin one connection, by the files as they are now."""
        return self._refresh().wrap_socket(*args, **kwargs)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin one connection, by the files as they are now."""
        return self._refresh().wrap_bio(*args, **kwargs)

    def _refresh(self) -> ssl.SSLContext:
        root, certificate, key = self._files
        with self._lock, contextlib.suppress(OSError, ValueError):  # of OSError, SSLError is one
            stamps = tuple(_about(path) for path in self._files)
            if stamps != self._stamps:
                self._current = client_context(root.read_bytes(), certificate=certificate, key=key)
                self._stamps = stamps
        return self._current


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
    restrict(context, profile_of(parse_chain(root, where="the root")[0]))
    if certificate is not None and key is not None:
        context.load_cert_chain(certificate, key)
    return context


def restrict(context: ssl.SSLContext, profile: Profile) -> None:
    """Let a context agree on nothing outside ``profile``.

    In ``fips``: keys are agreed on over P-384 alone. Python cannot choose among TLS 1.3's ciphers, so that AES-GCM is
    in use is checked when a handshake ends, before anything is sent or read: another cipher is an ``SSLError``.
    """
    if profile is FIPS:
        context.set_ecdh_curve("secp384r1")
        context.sslsocket_class, context.sslobject_class = _CheckedSocket, _CheckedObject


def _check_cipher(cipher: tuple[str, str, int] | None) -> None:
    name = cipher[0] if cipher else "none"
    if name not in _AES_GCM:
        raise ssl.SSLError(f"wrong-profile: the cipher {name} is not of the crypto profile fips")


class _CheckedSocket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        _check_cipher(self.cipher())


class _CheckedObject(ssl.SSLObject):
    def do_handshake(self) -> None:
        super().do_handshake()
        _check_cipher(self.cipher())


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


def _server(
    certificate: Path, key: Path, root: Path | None, revoked: Path | None
) -> tuple[ssl.SSLContext, frozenset[int]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    load(lambda: context.load_cert_chain(certificate, key), certificate)
    restrict(context, profile_of(read_chain(certificate)[0]))
    if root is None or revoked is None:
        return context, frozenset()
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_X509_STRICT
    load(lambda: context.load_verify_locations(cafile=root), root)
    load(lambda: context.load_verify_locations(cafile=revoked), revoked)
    listed = load(lambda: x509.load_pem_x509_crl(revoked.read_bytes()), revoked)
    return context, frozenset(entry.serial_number for entry in listed)


def _about(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
