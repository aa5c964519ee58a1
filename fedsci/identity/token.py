"""The text that lets one site enrol once: a secret, whose it is, and what the site must find at the other end."""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass

from fedsci.errors import InputError
from fedsci.identity.address import Address, parse_address
from fedsci.names import SiteId, site_id
from fedsci.secagg import Seed
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import DEFAULT, profile_of_key

PREFIX = "fedsci1."
SECRET_BYTES = 32
_LONGEST = 4096


@dataclass(frozen=True, kw_only=True)
class Token:
    """A join token.

    Attributes:
        address: the enrolment service.
        site: the only name it can enrol.
        root: SHA-256 of the root certificate's DER, 32 bytes. Whoever answers at ``address`` must show that
            certificate before it is sent anything secret.
        consortium_key: the key that signs rosters; the site pins it, and with it the consortium's crypto profile.
        secret: 256 random bits; the coordinator keeps only :attr:`digest`.
        expires: seconds since 1970; judged by the coordinator's clock alone.
    """

    address: Address
    site: SiteId
    root: bytes
    consortium_key: bytes
    secret: Seed
    expires: int

    @property
    def profile(self) -> Profile:
        """The consortium's crypto profile."""
        return profile_of_key(self.consortium_key) or DEFAULT

    @property
    def digest(self) -> bytes:
        """What the coordinator stores and looks for."""
        return secret_digest(self.secret.reveal())

    def encode(self) -> str:
        """Return the text to hand over, by a channel that only the site's operator reads."""
        fields = {
            "address": str(self.address),
            "site": self.site,
            "root": _text(self.root),
            "consortium": _text(self.consortium_key),
            "secret": _text(self.secret.reveal()),
            "expires": self.expires,
        }
        return PREFIX + _text(json.dumps(fields, separators=(",", ":")).encode())

    @classmethod
    def decode(cls, text: str) -> "Token":
        """Return the token in ``text``, which may have been broken over lines.

        Raises:
            InputError: it is not a whole token.
        """
        packed = "".join(text.split())
        try:
            if not packed.startswith(PREFIX) or len(packed) > _LONGEST:
                raise ValueError
            fields = json.loads(_bytes(packed.removeprefix(PREFIX)))
            if set(fields) != {"address", "site", "root", "consortium", "secret", "expires"}:
                raise ValueError
            root, key, secret = (_bytes(fields[name]) for name in ("root", "consortium", "secret"))
            if (len(root), len(secret)) != (32, SECRET_BYTES) or type(fields["expires"]) is not int:
                raise ValueError
            if profile_of_key(key) is None:
                raise ValueError
            return cls(
                address=parse_address(fields["address"], port=0),
                site=site_id(fields["site"]),
                root=root,
                consortium_key=key,
                secret=Seed(secret),
                expires=fields["expires"],
            )
        except (ValueError, TypeError, AttributeError, RecursionError, InputError):
            raise InputError(
                "this is not a whole join token",
                hint=f"paste all of what fedsci coordinator enrol printed: it starts with {PREFIX}",
            ) from None


def secret_digest(secret: bytes) -> bytes:
    """Return SHA-256 of a token's secret; 256 random bits need no slower hash."""
    return hashlib.sha256(b"fedsci join token\0" + secret).digest()


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError from error
