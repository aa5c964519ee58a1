"""The clipped sum over groups of records: all records of one group together are clipped as one."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsci.privacy.clipping import clip_rows
from fedsci.training.per_record.company import check_company
from fedsci.training.per_record.opacus_rows import OpacusRows
from fedsci.training.per_record.passes import rows_per_pass
from fedsci.training.per_record.pieces import Rows
from fedsci.training.per_record.refusals import check_model
from fedsci.training.per_record.trial import Losses


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupedGradients:
    """A model whose gradients can be clipped group by group.

    Attributes:
        module, losses: as for :class:`~fedsci.training.per_record.clipped.ClippedGradients`.
        clipping_norm: L2 bound C of one group: the sensitivity of the sum when one group is added or removed.
        expected: how many groups a sum holds on average, a public number; the shape of a pass follows from it.
    """

    module: nn.Module
    losses: Losses
    clipping_norm: float
    expected: float

    @cached_property
    def _source(self) -> OpacusRows:
        check_model(self.module)
        return OpacusRows(self.module, self.losses)

    def sum_of(
        self, features: Tensor, targets: Tensor, of_row: NDArray[np.int64], groups: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the sum over ``groups`` of the clipped mean gradient of each one's records, float64 ``(d,)``.

        However many records a group has, it adds at most C; one with a gradient that is not finite adds nothing. Its
        records are added up one by one in their own order, wherever passes end: weights can be chosen for which what
        survives of a sum depends on the order, which must not depend on other groups. Passes are filled up to one
        public size, as for single records.

        Args:
            features, targets: the model's inputs and targets, one record a row.
            of_row: each row's group, numbered from 0.
            groups: numbers of the groups to sum over.

        Raises:
            ConfigError: the model mixes records or uses its parameters in a way that cannot be followed.
        """
        order = np.argsort(of_row, kind="stable")
        rows, sizes = order[np.isin(of_row[order], groups)], np.bincount(of_row)
        size = sum(p.numel() for p in self.module.parameters())
        total, pending, done = np.zeros(size), torch.zeros(size, dtype=torch.float64, device=features.device), 0
        per_pass = self._rows_per_pass(features, targets)
        for start in range(0, len(rows), per_pass):
            chosen = rows[start : start + per_pass]
            gradients = self._gradients(features, targets, chosen, per_pass)
            edges = np.flatnonzero(np.diff(of_row[chosen])) + 1
            for first, last in pairwise([0, *edges.tolist(), len(chosen)]):
                for row in range(first, last):
                    pending += torch.cat([part[row] for part in gradients]).double()
                done += last - first
                if done == sizes[of_row[chosen[first]]]:
                    mean = pending.cpu().numpy() / done
                    if np.isfinite(mean).all():
                        total += clip_rows(mean[None], self.clipping_norm)[0]
                    pending.zero_()
                    done = 0
        return total

    def _gradients(self, features: Tensor, targets: Tensor, rows: NDArray[np.int64], per_pass: int) -> list[Tensor]:
        """Return the gradients of the rows, ``(per_pass, numel)`` for each parameter, by one pass of public size."""
        filled = np.concatenate([rows, np.zeros(per_pass - len(rows), rows.dtype)])
        index = torch.from_numpy(filled).to(features.device)
        pieces = self._source.pieces(features.index_select(0, index), targets.index_select(0, index))
        found = []
        for parameter in self.module.parameters():
            piece = pieces.get(parameter)
            missing = torch.zeros(per_pass, parameter.numel(), device=features.device)
            found.append(piece.values if isinstance(piece, Rows) else missing)
        return found

    def _rows_per_pass(self, features: Tensor, targets: Tensor) -> int:
        found = self.__dict__.get("_per_pass")
        if found is None:
            found = rows_per_pass(self._source.footprint(features, targets), expected=self.expected)
            check_company(self._source, features, targets, rows=found)
            self.__dict__["_per_pass"] = found
        return int(found)
