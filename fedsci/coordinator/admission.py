"""What a site says of itself when it lets a study in, checked before anything rests on it."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedsci.errors import InputError
from fedsci.names import SiteId

_MOST_RECORDS = 10**9
MOST_STATEMENT = 1 << 20
_MOST_PERMIT = 16 * 1024
_KEY_TEXT = re.compile(r"([0-9a-f]{2}){0,2048}")
_SIGNED = {"record": MOST_STATEMENT, "permit": _MOST_PERMIT}


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Public facts of one site for one study.

    Attributes:
        train, holdout: record counts.
        inputs: encoded features of a record.
        parameters: the model's size.
        schema: digest of the schema as the site reads it.
        privacy: see :func:`read_privacy`.
        exact_evaluation: the site lets exact metrics of its holdout leave, inside sums.
        rounds_allowed, measurements_allowed: how much of the study the site's budget pays for.
        advert: the site's part of the first setup, or empty.
        stops: where a budget ends before the study, the site stops it there and does not refuse it.
        key, late_key: the site's verification keys in the audit log, hexadecimal; empty where nothing is logged.
        second_key: of the second person who signed its permit, where one had to.
        statements: what the site signed when it let the study in, by kind.
    """

    train: int
    holdout: int
    inputs: int
    parameters: int
    schema: str
    privacy: Mapping[str, Any]
    exact_evaluation: bool
    rounds_allowed: int
    measurements_allowed: int
    advert: str
    stops: bool = False
    key: str = ""
    late_key: str = ""
    second_key: str = ""
    statements: Mapping[str, str] = field(default_factory=dict)


def read_admission(site: SiteId, fields: Mapping[str, Any]) -> Admission:
    """Return the facts in a reply to ``prepare``.

    Raises:
        InputError: one is missing, of another type or out of range.
    """
    try:
        records = fields["records"]
        counts = [records["train"], records["holdout"], fields["inputs"], fields["parameters"]]
        counts.append(fields["rounds_allowed"])
        if not all(type(n) is int and 0 < n <= _MOST_RECORDS for n in counts):
            raise ValueError
        return Admission(
            train=counts[0],
            holdout=counts[1],
            inputs=counts[2],
            parameters=counts[3],
            schema=_text(fields["schema"]),
            privacy=read_privacy(fields["privacy"]),
            exact_evaluation=fields["exact_evaluation"] is True,
            rounds_allowed=counts[4],
            measurements_allowed=_count(fields["measurements_allowed"]),
            advert=_text(fields.get("advert", "")),
            stops=fields.get("stops") is True,
            key=_key(fields.get("key", "")),
            late_key=_key(fields.get("late_key", "")),
            second_key=_key(fields.get("second_key", "")),
            statements={kind: _statement(fields[kind], most=most) for kind, most in _SIGNED.items() if kind in fields},
        )
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{site} answered with facts that make no sense", hint="are all sites on the same version of fedsci?"
        ) from None


def _key(value: Any) -> str:
    if not isinstance(value, str) or not _KEY_TEXT.fullmatch(value):
        raise ValueError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isascii():
        raise ValueError
    return value


def _statement(value: Any, *, most: int) -> str:
    if not isinstance(value, str) or len(value) > most or not value.isascii():  # so is every envelope of fedsci's
        raise ValueError
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MOST_RECORDS:
        raise ValueError
    return value


#: What a site states of its privacy; see :func:`read_privacy`.
PRIVACY_FACTS = (
    "study",
    "total",
    "enforced_total",
    "enforced_before",
    "budget",
    "budget_delta",
    "noise_multiplier",
    "rounds_charged",
    "measurements_charged",
    "rdp_order",
    "rdp_study",
    "rdp_total",
)


def read_privacy(values: Any) -> dict[str, Any]:
    """Return what a site states of its privacy, a value for each of ``PRIVACY_FACTS``.

    ``study``, ``total``: epsilon of this study and of all studies, by PLD as if all had been fixed in advance;
    ``enforced_total``, ``enforced_before``: epsilon of all studies as the ledger enforces it, with and without this
    one; ``budget``, ``budget_delta``; ``noise_multiplier``; ``rounds_charged`` and ``measurements_charged`` for this
    study; ``rdp_order``, and the Renyi divergence at that order of this study and of all.

    Each is a finite number of at least 0, ``"inf"``, or None.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(values, Mapping):
        raise ValueError("privacy")
    read = {}
    for name in PRIVACY_FACTS:
        value = values.get(name)
        if not (value is None or value == "inf" or (type(value) in (int, float) and 0 <= value <= sys.float_info.max)):
            raise ValueError(name)
        read[name] = value
    return read
