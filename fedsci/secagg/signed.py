"""What every signed message shares: its setup, its sender, and a signature under its own label."""

from typing import ClassVar, Protocol

from fedsci.errors import ProtocolError
from fedsci.secagg.cohort import Setup
from fedsci.secagg.keys import check_signature


class Signed(Protocol):
    """What :func:`sign` and :func:`check_sender` need of a message."""

    label: ClassVar[str]
    forged: ClassVar[str]

    @property
    def context(self) -> bytes:
        """The setup's context."""
        ...

    @property
    def site(self) -> int:
        """The sender."""
        ...

    @property
    def signature(self) -> bytes:
        """Ed25519, 64 bytes."""
        ...

    def body(self) -> bytes:
        """Everything that is signed."""
        ...


def check_context(context: bytes, setup: Setup) -> None:
    """Refuse a message of another roster, cohort, run or batch."""
    if context != setup.context:
        raise ProtocolError("a message belongs to another setup", rule="other-setup")


def check_sender(message: Signed, setup: Setup) -> None:
    """Refuse a message of another setup, of no member, or not signed by the member it names."""
    check_context(message.context, setup)
    who = f"site {message.site}"
    key = setup.verification_key(message.site)
    check_signature(key, message.label, message.body(), message.signature, rule=message.forged, who=who)
