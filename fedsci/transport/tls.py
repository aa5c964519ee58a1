"""Mutual TLS between sites and coordinator: TLS 1.3, one private certificate authority, revocation.

The coordinator's side is read from its files for every new connection, so a revoked or renewed certificate counts from
the next handshake on, without a restart.
"""

import contextlib
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedsci.errors import ConfigError, InputError
from fedsci.names import SiteId, site_id


@dataclass(frozen=True, kw_only=True)
class CoordinatorTls:
    """The coordinator's TLS files, all PEM.

    Attributes:
        certificate: the coordinator's own, with the name or address that sites use among its alternative names.
        key: its private key.
        ca: the consortium's root certificate; the only one that is trusted.
        crl: the root's list of revoked certificates. It must exist (empty at first); out of date, nobody is let in.
    """

    certificate: Path
    key: Path
    ca: Path
    crl: Path

    @classmethod
    def in_folder(cls, folder: Path) -> "CoordinatorTls":
        """Return the files under their usual names in a folder."""
        return cls(
            certificate=folder / "server.crt", key=folder / "server.key", ca=folder / "ca.crt", crl=folder / "crl"
        )


@dataclass(frozen=True, kw_only=True)
class SiteTls:
    """A site's TLS files, all PEM.

    Attributes:
        certificate: names the site (its common name).
        key: its private key, P-256; it also signs the site's Flower calls.
        ca: the consortium's root certificate; the only one that is trusted.
    """

    certificate: Path
    key: Path
    ca: Path

    @classmethod
    def in_folder(cls, folder: Path) -> "SiteTls":
        """Return the files under their usual names in a folder."""
        return cls(certificate=folder / "site.crt", key=folder / "site.key", ca=folder / "ca.crt")

    def context(self) -> ssl.SSLContext:
        """Return the client context: shows the site's certificate, trusts only the consortium's root.

        Raises:
            ConfigError: a file is missing or does not fit.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        _load(lambda: context.load_verify_locations(cafile=str(self.ca)), self.ca)
        _load(lambda: context.load_cert_chain(str(self.certificate), str(self.key)), self.certificate)
        return context

    def private_key(self) -> ec.EllipticCurvePrivateKey:
        """Return the site's key.

        Raises:
            ConfigError: it is missing, or no elliptic-curve key.
        """
        key: Any = None
        with contextlib.suppress(OSError, ValueError, TypeError):
            key = serialization.load_pem_private_key(self.key.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"{self.key} holds no P-256 private key")
        return key


def identity_of(certificate: x509.Certificate) -> tuple[SiteId, bytes]:
    """Return the site a certificate names and its public key, PEM as Flower writes it.

    Raises:
        InputError: it names no site, or its key is no elliptic-curve key.
    """
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    key = certificate.public_key()
    if len(names) != 1 or not isinstance(key, ec.EllipticCurvePublicKey):
        raise InputError("a certificate that names no site, or whose key is not P-256")
    public = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return site_id(str(names[0].value)), public


class ReloadingContext(ssl.SSLContext):
    """A server context that demands client certificates and reads its files anew when they have changed.

    A file that cannot be read closes the door: a connection is refused rather than let in on an old list.
    """

    _files: CoordinatorTls
    _stamps: tuple[Any, ...]
    _current: ssl.SSLContext
    _revoked: frozenset[int]
    _lock: threading.Lock

    @classmethod
    def of(cls, files: CoordinatorTls) -> "ReloadingContext":
        """Return the context of these files.

        Raises:
            ConfigError: a file is missing or does not fit.
        """
        self = cls(ssl.PROTOCOL_TLS_SERVER)
        self._files, self._lock, self._stamps = files, threading.Lock(), ()
        self._refresh()
        return self

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin one connection, by the files as they are now."""
        return self._refresh()[0].wrap_bio(*args, **kwargs)

    def is_revoked(self, serial: int) -> bool:
        """Say whether a certificate of this serial number is on the list as it is now."""
        return serial in self._refresh()[1]

    def _refresh(self) -> tuple[ssl.SSLContext, frozenset[int]]:
        files = self._files
        with self._lock:
            stamps = tuple(_stamp(path) for path in (files.certificate, files.key, files.ca, files.crl))
            if stamps != self._stamps:
                self._current, self._revoked = _server_context(files)
                self._stamps = stamps
            return self._current, self._revoked


def _server_context(files: CoordinatorTls) -> tuple[ssl.SSLContext, frozenset[int]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    _load(lambda: context.load_cert_chain(str(files.certificate), str(files.key)), files.certificate)
    _load(lambda: context.load_verify_locations(cafile=str(files.ca)), files.ca)
    _load(lambda: context.load_verify_locations(cafile=str(files.crl)), files.crl)
    revoked: frozenset[int] = frozenset()
    try:
        revoked = frozenset(entry.serial_number for entry in x509.load_pem_x509_crl(files.crl.read_bytes()))
    except (OSError, ValueError):
        _refuse(files.crl, "it is no list of revoked certificates in PEM")
    return context, revoked


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        _refuse(path, error.strerror or "unreadable")
    return status.st_mtime_ns, status.st_size, status.st_ino


def _load(action: Any, path: Path) -> None:
    try:
        action()
    except ssl.SSLError as error:
        _refuse(path, error.reason or "not what OpenSSL expects")
    except OSError as error:
        _refuse(path, error.strerror or "unreadable")


def _refuse(path: Path, problem: str) -> Any:
    raise ConfigError(f"cannot use {path} for TLS: {problem}")
