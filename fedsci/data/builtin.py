"""Small public data sets that come with scikit-learn, for demonstrations and tests without files."""

from collections.abc import Callable

import numpy as np

from fedsci.data.table import RawTable
from fedsci.data.values import nearest
from fedsci.errors import DataError


def load_builtin(name: str) -> RawTable:
    """Return a public data set, unscaled.

    ``digits``: ``image`` (8 by 8, 0 to 16) and ``digit``. ``breast_cancer``: 30 measurements and ``benign``
    (0 or 1). ``diabetes``: ``age``, ``sex`` (1 or 2), ``bmi``, ``bp``, ``s1`` to ``s6`` and ``progression``.

    Raises:
        DataError: if there is no such data set.
    """
    if name not in _LOADERS:
        close = nearest(name, _LOADERS)
        raise DataError(
            f"there is no built-in data set {name!r}",
            hint=f"did you mean {close!r}?" if close else f"use one of {', '.join(_LOADERS)}",
        )
    return _LOADERS[name]()


def builtin_names() -> tuple[str, ...]:
    """Return the names that :func:`load_builtin` knows."""
    return tuple(_LOADERS)


def _digits() -> RawTable:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return RawTable.from_columns({"image": bunch.images, "digit": bunch.target.astype(np.int64)})


def _breast_cancer() -> RawTable:
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    columns = {str(name).replace(" ", "_"): bunch.data[:, i] for i, name in enumerate(bunch.feature_names)}
    return RawTable.from_columns(columns | {"benign": bunch.target.astype(np.int64)})


def _diabetes() -> RawTable:
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    columns = {str(name): bunch.data[:, i] for i, name in enumerate(bunch.feature_names)}
    return RawTable.from_columns(columns | {"progression": bunch.target})


_LOADERS: dict[str, Callable[[], RawTable]] = {
    "digits": _digits,
    "breast_cancer": _breast_cancer,
    "diabetes": _diabetes,
}
