"""Mutual TLS between sites and coordinator: TLS 1.3, one private certificate authority, revocation.

The coordinator's side is read from its files for every new connection, so a revoked or renewed certificate counts from
the next handshake on, without a restart.
"""

import contextlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedsci.errors import ConfigError, InputError
from fedsci.identity.certificates import DAMAGED
from fedsci.identity.tls import ClientTls, ServerTls
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

    def context(self) -> ServerTls:
        """Return the server context: demands client certificates, and reads the files anew when they have changed.

        Raises:
            ConfigError: a file is missing or does not fit.
        """
        return ServerTls.of(certificate=self.certificate, key=self.key, root=self.ca, revoked=self.crl)


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
        """Return the client context: shows the site's certificate, trusts only the consortium's root; reads both anew.

        Raises:
            ConfigError: a file is missing or does not fit.
        """
        return ClientTls.of(root=self.ca, certificate=self.certificate, key=self.key)

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
    try:
        names, key = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME), certificate.public_key()
    except DAMAGED:
        raise InputError("a certificate whose name or key is damaged") from None
    if len(names) != 1 or not isinstance(key, ec.EllipticCurvePublicKey):
        raise InputError("a certificate that names no site, or whose key is not P-256")
    public = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return site_id(str(names[0].value)), public
