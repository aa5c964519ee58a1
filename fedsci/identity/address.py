"""``host:port`` as people write it."""

import ipaddress
import re
from dataclasses import dataclass

from fedsci.errors import InputError

_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


@dataclass(frozen=True)
class Address:
    """Where a service listens.

    Attributes:
        host: a DNS name in lower case, or an IP address without brackets.
        port: 1 to 65535.

    >>> str(parse_address("Coordinator.example.org", port=9443))
    'coordinator.example.org:9443'
    >>> str(parse_address("[::1]:7000", port=9443))
    '[::1]:7000'
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, *, port: int) -> Address:
    """Return the address in ``text``; ``port`` where it names none.

    Raises:
        InputError: it is no host name or IP address, or the port is out of range.
    """
    host, number = text.strip().lower(), str(port)
    bracketed = re.fullmatch(r"\[([0-9a-f:.]*:[0-9a-f:.]*)\](?::(.*))?", host)
    if bracketed:
        host, number = bracketed[1], bracketed[2] if bracketed[2] is not None else number
    elif host.count(":") == 1:
        host, number = host.split(":")
    if not (is_ip(host) or _HOST.fullmatch(host)) or not number.isdecimal() or not 1 <= int(number) <= 65535:
        raise InputError(
            f"address {text!r} is not usable", hint="write host or host:port, for example coordinator.example.org:9443"
        )
    return Address(host, int(number))


def is_ip(host: str) -> bool:
    """Return whether ``host`` is an IP address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
