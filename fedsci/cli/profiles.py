"""The crypto profiles as options of commands."""

from enum import StrEnum


class CryptoProfile(StrEnum):
    """Which primitives a consortium uses; see docs/security.md."""

    default = "default"
    fips = "fips"
