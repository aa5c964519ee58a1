"""A certificate authority for tests: a P-384 root, P-256 leaves, as enrolment makes them."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)


class Authority:
    """Issues and revokes; ``folder`` gets ca.crt, crl, server.crt and server.key, and a folder for every site."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP384R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test consortium")])
        self._revoked: list[int] = []
        self._lists = 0
        now = datetime.now(UTC)
        self.root = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 365 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA384())
        )
        (folder / "ca.crt").write_bytes(_pem(self.root))
        self.publish()
        self._leaf(folder, "server", "coordinator", ExtendedKeyUsageOID.SERVER_AUTH)

    def site(self, name: str, *, days: tuple[int, int] = (-1, 30), server: bool = False) -> Path:
        """Return a folder with ca.crt, site.crt and site.key, valid from and to so many days from now."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "ca.crt").write_bytes(_pem(self.root))
        use = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        self._leaf(folder, "site", name, use, days=days)
        return folder

    def revoke(self, name: str) -> None:
        """Put a site's certificate on the list."""
        certificate = x509.load_pem_x509_certificate((self.folder / name / "site.crt").read_bytes())
        self._revoked.append(certificate.serial_number)
        self.publish()

    def publish(self, *, days: int = 30) -> None:
        """Write the list of revoked certificates, good for so many days."""
        now = datetime.now(UTC)
        self._lists += 1
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - 2 * DAY)
            .next_update(now + days * DAY)
            .add_extension(x509.CRLNumber(self._lists), critical=False)
        )
        for serial in self._revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            builder = builder.add_revoked_certificate(entry)
        new = self.folder / "crl.new"
        new.write_bytes(_pem(builder.sign(self._key, hashes.SHA384())))
        new.replace(self.folder / "crl")

    def _leaf(
        self, folder: Path, file: str, name: str, use: x509.ObjectIdentifier, *, days: tuple[int, int] = (-1, 30)
    ) -> None:
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + days[0] * DAY)
            .not_valid_after(now + days[1] * DAY)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA384())
        )
        (folder / f"{file}.crt").write_bytes(_pem(certificate))
        (folder / f"{file}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(item: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    return item.public_bytes(serialization.Encoding.PEM)
