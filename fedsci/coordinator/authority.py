"""The consortium's certificate authority: a root that can be kept offline, and an issuing key that stays.

The root (P-384, ten years) signs one thing, the issuing certificate (two years; P-256, or P-384 in the crypto profile
``fips``), and is then not needed until that runs out. The issuing key signs certificates of sites and of the
coordinator's server, and the list of those revoked. Everybody trusts the root. Certificates start an hour early, since
clocks differ. The server's is good for a week only, since sites see no revocation list: it costs nothing, as it is
renewed where it is used.
"""

import datetime
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedsci.errors import InputError
from fedsci.identity.address import is_ip
from fedsci.identity.certificates import (
    chain_pem,
    fingerprint,
    is_due,
    key_pem,
    new_key,
    profile_name,
    profile_of,
    public_der,
    read_chain,
    read_key,
    site_uri,
)
from fedsci.identity.files import replace_pair, replace_private, settle_pair
from fedsci.names import SiteId
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import DEFAULT

ROOT_DAYS, ISSUING_DAYS, SITE_DAYS, SERVER_DAYS, CRL_DAYS = 3653, 730, 90, 7, 30
BACKDATE = datetime.timedelta(hours=1)
Clock = Callable[[], datetime.datetime]


def utc_now() -> datetime.datetime:
    """Return the time, in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


@dataclass(frozen=True, kw_only=True)
class Revoked:
    """One line of the revocation list.

    Attributes:
        serial: of the certificate.
        at: when it was revoked.
    """

    serial: int
    at: datetime.datetime


class Authority:
    """Issues and revokes, in the coordinator's folder.

    Args:
        folder: holds ``ca.crt``, ``issuing.key``, ``issuing.crt``, ``server.key``, ``server.crt``, ``crl`` and,
            until it is taken away, ``ca.key``.
        clock: returns the time, in UTC.
        site_days: how long certificates of sites are good; the server's no longer than that.

    Raises:
        InputError: the folder holds no authority.
    """

    def __init__(self, folder: Path, *, clock: Clock = utc_now, site_days: float = SITE_DAYS) -> None:
        self.folder, self._clock, self._site_days = folder, clock, site_days
        if not self.root_path.exists():
            raise InputError(f"{folder} holds no consortium", hint=f"fedsci coordinator init --dir {folder}")
        self.root = read_chain(self.root_path)[0]

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        hosts: Sequence[str],
        passphrase: str | None = None,
        clock: Clock = utc_now,
        site_days: float = SITE_DAYS,
        profile: Profile = DEFAULT,
    ) -> "Authority":
        """Make the root, the issuing key, the server's certificate and an empty revocation list.

        What a former authority left in the folder is replaced: its certificates lead nowhere any more.

        Args:
            folder: where.
            hosts: names and IP addresses that the server answers to; ``localhost`` is added.
            passphrase: encrypts the root's key.
            clock: returns the time, in UTC.
            site_days: as above.
            profile: the consortium's crypto profile; the root and the issuing certificate say so.
        """
        key, name = new_key(ec.SECP384R1()), _name("fedsci consortium root", profile)
        builder = _builder(name, key.public_key(), clock(), ROOT_DAYS)
        builder = _as_authority(builder, path_length=1).issuer_name(name)
        root = _with_keys(builder, key.public_key(), key.public_key()).sign(key, SHA384())
        replace_private(folder / "ca.key", key_pem(key, passphrase=passphrase))
        curve = ec.SECP256R1() if profile is DEFAULT else ec.SECP384R1()
        replace_private(folder / "issuing.key", key_pem(new_key(curve)))
        replace_private(folder / "ca.crt", chain_pem(root))
        authority = cls(folder, clock=clock, site_days=site_days)
        authority.renew_issuing(key)
        authority.renew_server(hosts)
        authority.write_crl((), number=1)
        return authority

    @property
    def root_path(self) -> Path:
        """The root certificate, PEM."""
        return self.folder / "ca.crt"

    @property
    def crl_path(self) -> Path:
        """The revocation list, PEM."""
        return self.folder / "crl"

    @property
    def server_pair(self) -> tuple[Path, Path]:
        """The server's certificate (with the issuing one) and its key."""
        return self.folder / "server.crt", self.folder / "server.key"

    @property
    def issuing(self) -> x509.Certificate:
        """The issuing certificate, as it is on disk now."""
        return read_chain(self.folder / "issuing.crt")[0]

    def root_key(self, path: Path | None = None, *, passphrase: str | None = None) -> ec.EllipticCurvePrivateKey:
        """Return the root's private key, from ``path`` if it is kept elsewhere.

        Raises:
            InputError: it is not there, or belongs to another root.
        """
        place = path or self.folder / "ca.key"
        if not place.exists():
            raise InputError(
                f"the root's key is not at {place}",
                hint="bring it from where it is kept, and name it with --ca-key FILE",
            )
        key = read_key(place, passphrase=passphrase)
        if _spki(key.public_key()) != _spki(self.root.public_key()):
            raise InputError(
                f"{place} is not the key of {self.root_path}", hint="name the right file with --ca-key FILE"
            )
        return key

    def renew_issuing(self, root_key: ec.EllipticCurvePrivateKey) -> None:
        """Certify the issuing key for two years from now; the key stays, so all it signed stays good."""
        key = self._issuing_key().public_key()
        name = _name("fedsci issuing", profile_of(self.root))
        builder = _builder(name, key, self._clock(), ISSUING_DAYS, until=self.root.not_valid_after_utc)
        builder = _as_authority(builder, path_length=0).issuer_name(self.root.subject)
        issued = _with_keys(builder, key, root_key.public_key()).sign(root_key, SHA384())
        replace_private(self.folder / "issuing.crt", chain_pem(issued))

    def issue_site(self, site: SiteId, key: ec.EllipticCurvePublicKey) -> tuple[x509.Certificate, bytes]:
        """Return a certificate for a site, and as PEM with the issuing one."""
        names = x509.SubjectAlternativeName([site_uri(site)])
        leaf = self._leaf(site, key, names, ExtendedKeyUsageOID.CLIENT_AUTH, self._site_days)
        return leaf, chain_pem(leaf, self.issuing)

    def renew_server(self, hosts: Iterable[str]) -> None:
        """Make a new key and certificate for the server."""
        listed = dict.fromkeys([*hosts, "localhost", "127.0.0.1"])
        names = x509.SubjectAlternativeName(
            [x509.IPAddress(ipaddress.ip_address(one)) if is_ip(one) else x509.DNSName(one) for one in listed]
        )
        key = new_key(ec.SECP256R1() if profile_of(self.root) is DEFAULT else ec.SECP384R1())
        days = min(SERVER_DAYS, self._site_days)
        leaf = self._leaf("fedsci coordinator", key.public_key(), names, ExtendedKeyUsageOID.SERVER_AUTH, days)
        certificate, private = self.server_pair
        replace_pair(private, key_pem(key), certificate, chain_pem(leaf, self.issuing))

    def server_certificate(self) -> x509.Certificate:
        """Return the server's certificate."""
        certificate, key = self.server_pair
        settle_pair(key, certificate)
        return read_chain(certificate)[0]

    def write_crl(self, revoked: Iterable[Revoked], *, number: int) -> None:
        """Replace the revocation list; servers read it at their next handshake.

        Among lists in one context OpenSSL goes by the one with the later ``lastUpdate``, which counts seconds, so every
        list is at least a second later than the one before.
        """
        updated = self._clock() - BACKDATE
        if self.crl_path.exists():
            updated = max(updated, self.crl().last_update_utc + datetime.timedelta(seconds=1))
        key = self._issuing_key()
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.issuing.subject).last_update(updated)
        builder = builder.next_update(self._clock() + datetime.timedelta(days=CRL_DAYS))
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
        builder = builder.add_extension(_authority_identifier(key.public_key()), critical=False)
        for one in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(one.serial).revocation_date(one.at)
            builder = builder.add_revoked_certificate(entry.build())
        signed = builder.sign(key, _hash_for(key))
        replace_private(self.crl_path, signed.public_bytes(serialization.Encoding.PEM))

    def crl(self) -> x509.CertificateRevocationList:
        """Return the revocation list.

        Raises:
            InputError: its file is damaged.
        """
        try:
            return x509.load_pem_x509_crl(self.crl_path.read_bytes())
        except ValueError:
            raise InputError(
                f"{self.crl_path} is damaged", hint="restore the coordinator's folder from a backup"
            ) from None

    def due(self, certificate: x509.Certificate) -> bool:
        """Return whether a third or less of a certificate's lifetime is left."""
        return is_due(certificate, self._clock())

    def _issuing_key(self) -> ec.EllipticCurvePrivateKey:
        return read_key(self.folder / "issuing.key")

    def _leaf(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        names: x509.SubjectAlternativeName,
        usage: x509.ObjectIdentifier,
        days: float,
    ) -> x509.Certificate:
        issuer, issuing_key = self.issuing, self._issuing_key()
        if issuer.not_valid_after_utc <= self._clock():
            raise InputError(
                f"the issuing certificate ran out on {issuer.not_valid_after_utc:%Y-%m-%d}",
                hint="renew it with the root's key: fedsci coordinator renew-ca --ca-key FILE",
            )
        builder = _builder(_name(name), key, self._clock(), days, until=issuer.not_valid_after_utc)
        builder = builder.issuer_name(issuer.subject).add_extension(names, critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signature=True), critical=True)
        return _with_keys(builder, key, issuing_key.public_key()).sign(issuing_key, _hash_for(issuing_key))


