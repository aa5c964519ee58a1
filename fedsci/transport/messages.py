"""What coordinator and sites say to each other, whatever carries it.

A request names an action and holds public fields and at most one vector; a reply holds the same, or the
public part of an error. Nothing here knows Flower.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.errors import InputError
from fedsci.names import is_unicode

Vector = NDArray[Any]

#: Every action, and the Flower message type that carries it.
ACTIONS: dict[str, str] = {
    "hello": "query.hello",
    "propose": "query.propose",
    "prepare": "query.prepare",
    "share": "query.share",
    "begin": "train.begin",
    "train": "train.contribution",
    "evaluate": "evaluate.holdout",
    "alone": "evaluate.alone",
    "unmask": "query.unmask",
    "votes": "query.votes",
    "witness": "query.witness",
    "finish": "query.finish",
}

#: What a round asks for: the study's deadline holds in each of these exchanges.
TIMED = frozenset({"train", "evaluate", "unmask", "votes"})

#: What is waited for no longer than a round's exchanges; an exchange of its own after each round goes with them.
BOUNDED = TIMED | {"witness"}

#: The errors of a site that did not begin: an earlier request is in work (ask again), or the time is over.
BUSY = {"code": "busy", "exit_code": 5, "message": "busy with an earlier request"}
LATE = {"code": "late", "exit_code": 5, "message": "late: its time was over before the site came to it"}

#: What is said of a site whose update cannot be added up.
DIVERGED = "its update holds NaN or infinity"

#: Array types that may travel.
DTYPES = ("float32", "float64", "uint16", "uint32", "uint64", "int64", "uint8")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the coordinator asks of one site.

    Attributes:
        action: a key of :data:`ACTIONS`.
        fields: JSON-ready, public.
        vector: at most one array, shared between requests: read-only.
    """

    action: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    vector: Vector | None = None

    def text(self, name: str) -> str:
        """Return a text field.

        Raises:
            InputError: it is absent or not a text of whole characters.
        """
        value = self.fields.get(name)
        if not isinstance(value, str) or not is_unicode(value):
            raise InputError(f"the request to {self.action} has no text {name!r}")
        return value

    def integer(self, name: str) -> int:
        """Return an integer field.

        Raises:
            InputError: it is absent or not an integer.
        """
        value = self.fields.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise InputError(f"the request to {self.action} has no integer {name!r}")
        return value

    def model(self) -> NDArray[np.float32]:
        """Return the vector as a float32 model.

        Raises:
            InputError: it is absent or another type.
        """
        if self.vector is None or self.vector.dtype != np.float32 or self.vector.ndim != 1:
            raise InputError(f"the request to {self.action} carries no float32 model vector")
        return self.vector


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A site's answer.

    Attributes:
        fields: JSON-ready; what the site lets others see.
        vector: at most one array.
        error: the public part of the error that stopped the site, or None.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    vector: Vector | None = None
    error: Mapping[str, Any] | None = None


Handler = Callable[[Request], Reply]
