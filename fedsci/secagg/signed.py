"""What every signed message shares: its setup, its sender, and a signature under its own label."""

from typing import ClassVar, Protocol

from fedsci.errors import ProtocolError
from fedsci.secagg.cohort import Setup
from fedsci.secagg.keys import check_signature
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import require_profile


class InSetup(Protocol):
    """What :func:`check_context` needs of a message."""

    @property
    def context(self) -> bytes:
        """The setup's context."""
        ...

    @property
    def profile(self) -> Profile:
        """The crypto profile it says it is of."""
        ...


class Signed(InSetup, Protocol):
    """What :func:`check_sender` needs of a message."""

    label: ClassVar[str]
    forged: ClassVar[str]

    @property
    def site(self) -> int:
        """The sender."""
        ...

    @property
    def signature(self) -> bytes:
        """By the sender, over the body."""
        ...

    def body(self) -> bytes:
        """Everything that is signed."""
        ...


def check_context(message: InSetup, setup: Setup) -> None:
    """Refuse a message of another crypto profile, roster, cohort, run or batch."""
    require_profile(message.profile, setup.profile, "a message")
    if message.context != setup.context:
        raise ProtocolError("a message belongs to another setup", rule="other-setup")


def check_sender(message: Signed, setup: Setup) -> None:
    """Refuse a message of another setup, of no member, or not signed by the member it names."""
    check_context(message, setup)
    who = f"site {message.site}"
    key = setup.verification_key(message.site)
    check_signature(key, message.label, message.body(), message.signature, rule=message.forged, who=who)
