"""Every error fedsci raises on purpose.

::

    FedsciError                     exit 1
    ├── InputError                  exit 2   a value, a file or a command line is wrong
    │   ├── ConfigError                      a study, site or strategy file
    │   └── DataError                        a data file
    ├── BudgetRefused               exit 3   a privacy budget would be passed
    ├── PolicyRefused               exit 4   a site's policy or permit, or a person, says no
    ├── RoundAborted                exit 5   too few sites finished a round
    │   └── ProtocolError                    a secure-aggregation message broke a rule
    ├── VerificationFailed          exit 6   evidence does not check out
    │   └── LogBehind                        a site has seen less of the audit log than it was taken to have
    ├── ConnectionFailed            exit 7   no connection, or not authenticated
    │   └── EnrolmentRefused                 a request for a certificate, or its answer, broke a rule
    └── SiteFailed                  the site's exit code   a site's answer was an error

An error's text (``message`` and ``hint``) is for the machine where it was raised and may hold private
values. What may leave a site is :meth:`FedsciError.public`: the kind of the error and what the raiser
marked as public, nothing else.
"""

from collections.abc import Mapping
from typing import ClassVar

_LONGEST = 1000


class FedsciError(Exception):
    """Base of all errors raised on purpose.

    Attributes:
        message: one line, no full stop, may hold private values.
        hint: what to do next; may be empty.
        public_message: what a site may tell others; by default only the kind of the error.
    """

    exit_code: int = 1
    code: ClassVar[str] = "internal"
    default_public: ClassVar[str] = "the site had an internal error"

    def __init__(self, message: str, *, hint: str = "", public: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.public_message = self.default_public if public is None else public

    def __str__(self) -> str:
        return self.message  # who passes an error on may add to it where it was

    def public(self) -> dict[str, str | int]:
        """Return what may leave the site: code, exit code and the public message."""
        return {"code": self.code, "exit_code": self.exit_code, "message": self.public_message}


class InputError(FedsciError):
    """A value, file or command line is wrong."""

    exit_code = 2
    code = "input"
    default_public = "the site found a wrong input; see its own log"


class ConfigError(InputError):
    """A study, site or strategy file is wrong."""

    code = "config"
    default_public = "the site could not use the study or its own configuration; see its own log"


class DataError(InputError):
    """A data file is missing, damaged or does not fit the schema."""

    code = "data"
    default_public = "the site's data does not fit the study; see its own log"


class BudgetRefused(FedsciError):
    """A charge would pass a data set's privacy budget, or the ledger cannot be trusted."""

    exit_code = 3
    code = "budget"
    default_public = "the site's privacy budget does not allow this"


class PolicyRefused(FedsciError):
    """The site's policy or permit does not allow what was asked."""

    exit_code = 4
    code = "policy"
    default_public = "the site's policy does not allow this"


class RoundAborted(FedsciError):
    """Too few sites finished a round, or the round had to be stopped."""

    exit_code = 5
    code = "aborted"
    default_public = "the round was aborted"


class ProtocolError(RoundAborted):
    """A secure-aggregation message or step broke a rule; ``rule`` names which."""

    code = "protocol"
    default_public = "a secure-aggregation message was refused"

    def __init__(self, message: str, *, rule: str, hint: str = "", public: str | None = None) -> None:
        super().__init__(message, hint=hint, public=public if public is not None else f"refused: {rule}")
        self.rule = rule


class VerificationFailed(FedsciError):
    """Evidence (a log, a signature, a digest) does not check out.

    Attributes:
        file: the file that is wrong, from the run folder on; empty where none is.
        field: what is wrong in it; empty where the whole is.
    """

    exit_code = 6
    code = "verification"
    default_public = "verification failed"

    def __init__(
        self, message: str, *, hint: str = "", public: str | None = None, file: str = "", field: str = ""
    ) -> None:
        super().__init__(message, hint=hint, public=public)
        self.file, self.field = file, field


class LogBehind(VerificationFailed):
    """A site has seen ``size`` entries of the audit log, and not as many as the coordinator took it to have."""

    code = "behind"

    default_public = "audit log: this site has seen less than it was taken to have"

    def __init__(self, message: str, *, size: int = 0, hint: str = "", public: str | None = None) -> None:
        super().__init__(message, hint=hint, public=public, field="size")
        self.size = size

    def public(self) -> dict[str, str | int]:
        """Return what may leave the site, and the size."""
        return super().public() | {"size": self.size}


class ConnectionFailed(FedsciError):
    """No connection, or the other end could not be authenticated."""

    exit_code = 7
    code = "connection"
    default_public = "no connection"


class EnrolmentRefused(ConnectionFailed):
    """A request for a certificate, or the answer to one, broke a rule; ``rule`` names which."""

    code = "enrolment"
    default_public = "the request was refused"

    def __init__(self, message: str, *, rule: str, hint: str = "") -> None:
        super().__init__(message, hint=hint, public=f"refused: {rule}")
        self.rule = rule


def one_line(text: str) -> str:
    r"""Return what somebody else wrote as one line that shows itself and nothing else.

    Line ends and other blanks become one blank; what moves a terminal's cursor, colours it or turns the direction of
    writing around becomes a replacement character.

    >>> one_line("hello\x1b[2J \n   world")
    'hello�[2J world'
    """
    return "".join(char if char.isprintable() else "\ufffd" for char in " ".join(text.split()))


class SiteFailed(FedsciError):
    """A site answered with an error; only its public part is known here, as one line of at most 1000 characters.

    Attributes:
        site: the site's name.
        site_code: the code of the error at the site.
    """

    code = "site"

    def __init__(self, site: str, public: Mapping[str, object]) -> None:
        message = one_line(str(public.get("message", "no reason given"))[:_LONGEST])
        super().__init__(f"{site}: {message}", hint=f"the details are in {site}'s own log")
        self.site = site
        self.site_code = one_line(str(public.get("code", "internal"))[:_LONGEST])
        raw = public.get("exit_code", 1)
        self.exit_code = raw if isinstance(raw, int) and 1 <= raw <= 7 else 1
