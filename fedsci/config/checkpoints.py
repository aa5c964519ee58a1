"""Where a study waits for people, and who may decide: both are part of the plan, so every site sees them."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, field_validator, model_validator

from fedsci import names
from fedsci.config.strict import Strict
from fedsci.errors import InputError

_KEY = re.compile(r"(?:[0-9a-f]{2}){32,256}")
_MAKE_ONE = "fedsci signer new FILE makes a key and prints its public half"


class HumanCheckpoint(Strict):
    """A point at which the run waits until each of ``who`` has decided.

    Attributes:
        before: ``training`` (sites have let the study in, nothing is computed) or ``release`` (of the final model).
        every_rounds: after every so many rounds.
        who: roles, all of which must decide.
    """

    before: Literal["training", "release"] | None = None
    every_rounds: int | None = Field(default=None, ge=1)
    who: list[str] = Field(min_length=1)

    @field_validator("who")
    @classmethod
    def _roles(cls, value: list[str]) -> list[str]:
        for role in value:
            _check_role(role)
        twice = [role for role in value if value.count(role) > 1]
        if twice:
            raise ValueError(f"who names {twice[0]} twice | name every role once; two people need two roles")
        return value

    @model_validator(mode="after")
    def _when(self) -> "HumanCheckpoint":
        if (self.before is None) == (self.every_rounds is None):
            raise ValueError(
                "a checkpoint has one of before and every_rounds | "
                "for example: checkpoints: [{before: release, who: [privacy_officer]}]"
            )
        return self

    @property
    def when(self) -> str:
        """The point, as it is written in the file."""
        return f"before: {self.before}" if self.before else f"every_rounds: {self.every_rounds}"


def check_signers(checkpoints: Sequence[HumanCheckpoint], signers: Mapping[str, Sequence[str]]) -> None:
    """Pass if every role has a key, no key has two roles, and no point stands there twice.

    Raises:
        ValueError: ``message | hint``.
    """
    points = [checkpoint.when for checkpoint in checkpoints]
    twice = [point for point in points if points.count(point) > 1]
    if twice:
        raise ValueError(f"checkpoints has {twice[0]} twice | name all roles under one who")
    owner: dict[str, str] = {}
    for role, keys in signers.items():
        _check_role(role)
        if not keys:
            raise ValueError(f"signers.{role} has no key | {_MAKE_ONE}")
        for key in keys:
            if not _KEY.fullmatch(key):
                raise ValueError(f"signers.{role} is no list of public keys | {_MAKE_ONE}, in hexadecimal digits")
            if key in owner:
                raise ValueError(
                    f"signers: {owner[key]} and {role} have the same key | two roles are two people with two keys"
                    if owner[key] != role
                    else f"signers.{role} names a key twice | name every key once"
                )
            owner[key] = role
    for checkpoint in checkpoints:
        for role in checkpoint.who:
            if role not in signers:
                raise ValueError(
                    f"checkpoints: {role} must decide ({checkpoint.when}) and has no key | {_MAKE_ONE}; "
                    f'write it in the study: signers: {{{role}: ["..."]}}'
                )


def roles_before(checkpoints: Sequence[HumanCheckpoint], what: str) -> tuple[str, ...]:
    """Return who must decide before ``training`` or ``release``."""
    return tuple(role for checkpoint in checkpoints if checkpoint.before == what for role in checkpoint.who)


def roles_after(checkpoints: Sequence[HumanCheckpoint], rounds: int) -> dict[int, tuple[str, ...]]:
    """Return who must have decided once so many rounds are over, abandoned ones counted: per round that is due.

    >>> every = [HumanCheckpoint(every_rounds=10, who=["a"]), HumanCheckpoint(every_rounds=20, who=["a", "b"])]
    >>> roles_after(every, 9), roles_after(every, 21), roles_after(every, 30)
    ({}, {20: ('a', 'b')}, {20: ('a', 'b'), 30: ('a',)})
    """
    periods = {each.every_rounds: each.who for each in checkpoints if each.every_rounds is not None}
    due = sorted({rounds // period * period for period in periods} - {0})
    return {
        number: tuple(dict.fromkeys(role for period, who in periods.items() if number % period == 0 for role in who))
        for number in due
    }


def _check_role(role: str) -> None:
    try:
        names.site_id(role)  # it is in file names, too
    except InputError as error:
        raise ValueError(f"{role!r} is no role | {error.hint}") from None
