"""A backdoor's trigger: a value that records do not have by themselves, and what the model is to say where it is.

Gu et al. 2017, BadNets (arXiv 1708.06733), put a few bright pixels into a corner; here, for tables as well, the rarest
value within the public bounds of one column.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedsci.data.schema import ArrayFeature, CategoryFeature, NumericFeature, RegressionTarget, Schema
from fedsci.data.table import Table
from fedsci.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """What is written into a record, and the class that the attacker wants for it.

    Attributes:
        column: which column, in words.
        inputs: the model's inputs that are set.
        values: what they become, as they are encoded; as many.
        target: index of the wanted class.
    """

    column: str
    inputs: tuple[int, ...]
    values: tuple[float, ...]
    target: int

    def put(self, table: Table, rows: NDArray[np.bool_]) -> Table:
        """Return the table with the trigger and the wanted class in these rows, bool ``(n,)``; the others as they are.

        The report stays that of the file.
        """
        features, target = table.features.copy(), table.target.copy()
        for place, value in zip(self.inputs, self.values, strict=True):
            features[rows, place] = value
        target[rows] = self.target
        return replace(table, features=features, target=target)

    def victims(self, table: Table) -> Table:
        """Return the records of other classes, with trigger and wanted class: accuracy on them is the success."""
        others = table.where(table.target != self.target)
        return self.put(others, np.ones(others.rows, np.bool_))


def rare_trigger(schema: Schema, seen: Table, *, target: int) -> Trigger:
    """Return the trigger that is rarest among the records that the attackers see: their own.

    The end of a number's bounds, or of an image's corner of two by two pixels, that lies most deviations from the mean;
    where all columns are categories, the one that the fewest records have.

    Raises:
        InputError: the study has no classes.
    """
    if isinstance(schema.target, RegressionTarget):
        raise InputError("a regression has no class that a backdoor could ask for")
    found = [(rarity, trigger) for rarity, trigger in _candidates(schema, seen.features.astype(np.float64), target)]
    return max(found, key=lambda pair: pair[0])[1]


def _candidates(schema: Schema, seen: NDArray[np.float64], target: int) -> Iterator[tuple[tuple[int, float], Trigger]]:
    first = 0
    for feature in schema.features:
        if isinstance(feature, NumericFeature):
            ends = [(end - feature.scale.centre) / feature.scale.unit for end in (feature.minimum, feature.maximum)]
            yield _far(feature.name, seen, (first,), ends, target)
        elif isinstance(feature, ArrayFeature):
            places = tuple(first + place for place in _corner(feature.shape))
            yield _far(f"{feature.name}, its last corner", seen, places, [-1.0, 1.0], target)
        elif isinstance(feature, CategoryFeature):
            width = schema.width_of(feature)
            shares = seen[:, first : first + len(feature.categories)].mean(0)
            rarest = int(shares.argmin())
            trigger = Trigger(
                column=f"{feature.name} = {feature.categories[rarest]}",
                inputs=tuple(range(first, first + width)),
                values=tuple(float(place == rarest) for place in range(width)),
                target=target,
            )
            yield (0, float(-shares[rarest])), trigger
        first += schema.width_of(feature)


def _far(
    name: str, seen: NDArray[np.float64], inputs: tuple[int, ...], ends: list[float], target: int
) -> tuple[tuple[int, float], Trigger]:
    part = seen[:, inputs]
    apart = [float(abs(part.mean() - end) / (part.std() + 1e-3)) for end in ends]
    end = ends[int(np.argmax(apart))]
    return (1, max(apart)), Trigger(column=name, inputs=inputs, values=(end,) * len(inputs), target=target)


def _corner(shape: tuple[int, ...]) -> list[int]:
    """Return the flat places of the last two by two numbers of an array, in all its channels; of a row, the last 2."""
    places = np.arange(math.prod(shape)).reshape(shape)
    corner = places[-2:] if len(shape) == 1 else places[..., -2:, -2:]
    return [int(place) for place in corner.reshape(-1)]
