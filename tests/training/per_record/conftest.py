"""Models of every supported layer, and the sums they should give."""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from opacus.layers import DPMultiheadAttention
from torch import Tensor, nn
from torch.nn import functional

from fedsci.privacy.clipping import clip_factors
from fedsci.training.learner import single_thread
from fedsci.training.per_record import ClippedGradients

CLASSES = 3


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.norm = nn.Embedding(11, 8), nn.LayerNorm(8)
        self.attention, self.head = DPMultiheadAttention(8, 2, batch_first=True), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(x)
        n = self.norm(h)
        return self.head((h + self.attention(n, n, n, need_weights=False)[0]).mean(1))


class Twice(nn.Module):
    """One layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(5, 5), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.layer(torch.tanh(self.layer(x)))))


class Tied(nn.Module):
    """An embedding whose table is also the head's matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.head = nn.Embedding(CLASSES, 6), nn.Linear(6, CLASSES, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.tokens(x % CLASSES).sum(1)))


class Own(nn.Module):
    """A layer with a parameter of its own: Opacus follows it by functorch."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def flat(*layers: nn.Module, out: int) -> nn.Module:
    return nn.Sequential(*layers, nn.Tanh(), nn.Flatten(), nn.Linear(out, CLASSES))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, CLASSES), (5,)),
    "mlp": (lambda: nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, CLASSES)), (5,)),
    "linear_of_few_positions": (lambda: flat(nn.Linear(9, 13), out=39), (3, 9)),
    "linear_of_many_positions": (lambda: flat(nn.Linear(9, 3, bias=False), out=60), (20, 9)),
    "linear_of_long_rows": (lambda: flat(nn.Linear(70, 61), out=18 * 61), (18, 70)),
    "conv1d": (lambda: flat(nn.Conv1d(2, 5, 3, stride=2, padding=1, dilation=2), out=20), (2, 9)),
    "conv1d_same": (lambda: flat(nn.Conv1d(2, 5, 3, padding="same", dilation=2), out=45), (2, 9)),
    "conv2d": (lambda: flat(nn.Conv2d(3, 5, (3, 2), stride=(1, 2), padding=(1, 0)), out=105), (3, 7, 6)),
    "conv2d_groups": (lambda: flat(nn.Conv2d(4, 6, 3, groups=2, bias=False), out=54), (4, 5, 5)),
    "conv2d_whole_image": (lambda: flat(nn.Conv2d(3, 8, 4), out=8), (3, 4, 4)),
    "conv3d": (lambda: flat(nn.Conv3d(2, 3, 2), out=36), (2, 3, 3, 4)),
    "embedding": (lambda: nn.Sequential(nn.Embedding(11, 4), nn.Flatten(), nn.Linear(28, CLASSES)), (7,)),
    "layer_norm": (lambda: flat(nn.Linear(5, 6), nn.LayerNorm(6), out=24), (4, 5)),
    "layer_norm_of_two": (lambda: flat(nn.LayerNorm((4, 5)), out=20), (4, 5)),
    "rms_norm": (lambda: flat(nn.RMSNorm(5), out=20), (4, 5)),
    "group_norm": (lambda: flat(nn.Conv2d(1, 6, 3), nn.GroupNorm(3, 6), out=54), (1, 5, 5)),
    "instance_norm": (lambda: flat(nn.InstanceNorm2d(3, affine=True), out=75), (3, 5, 5)),
    "attention": (Attending, (5,)),
    "layer_used_twice": (Twice, (5,)),
    "tied": (Tied, (4,)),
    "own_parameter": (lambda: nn.Sequential(Own(), nn.Linear(5, CLASSES)), (5,)),
    "transposed_convolution": (lambda: flat(nn.ConvTranspose1d(2, 3, 3), out=18), (2, 4)),
}
BY_OPACUS = {"own_parameter", "transposed_convolution"}
OF_NUMBERS = {"embedding", "attention", "tied"}


def losses(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets, reduction="none")


def made(name: str, rows: int, *, seed: int = 0, scale: float = 1.0) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(seed)
    build, shape = MODELS[name]
    model = build()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale).add_(torch.randn(p.shape) * 0.1 * scale)
    features = torch.randint(0, 11, (rows, *shape)) if name in OF_NUMBERS else torch.randn(rows, *shape)
    return model, features, torch.randint(0, CLASSES, (rows,))


def clipped(model: nn.Module, clipping_norm: float = 0.5, expected: float = 20) -> ClippedGradients:
    return ClippedGradients(module=model, losses=losses, clipping_norm=clipping_norm, expected=expected)


def by_opacus(model: nn.Module, features: Tensor, targets: Tensor, clipping_norm: float) -> np.ndarray:
    """The sum as Opacus' per-record gradients give it, clipped and added in float64."""
    wrapped = GradSampleModule(deepcopy(model), loss_reduction="sum")
    losses(wrapped(features), targets).sum().backward()
    rows = torch.cat([p.grad_sample.flatten(1) for p in wrapped.parameters()], 1).double().numpy()
    return clip_factors(np.linalg.norm(rows, axis=1), clipping_norm) @ rows


def one_by_one(model: nn.Module, features: Tensor, targets: Tensor, clipping_norm: float) -> np.ndarray:
    """The sum as plain gradients of one record at a time give it."""
    model, total = deepcopy(model), 0.0
    for i in range(len(features)):
        model.zero_grad()
        losses(model(features[i : i + 1]), targets[i : i + 1]).sum().backward()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
        row = torch.cat([g.flatten() for g in grads]).double().numpy()
        total = total + row * clip_factors(np.array([np.linalg.norm(row)]), clipping_norm)
    return np.asarray(total)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    single_thread()


@pytest.fixture
def zoo():
    """What the tests of this folder share."""
    return _Zoo


class _Zoo:
    models = sorted(MODELS)
    made, clipped, by_opacus, one_by_one, losses = map(staticmethod, (made, clipped, by_opacus, one_by_one, losses))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``model`` runs over every model, ``known`` over those that need no Opacus."""
    if "model" in metafunc.fixturenames:
        metafunc.parametrize("model", list(MODELS))
    if "known" in metafunc.fixturenames:
        metafunc.parametrize("known", [name for name in MODELS if name not in BY_OPACUS])
