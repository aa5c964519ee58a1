"""What a site says of itself when it lets a study in, checked before anything rests on it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedsci.errors import InputError
from fedsci.names import SiteId

_MOST_RECORDS = 10**9


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Public facts of one site for one study.

    Attributes:
        train, holdout: record counts.
        inputs: encoded features of a record.
        parameters: the model's size.
        schema: digest of the schema as the site reads it.
        privacy: see :func:`read_privacy`.
        rounds_allowed: how many of the study's rounds the site pays for.
        advert: the site's part of the first setup, or empty.
    """

    train: int
    holdout: int
    inputs: int
    parameters: int
    schema: str
    privacy: Mapping[str, Any]
    rounds_allowed: int
    advert: str


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
            schema=str(fields["schema"]),
            privacy=read_privacy(fields["privacy"]),
            rounds_allowed=counts[4],
            advert=str(fields.get("advert", "")),
        )
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{site} answered with facts that make no sense", hint="are all sites on the same version of fedsci?"
        ) from None


def read_privacy(values: Any) -> dict[str, Any]:
    """Return ``study``, ``total``, ``enforced_total``, ``budget`` and ``noise_multiplier`` as a site states them.

    Each is a finite number of at least 0, ``"inf"``, or None.

    Raises:
        ValueError: anything else.
    """
    names = ("study", "total", "enforced_total", "budget", "noise_multiplier")
    read = {}
    for name in names:
        value = values.get(name)
        if not (
            value is None or value == "inf" or (type(value) in (int, float) and math.isfinite(value) and value >= 0)
        ):
            raise ValueError(name)
        read[name] = value
    return read
