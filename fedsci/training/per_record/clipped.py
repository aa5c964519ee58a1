"""The clipped sum of a model's per-record gradients, by book-keeping where its layers are known, else by Opacus."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsci.privacy.clipping import check_clipping_norm, clip_factors, most_summed
from fedsci.training.per_record.book_keeping import BookKeeping
from fedsci.training.per_record.company import check_company
from fedsci.training.per_record.layers import is_known
from fedsci.training.per_record.opacus_rows import OpacusRows
from fedsci.training.per_record.passes import rows_per_pass
from fedsci.training.per_record.pieces import ROUNDING, norms_of
from fedsci.training.per_record.refusals import check_model
from fedsci.training.per_record.trial import Losses


@dataclass(frozen=True, kw_only=True, eq=False)
class ClippedGradients:
    """A model whose per-record gradients can be clipped and summed.

    Attributes:
        module: the model; its first dimension is the record, everywhere.
        losses: from outputs and targets to one loss a record, shape ``(n,)``.
        clipping_norm: L2 bound C of one record's gradient over all parameters together: the sensitivity of the
            sum when one record is added or removed.
        expected: how many records a sum holds on average, a public number; the shape of a pass follows from it.
    """

    module: nn.Module
    losses: Losses
    clipping_norm: float
    expected: float

    @cached_property
    def source(self) -> BookKeeping | OpacusRows:
        """Where gradients come from; chosen by the types of the layers.

        Raises:
            ConfigError: the model mixes records or uses its parameters in a way that cannot be followed.
        """
        check_model(self.module)
        known = all(is_known(layer) for layer in self.module.modules())
        return BookKeeping(self.module, self.losses) if known else OpacusRows(self.module, self.losses)

    def sum_of(self, features: Tensor, targets: Tensor, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the sum of the rows' clipped gradients at the present weights.

        A record whose gradient is not finite contributes nothing. No row at all gives zeros.

        Args:
            features: the model's inputs, one record a row, on the model's device.
            targets: one a record.
            rows: numbers of the records to sum over.

        Returns:
            float64 ``(d,)``, in the order of ``module.parameters()``; zeros for frozen and unused ones. Sensitive:
            to be released only with noise.

        Raises:
            ConfigError: the model mixes records or uses its parameters in a way that cannot be followed.
        """
        check_clipping_norm(self.clipping_norm)
        per_pass = self._rows_per_pass(features, targets)
        parameters = list(self.module.parameters())
        total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64, device=features.device)
        parts = torch.split(total, [p.numel() for p in parameters])
        totals: dict[Tensor, Tensor] = dict(zip(parameters, parts, strict=True))
        for start in range(0, len(rows), per_pass):
            chosen = rows[start : start + per_pass]
            filled = np.concatenate([chosen, np.zeros(per_pass - len(chosen), rows.dtype)])
            index = torch.from_numpy(filled).to(features.device)
            inputs, wanted = features.index_select(0, index), targets.index_select(0, index)
            self._add_pass(inputs, wanted, totals, count=len(chosen))
        return total.cpu().numpy()

    def most_records(self, features: Tensor, targets: Tensor) -> int:
        """Return over how many records a sum keeps the clipping norm.

        Raises:
            ConfigError: as :meth:`sum_of`.
        """
        return most_summed(self._rows_per_pass(features, targets), each=ROUNDING)

    def _add_pass(self, features: Tensor, targets: Tensor, totals: dict[Tensor, Tensor], *, count: int) -> None:
        """Add the first ``count`` records of a pass to the totals; the others only give it its shape."""
        pieces = self.source.pieces(features, targets)
        if not pieces:
            return
        norms = norms_of(list(pieces.values())).cpu().numpy()
        weights = clip_factors(norms, self.clipping_norm)
        weights[count:] = 0.0
        damaged = ~np.isfinite(norms)
        device = features.device
        left_out = torch.from_numpy(damaged).to(device) if damaged.any() else None
        factors = torch.from_numpy(weights).to(device)
        while pieces:  # freed one by one
            parameter, piece = pieces.popitem()
            piece.add_to(totals[parameter], factors, left_out)

    def _rows_per_pass(self, features: Tensor, targets: Tensor) -> int:
        found = self.__dict__.get("_per_pass")
        if found is None:
            found = rows_per_pass(self.source.footprint(features, targets), expected=self.expected)
            check_company(self.source, features, targets, rows=found)
            self.__dict__["_per_pass"] = found
        return int(found)
