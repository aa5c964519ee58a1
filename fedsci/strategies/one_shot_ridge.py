"""One-shot ridge: a linear model from one exchange of summed second moments, with no rounds of training.

Ridge regression needs of the data only the sums of ``x x^T`` and ``x y``, over records x with a constant 1 appended
(Vu and Slavkovic 2009, Differential privacy for clinical trial data, ICDMW). Noise on such a matrix of second moments
is the mechanism of Dwork, Talwar, Thakurta and Zhang 2014 (Analyze Gauss, STOC), and regularising in proportion to
the noise that of Wang 2018 (Revisiting differentially private linear regression, UAI: AdaSSP).

A record's vector is (upper triangle of ``x x^T``, ``b x t``), divided by its own norm. t is the regression target in
[-1, 1] as training scales it, a class as 1/2 or -1/2 (two classes), or one-hot less 1 / classes; b = sqrt(inputs + 1)
makes the second part about as long as the first. The division weighs the records: both parts get the same weight, so
without noise the result is weighted least squares, and every record uses all of the clipping norm. (Dividing by the
largest norm that the public bounds allow instead leaves most of it unused.)

From the mean of them, G and c: noise of deviation s makes small eigenvalues of G arbitrary, negative ones too. Those
below ``s sqrt(inputs + 1)``, half of the largest that noise alone would have, are raised to it (on digits, breast
cancer and diabetes data better than adding it to all, or than AdaSSP's shift; on heart data alike). ``ridge`` is added
to all; then the weights are ``G^-1 c / b``. For classes these predict probabilities less a constant. They are
multiplied by a public number to become what softmax or sigmoid takes, which changes no decision and makes the log loss
sensible.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedsci.errors import InputError
from fedsci.strategies.base import StrategyState, Vector
from fedsci.strategies.one_exchange import LONGEST, OneExchange, Records, StudyShape
from fedsci.strategies.server_optimiser import ServerOptimiser

#: What least-squares predictions are multiplied by to become logits; chosen on digits, heart and breast cancer data.
LOGITS = {"binary": 6.0, "multiclass": 12.0, "regression": 1.0}


@dataclass(frozen=True, kw_only=True)
class OneShotRidge(OneExchange):
    """A linear model from the sums of ``x x^T`` and ``x t``.

    Attributes:
        ridge: added to the eigenvalues of the weighted mean of ``x x^T``, whose sum is at most sqrt(2).
    """

    name: str = field(default="one_shot_ridge", init=False)
    ridge: float

    def for_study(self, study: StudyShape) -> Self:
        """Return the strategy for a study.

        Raises:
            InputError: its model is not linear.
        """
        if study.model != "linear":
            raise InputError(
                f"{self.name} solves for a linear model, and the study's is {study.model}",
                hint="set model: {name: linear}, or choose a strategy that trains (fedsci strategies)",
            )
        return super().for_study(study)

    @property
    def numbers(self) -> int:
        """(p + 1) (p + 2) / 2 of the triangle and p + 1 for each output, for p inputs."""
        d = self.shape.inputs + 1
        return d * (d + 1) // 2 + d * self.shape.outputs

    @cached_property
    def _triangle(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        rows, columns = np.triu_indices(self.shape.inputs + 1)
        return rows, columns

    def statistics(self, records: Records) -> NDArray[np.float64]:
        """Return one vector of norm 1 a record, float64 ``(n, k)``."""
        n, d = len(records.features), self.shape.inputs + 1
        x = np.ones((n, d))
        x[:, :-1] = records.features
        rows, columns = self._triangle
        products = x[:, :, None] * self._targets(records)[:, None, :] * math.sqrt(d)
        vectors = np.concatenate([x[:, rows] * x[:, columns], products.reshape(n, d * self.shape.outputs)], axis=1)
        with np.errstate(invalid="ignore"):  # a damaged record stays damaged, and counts as zeros
            # at least 1: the constant's own product is 1
            vectors *= (LONGEST / np.linalg.norm(vectors, axis=1))[:, None]
        return vectors

    def _targets(self, records: Records) -> NDArray[np.float64]:
        """Return what is predicted, float64 ``(n, outputs)``."""
        if self.shape.task == "regression":
            return records.target.astype(np.float64)[:, None]
        if self.shape.task == "binary":
            return records.target.astype(np.float64)[:, None] - 0.5
        classes = self.shape.outputs
        chosen: NDArray[np.bool_] = records.target[:, None] == np.arange(classes)
        return chosen.astype(np.float64) - 1.0 / classes

    def finish(self, state: StrategyState, mean: Vector, *, noise: float) -> Vector:
        """Return the linear model, float32: weights ``(outputs, inputs)``, then biases ``(outputs,)``."""
        d, outputs = self.shape.inputs + 1, self.shape.outputs
        rows, columns = self._triangle
        moments = np.zeros((d, d))
        moments[rows, columns] = moments[columns, rows] = mean[: len(rows)]
        products = mean[len(rows) :].astype(np.float64).reshape(d, outputs) / math.sqrt(d)
        values, vectors = np.linalg.eigh(moments)
        raised = np.maximum(values, noise * math.sqrt(d)) + self.ridge
        solved = vectors @ ((vectors.T @ products) / raised[:, None]) * LOGITS[self.shape.task]
        return np.concatenate([solved[:-1].T.reshape(-1), solved[-1]]).astype(np.float32)


def build(*, optimiser: ServerOptimiser, ridge: float = 1e-4) -> OneShotRidge:
    """Return the strategy; ``ridge`` is added to the eigenvalues of the weighted mean of ``x x^T``.

    Raises:
        InputError: ``ridge`` is not positive: singular matrices would have no solution.
    """
    if not 0 < ridge < math.inf:
        raise InputError(f"one_shot_ridge: ridge is {ridge:g}", hint="give a positive number, such as 1e-4")
    return OneShotRidge(optimiser=optimiser, ridge=ridge)
