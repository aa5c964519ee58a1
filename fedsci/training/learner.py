"""One model beside one table of records: the gradients and updates a site computes from them.

Threads: every learner owns its module. For bit-for-bit equal results torch runs one thread a site
(:func:`single_thread`), whatever the engine.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedsci.config.plan import Plan
from fedsci.data.schema import Scale
from fedsci.data.table import Table
from fedsci.errors import InputError
from fedsci.strategies import is_module
from fedsci.strategies.one_exchange import OneExchange
from fedsci.training.losses import record_losses
from fedsci.training.models import build_model, entries_of, image_shape, load_vector, outputs_of, read_vector
from fedsci.training.schema import learned_scale
from fedsci.training.statistics import ClippedStatistics

#: Of any model; a plan that asks for more comes from somebody who wants memory, not a model.
MOST_PARAMETERS = 10**9

CHUNK = 256  # records in one forward pass where only sums are wanted


def single_thread() -> None:
    """Make torch use one thread a site in this process, so that sums do not depend on the core count."""
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Learner:
    """A model family bound to a site's training records.

    Attributes:
        plan: the study's plan.
        table: the site's training records, encoded.
        device: where tensors live.
        public_records: rows (or groups) of the training side of the file, those with gaps included: what noised sums
            are divided by. ``records`` would tell how many rows have gaps. None: all rows are usable.
    """

    plan: Plan
    table: Table
    device: torch.device
    public_records: int | None = None

    @cached_property
    def module(self) -> nn.Module:
        """The model; its parameters are overwritten by every call."""
        single_thread()
        return module_for(self.plan, inputs=self.table.features.shape[1]).to(self.device)

    @cached_property
    def features(self) -> torch.Tensor:
        """Encoded features on the device, shape ``(n, width)``."""
        return torch.from_numpy(self.table.features).to(self.device)

    @cached_property
    def targets(self) -> torch.Tensor:
        """Targets on the device as the model learns them, shape ``(n,)``."""
        targets = torch.from_numpy(self.table.target)
        scale = learned_scale(self.plan.study)
        if scale != Scale(centre=0.0, unit=1.0):
            targets = (targets - scale.centre) / scale.unit
        return targets.to(self.device)

    @property
    def records(self) -> int:
        """Number of usable training records."""
        return len(self.table.features)

    @property
    def units(self) -> int:
        """Number of records, or of groups of records where those are what is protected."""
        return self.table.units

    @property
    def divisor(self) -> int:
        """What noised sums are divided by, before the sample rate."""
        return self.units if self.public_records is None else self.public_records

    def mean_gradient(
        self, vector: NDArray[np.float32], *, sample_rate: float, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Return the gradient of the summed loss of a Poisson sample, over ``sample_rate * records``.

        No privacy: for studies with ``mechanism: none``. An empty sample gives zeros.
        """
        load_vector(self.module, vector)
        chosen = np.arange(self.records)
        if sample_rate < 1:
            chosen = chosen[rng.random(self.records) < sample_rate]
        self.module.zero_grad()
        for start in range(0, len(chosen), CHUNK):
            self._loss(chosen[start : start + CHUNK]).sum().backward()  # type: ignore[no-untyped-call]
        if len(chosen) == 0:
            return np.zeros(vector.shape, np.float32)
        scale = 1.0 / (sample_rate * self.records)
        grads = [(p.grad * scale).reshape(-1).cpu().numpy() for p in self.module.parameters() if p.grad is not None]
        return np.concatenate(grads)

    def statistics(self, clipping_norm: float) -> ClippedStatistics:
        """Return the strategy's statistics of the records, each clipped.

        Raises:
            InputError: the strategy has none.
        """
        strategy = self.plan.strategy
        if not isinstance(strategy, OneExchange):
            raise InputError(f"{strategy.name} has no statistics of records")
        return ClippedStatistics(
            strategy=strategy,
            table=self.table,
            clipping_norm=clipping_norm,
            one_by_one=is_module(self.plan.recipe.name),
        )

    def mean_statistics(
        self, *, clipping_norm: float, sample_rate: float, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Return the clipped statistics of a Poisson sample, summed, over ``sample_rate * divisor``; float32 ``(k,)``.

        No privacy.
        """
        chosen = np.arange(self.units)
        if sample_rate < 1:
            chosen = chosen[rng.random(self.units) < sample_rate]
        total = self.statistics(clipping_norm).sum_of(chosen)
        return (total / (sample_rate * self.divisor)).astype(np.float32)

    def local_update(
        self,
        vector: NDArray[np.float32],
        *,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        momentum: float,
        rng: np.random.Generator,
        pull: "Pull | None" = None,
        intercept_only: bool = False,
        most_steps: int | None = None,
    ) -> NDArray[np.float32]:
        """Return new minus old weights after ``epochs`` passes of SGD over shuffled batches. No privacy.

        Running statistics of a batch normalisation move as the batches say; a last batch of one record, which has no
        variance, joins the one before it. With ``intercept_only`` nothing moves but the bias of the outputs, a model's
        last parameter. Training ends after ``most_steps``, also within a pass.
        """
        load_vector(self.module, vector)
        self.module.train(not intercept_only)
        trained = list(self.module.parameters())
        optimiser = torch.optim.SGD(trained[-1:] if intercept_only else trained, lr=learning_rate, momentum=momentum)
        for rows in islice(self._batches(epochs, batch_size, rng), most_steps):
            optimiser.zero_grad()
            self._loss(rows).mean().backward()  # type: ignore[no-untyped-call]
            if pull is not None:
                pull.add_to(self.module)
            optimiser.step()
        with np.errstate(over="ignore", invalid="ignore"):  # of training that diverged; whoever uses it looks
            return read_vector(self.module) - vector

    def _batches(self, epochs: int, batch_size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        for _ in range(epochs):
            order = rng.permutation(self.records)
            batches = [order[start : start + batch_size] for start in range(0, self.records, batch_size)]
            if self.plan.study.model.normalised > 0 and len(batches) > 1 and len(batches[-1]) == 1:
                batches[-2:] = [np.concatenate(batches[-2:])]
            yield from batches

    def _loss(self, rows: NDArray[np.int64]) -> torch.Tensor:
        index = torch.from_numpy(rows).to(self.device)
        return record_losses(self.plan.study.task.kind, self.module(self.features[index]), self.targets[index])


@dataclass(frozen=True, kw_only=True, eq=False)
class Pull:
    """What is added to every step's gradient, whatever the records: ``proximal * (w - start) + correction``.

    Attributes:
        start: the weights where local training began, float32 ``(d,)``.
        proximal: mu of FedProx.
        correction: a fixed direction, float32 ``(d,)``, or None.
    """

    start: NDArray[np.float32]
    proximal: float = 0.0
    correction: NDArray[np.float32] | None = None

    def add_to(self, module: nn.Module) -> None:
        """Add it to the gradients of a module's parameters."""
        at = 0
        for _, p in entries_of(module):
            piece = slice(at, at + p.numel())
            at += p.numel()
            if p.grad is None:
                continue
            if self.proximal:
                p.grad.add_(p.detach() - _like(self.start[piece], p), alpha=self.proximal)
            if self.correction is not None:
                p.grad.add_(_like(self.correction[piece], p))


def _like(values: NDArray[np.float32], parameter: torch.Tensor) -> torch.Tensor:
    # a copy: what was received is not writable, and torch warns of that
    return torch.tensor(values, device=parameter.device).reshape(parameter.shape)


def module_for(plan: Plan, *, inputs: int) -> nn.Module:
    """Return the untrained module of the plan's model for records of ``inputs`` encoded features.

    Raises:
        InputError: it has more than ``MOST_PARAMETERS``; found out before memory is taken: plans come from others.
    """
    study = plan.study
    outputs, image = outputs_of(study), image_shape(study)
    try:
        with torch.device("meta"):
            bare = build_model(study.model, inputs=inputs, outputs=outputs, image=image)
        size = sum(parameter.numel() for parameter in bare.parameters())
    except (RuntimeError, TypeError):  # a layer of more numbers than torch can count
        size = MOST_PARAMETERS + 1
    if size > MOST_PARAMETERS:
        message = f"the study's model has more than {MOST_PARAMETERS:,} parameters"
        raise InputError(message, hint="lower model.hidden or model.channels", public=message)
    return build_model(study.model, inputs=inputs, outputs=outputs, image=image)
