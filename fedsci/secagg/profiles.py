"""Which crypto profiles there are, and how one is recognised.

A consortium has one profile for life. Its keys tell which: their sizes differ, so what a site pins when it joins, the
consortium's public key, pins the profile. Whatever is of another one is refused as ``wrong-profile``.
"""

from fedsci.errors import ProtocolError
from fedsci.secagg.profile import Profile
from fedsci.secagg.profile_default import DefaultProfile
from fedsci.secagg.profile_fips import FipsProfile

DEFAULT: Profile = DefaultProfile()
FIPS: Profile = FipsProfile()
PROFILES: dict[str, Profile] = {profile.name: profile for profile in (DEFAULT, FIPS)}


def profile_of_key(public: bytes) -> Profile | None:
    """Return the profile whose verification keys are of this size, or None.

    >>> profile_of_key(bytes(97))
    <crypto profile fips>
    """
    return next((one for one in PROFILES.values() if len(public) == one.verification_bytes), None)


def profile_of_seed(seed: bytes) -> Profile | None:
    """Return the profile whose signing keys grow from seeds of this size, or None."""
    return next((one for one in PROFILES.values() if len(seed) == one.seed_bytes), None)


def profile_of_message(content: bytes, magic: bytes) -> Profile | None:
    """Return the profile that a message says it is of, or None if it is no message."""
    if content[: len(magic)] != magic:
        return None
    return next(
        (one for one in PROFILES.values() if content[len(magic) : len(magic) + 1] == bytes((one.version,))), None
    )


def require_profile(found: Profile | None, wanted: Profile, what: str) -> None:
    """Pass if ``found`` is the profile it has to be.

    Raises:
        ProtocolError: ``wrong-profile``.
    """
    if found is not wanted:
        named = f"the crypto profile {found.name}" if found else "no crypto profile that is known"
        raise ProtocolError(
            f"{what} is of {named}, not of {wanted.name}",
            rule="wrong-profile",
            hint="a consortium has one profile for life; every key and message in it is of that one",
        )