def describe_root(root: x509.Certificate) -> str:
    """Return the root's fingerprint as people compare it."""
    return f"sha256:{fingerprint(root).hex()}"


def _builder(
    name: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    days: float,
    *,
    until: datetime.datetime | None = None,
) -> x509.CertificateBuilder:
    lifetime = datetime.timedelta(days=days)
    end = now + lifetime
    builder = x509.CertificateBuilder().subject_name(name).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - min(BACKDATE, lifetime)).not_valid_after(min(end, until or end))


def _as_authority(builder: x509.CertificateBuilder, *, path_length: int) -> x509.CertificateBuilder:
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    return builder.add_extension(_usage(signature=False), critical=True)


def _with_keys(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePublicKey, issuer: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    return builder.add_extension(_authority_identifier(issuer), critical=False)


def _authority_identifier(issuer: ec.EllipticCurvePublicKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer)


def _usage(*, signature: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signature,
        key_cert_sign=not signature,
        crl_sign=not signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str, profile: Profile = DEFAULT) -> x509.Name:
    return x509.Name([*profile_name(profile), x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _hash_for(key: ec.EllipticCurvePrivateKey) -> SHA256 | SHA384:
    return SHA384() if key.curve.key_size > 256 else SHA256()


def _spki(key: object) -> bytes:
    return public_der(key) if isinstance(key, ec.EllipticCurvePublicKey) else b""
