"""Keys, signing requests and certificates of sites, and the check that one is what it should be.

P-256 and P-384 (FIPS 186-5), X.509 (RFC 5280), PKCS #10 (RFC 2986). A site's name stands in the subject's
common name for people and in a URI, ``fedsci:site/lab-03``, for programs.
"""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedsci.errors import InputError
from fedsci.identity.messages import refuse
from fedsci.names import SiteId, site_id
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import DEFAULT, PROFILES

RESTORE = "restore it, or enrol again"
_SITE = "fedsci:site/"
_PROFILE = "crypto profile "
#: What x509 raises on the first look at a part of a certificate that is not as it should be.
DAMAGED = (
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
    ValueError,
)


def new_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    """Return a fresh private key; P-256 unless told otherwise."""
    return ec.generate_private_key(curve or ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey, *, passphrase: str | None = None) -> bytes:
    """Return the key as PKCS #8 PEM, encrypted if there is a passphrase."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def read_key(path: Path, *, passphrase: str | None = None) -> ec.EllipticCurvePrivateKey:
    """Return the private key in a file.

    Raises:
        InputError: there is none, or the passphrase is wrong.
    """
    content = _read(path)
    try:
        key = serialization.load_pem_private_key(content, passphrase.encode() if passphrase else None)
    except TypeError:
        if passphrase:
            return read_key(path)  # a key that was never encrypted
        raise InputError(
            f"{path} is encrypted", hint="set FEDSCI_CA_PASSPHRASE to the passphrase it was made with"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(
            f"cannot read the key {path}", hint="the file is damaged, or FEDSCI_CA_PASSPHRASE is wrong"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InputError(f"{path} is not an elliptic-curve key", hint="it is not one that fedsci made")
    return key


def read_chain(path: Path) -> list[x509.Certificate]:
    """Return the certificates in a PEM file, the first one first.

    Raises:
        InputError: there are none.
    """
    return parse_chain(_read(path), where=str(path))


def parse_chain(content: bytes, *, where: str) -> list[x509.Certificate]:
    """Return the certificates in PEM text; ``where`` names it in errors."""
    try:
        return x509.load_pem_x509_certificates(content)
    except (ValueError, x509.InvalidVersion):
        raise InputError(f"{where} holds no certificate", hint=RESTORE) from None


def chain_pem(*certificates: x509.Certificate) -> bytes:
    """Return certificates as PEM text."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def fingerprint(certificate: x509.Certificate) -> bytes:
    """Return SHA-256 of the DER, 32 bytes; what people compare."""
    return certificate.fingerprint(SHA256())


def profile_name(profile: Profile) -> list[x509.NameAttribute[str]]:
    """Return what a consortium's root and issuing certificate say of its crypto profile; nothing of ``default``."""
    if profile is DEFAULT:
        return []
    return [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, _PROFILE + profile.name)]


def profile_of(certificate: x509.Certificate) -> Profile:
    """Return the crypto profile of the consortium under whose root, or issuing certificate, this one is.

    Sites hold the root by its fingerprint, so nobody between can change what it says.

    Raises:
        InputError: one that is not known.
    """
    try:
        units = certificate.issuer.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    except ValueError:
        raise InputError("the certificate's issuer is damaged", hint=RESTORE) from None
    named = [str(unit.value).removeprefix(_PROFILE) for unit in units if str(unit.value).startswith(_PROFILE)]
    if not named:
        return DEFAULT
    if len(named) > 1 or named[0] not in PROFILES:
        raise InputError("the consortium is of a crypto profile that is not known here", hint="update fedsci")
    return PROFILES[named[0]]


def is_due(certificate: x509.Certificate, now: datetime.datetime) -> bool:
    """Return whether a third or less of a certificate's lifetime is left: then it is renewed."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return end - now <= (end - start) / 3


def look_every_s(certificate: x509.Certificate) -> float:
    """Return how often to look whether a certificate is due: every hour, more often if it lives for days only."""
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return min(3600.0, max(1.0, lifetime.total_seconds() / 200))


def public_der(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return the DER SubjectPublicKeyInfo."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def site_uri(site: SiteId) -> x509.UniformResourceIdentifier:
    """Return the name that programs read."""
    return x509.UniformResourceIdentifier(_SITE + site)


def site_of(certificate: x509.Certificate) -> SiteId:
    """Return the site that a certificate names.

    Raises:
        InputError: it names none, or more than one.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except DAMAGED:
        names = x509.SubjectAlternativeName([])
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1 or not uris[0].startswith(_SITE):
        raise InputError("the certificate names no site", hint="use one that fedsci coordinator issued")
    return site_id(uris[0].removeprefix(_SITE))


def signing_request(site: SiteId, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a request (DER) for a certificate over ``key``, signed by it."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def requested_key(csr: bytes, site: SiteId) -> ec.EllipticCurvePublicKey:
    """Return the public key a request asks a certificate for; nothing else in it is used.

    Raises:
        EnrolmentRefused: ``csr``: it is damaged, not signed by its key, names another site, or is not P-256.
    """
    try:
        request = x509.load_der_x509_csr(csr)
        if not request.is_signature_valid:
            refuse("csr", "the signing request is not signed by its own key")
        key, names = request.public_key(), request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (x509.InvalidVersion, *DAMAGED):
        refuse("csr", "the signing request is damaged")
    if [name.value for name in names] != [site]:
        refuse("csr", "the signing request names another site")
    return _p256(key)


def _p256(key: object) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        refuse("csr", "the key is not P-256")
    return key


def check_site_chain(
    chain: list[x509.Certificate],
    *,
    root: x509.Certificate,
    site: SiteId,
    key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
) -> None:
    """Refuse a certificate that does not let ``site`` connect with ``key`` under ``root``.

    Raises:
        EnrolmentRefused: ``certificate``.
    """
    try:
        shown = chain[0].public_key() if chain else None
    except DAMAGED:
        refuse("certificate", "the certificate's key is damaged")
    if shown != key:
        refuse("certificate", "the certificate is for another key")
    policy = verification.PolicyBuilder().store(verification.Store([root])).time(now)
    try:
        policy.build_client_verifier().verify(chain[0], chain[1:])
        named = site_of(chain[0])
        usage = chain[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (verification.VerificationError, InputError, *DAMAGED) as error:
        refuse("certificate", f"the certificate does not check out: {error}")
    if named != site or ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        refuse("certificate", f"the certificate is for {named}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} is missing", hint="restore it from a backup, or start again") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="run as the user who owns the folder") from None
