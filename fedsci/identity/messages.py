"""What a site sends to enrol and to renew, and what comes back; JSON, with everything signed that matters."""

from typing import Literal, NoReturn, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedsci.errors import EnrolmentRefused, ProtocolError
from fedsci.identity.token import secret_digest
from fedsci.secagg import SigningKey
from fedsci.secagg.keys import check_signature, labelled
from fedsci.secagg.profiles import PROFILES

REQUEST_LIMIT = 16 * 1024
ANSWER_LIMIT = 2 * 1024 * 1024
_ENROL, _RENEW = "enrolment", "renewal"
_LONGEST_KEY = max(profile.verification_bytes for profile in PROFILES.values())
_LONGEST_SIGNATURE = max(profile.signature_bytes for profile in PROFILES.values())


class _Message(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, ser_json_bytes="base64", val_json_bytes="base64"
    )

    version: Literal[1] = 1

    def encode(self) -> bytes:
        """Return the JSON."""
        return self.model_dump_json().encode()


class EnrolRequest(_Message):
    """A site asks for its first certificate, or for a new one after it lost or outlived the last.

    Attributes:
        secret: the token's.
        csr: DER, PKCS #10 over a P-256 key, signed by it.
        verification_key: of the site's signatures: what the roster will name. Its size says of which crypto profile.
        signature: by that key over everything else, so that no other can be put in its place.
    """

    site: str = Field(max_length=64)
    secret: bytes = Field(repr=False, max_length=32)
    csr: bytes = Field(max_length=2048)
    verification_key: bytes = Field(max_length=_LONGEST_KEY)
    signature: bytes = Field(default=b"", max_length=_LONGEST_SIGNATURE)

    def body(self) -> bytes:
        """Return what is signed; the secret by its digest."""
        return labelled(_ENROL, self.site.encode(), secret_digest(self.secret), self.csr)

    def signed(self, identity: SigningKey) -> "EnrolRequest":
        """Return the request with its signature."""
        return self.model_copy(update={"signature": identity.sign(_ENROL, self.body())})

    def check(self) -> None:
        """Refuse a request that the owner of ``verification_key`` did not sign."""
        _check(self.verification_key, _ENROL, self.body(), self.signature)


class RenewRequest(_Message):
    """A site asks for the next certificate; works behind a proxy that ends TLS.

    Attributes:
        serial: of the certificate it has, lower-case hexadecimal.
        time: the site's clock, seconds since 1970.
        csr: as in :class:`EnrolRequest`; signed afresh, which makes every request another.
        tls_signature: ECDSA by the key of the certificate it has.
        signature: by the site's identity: a stolen TLS key alone does not outlive its certificate.
    """

    site: str = Field(max_length=64)
    serial: str = Field(max_length=64, pattern="^[0-9a-f]+$")
    time: int
    csr: bytes = Field(max_length=2048)
    tls_signature: bytes = Field(default=b"", max_length=128)
    signature: bytes = Field(default=b"", max_length=_LONGEST_SIGNATURE)

    def body(self) -> bytes:
        """Return what both keys sign."""
        return labelled(_RENEW, self.site.encode(), self.serial.encode(), str(self.time).encode(), self.csr)

    def signed(self, tls: ec.EllipticCurvePrivateKey, identity: SigningKey) -> "RenewRequest":
        """Return the request with both signatures."""
        return self.model_copy(
            update={
                "tls_signature": tls.sign(self.body(), ec.ECDSA(SHA256())),
                "signature": identity.sign(_RENEW, self.body()),
            }
        )

    def check(self, tls: ec.EllipticCurvePublicKey, verification_key: bytes) -> None:
        """Refuse a request that the owner of both keys did not sign."""
        try:
            tls.verify(self.tls_signature, self.body(), ec.ECDSA(SHA256()))
        except InvalidSignature:
            refuse("signature", "the request is not signed by the certificate's key")
        _check(verification_key, _RENEW, self.body(), self.signature)


class Answer(_Message):
    """A certificate, and the roster as it is now.

    Attributes:
        certificate: PEM, the site's certificate and the issuing one.
        index: the site's number in the roster.
        roster: the signed roster; absent while the consortium has too few sites or has not signed yet.
        fleet_address: where studies run.
    """

    certificate: str = Field(max_length=16 * 1024)
    index: int = Field(ge=1, le=65535)
    roster: bytes | None = None
    fleet_address: str = Field(max_length=300)


_Any = TypeVar("_Any", bound=_Message)


def decode(kind: type[_Any], content: bytes) -> _Any:
    """Return the message in ``content``.

    Raises:
        EnrolmentRefused: ``request``: it is not one.
    """
    try:
        return kind.model_validate_json(content)
    except (ValidationError, RecursionError):
        refuse("request", "the message is not well formed")


def refuse(rule: str, message: str) -> NoReturn:
    """Raise the refusal; only ``rule`` travels to the other end."""
    raise EnrolmentRefused(message, rule=rule)


def _check(key: bytes, label: str, body: bytes, signature: bytes) -> None:
    try:
        check_signature(key, label, body, signature, rule="signature", who="the site")
    except ProtocolError as error:
        refuse(error.rule, error.message)
