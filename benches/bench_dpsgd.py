"""Samples a second of DP-SGD's clipped sums beside plain SGD and Opacus' default, one thread; and peak memory.

A step of plain SGD: fetch a batch, forward, backward, update. Of ours: the clipped sum of a Poisson sample of the
same expected size, padding included (it counts as time, not as samples), and the same update. Of Opacus: hooks, its
optimiser's clipping, and the same update. Drawing the sample is not timed, and none of them makes noise
(bench_noise.py does). Time is CPU time; the three take turns.

Memory: what a fresh process needs at its highest for three steps beyond what it holds after a step of one record,
by Linux' account.
"""

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import numpy as np
import torch
from harness import Results, check, main
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fedsci.config.study import ModelSpec
from fedsci.training.models import build_model
from fedsci.training.per_record import ClippedGradients

Step: TypeAlias = Callable[[NDArray[np.int64]], None]
CLIPPING_NORM, RATE = 1.0, 0.125
CLASSES, VOCABULARY, LENGTH, WIDTH = 10, 1000, 64, 128
SIZES = [("mlp", 512), ("cnn", 64), ("cnn", 512), ("transformer", 128)]
ALSO = [("mlp", 64), ("transformer", 32)]


class Attention(nn.Module):
    """Self-attention of four heads."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).view(len(x), LENGTH, 4, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    """A layer of a transformer, norms first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention, self.second = nn.LayerNorm(WIDTH), Attention(), nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first(x))
        return x + self.down(functional.gelu(self.up(self.second(x))))


class Transformer(nn.Module):
    """Four layers over 64 tokens, and a class."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(4)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(LENGTH, device=x.device).expand(len(x), -1)
        return self.head(self.norm(self.blocks(self.tokens(x) + self.places(places))).mean(1))


def model_and_data(name: str, rows: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a model, features and targets, the same every time."""
    torch.manual_seed(0)
    targets = torch.randint(0, CLASSES, (rows,))
    if name == "transformer":
        return Transformer(), torch.randint(0, VOCABULARY, (rows, LENGTH)), targets
    if name == "mlp":
        model = build_model(ModelSpec(name="mlp", hidden=[128]), inputs=64, outputs=CLASSES, image=None)
        return model, torch.randn(rows, 64), targets
    model = build_model(ModelSpec(name="cnn"), inputs=784, outputs=CLASSES, image=(28, 28))
    return model, torch.randn(rows, 784), targets


def losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return one loss a record."""
    return functional.cross_entropy(outputs, targets, reduction="none")


def plain(name: str, batch: int) -> Step:
    """Return a step of plain SGD."""
    model, features, targets = model_and_data(name, int(batch / RATE))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)

    def step(rows: NDArray[np.int64]) -> None:
        index = torch.from_numpy(rows)
        optimiser.zero_grad()
        losses(model(features.index_select(0, index)), targets.index_select(0, index)).mean().backward()
        optimiser.step()

    return step


def ours(name: str, batch: int) -> Step:
    """Return a step with this project's clipped sum."""
    model, features, targets = model_and_data(name, int(batch / RATE))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    clipped = ClippedGradients(module=model, losses=losses, clipping_norm=CLIPPING_NORM, expected=batch)
    parameters = list(model.parameters())

    def step(rows: NDArray[np.int64]) -> None:
        total = torch.from_numpy((clipped.sum_of(features, targets, rows) / batch).astype(np.float32))
        for p, part in zip(parameters, total.split([p.numel() for p in parameters]), strict=True):
            p.grad = part.view(p.shape)
        optimiser.step()

    return step


def opacus(name: str, batch: int) -> Step:
    """Return a step with Opacus' hooks and its optimiser."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    model, features, targets = model_and_data(name, int(batch / RATE))
    wrapped = GradSampleModule(model)
    inner = torch.optim.SGD(wrapped.parameters(), lr=0.01)
    optimiser = DPOptimizer(inner, noise_multiplier=0.0, max_grad_norm=CLIPPING_NORM, expected_batch_size=batch)

    def step(rows: NDArray[np.int64]) -> None:
        index = torch.from_numpy(rows)
        optimiser.zero_grad()
        losses(wrapped(features.index_select(0, index)), targets.index_select(0, index)).mean().backward()
        optimiser.step()

    return step


WAYS = {"plain": plain, "ours": ours, "opacus": opacus}


def draw(way: str, batch: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the rows of a step: a Poisson sample for ours, ``batch`` of them for the others."""
    records = int(batch / RATE)
    return np.flatnonzero(rng.random(records) < RATE) if way == "ours" else rng.choice(records, batch, replace=False)


def rates(name: str, batch: int, repeats: int) -> dict[str, float]:
    """Return each way's median samples a second."""
    rng, steps = np.random.default_rng(0), {way: make(name, batch) for way, make in WAYS.items()}
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(repeats + 2):
        for way, step in steps.items():
            rows = draw(way, batch, rng)
            start = time.process_time()
            step(rows)
            found[way].append(len(rows) / (time.process_time() - start))
    return {way: median(values[2:]) for way, values in found.items()}


def peak_mb(name: str, way: str, batch: int) -> float:
    """Return by how many MB three steps of ``batch`` raise the memory of a fresh process, at the highest."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "--peak", name, way, str(batch)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout))


def status_mb(key: str) -> float:
    """Return a number of this process that Linux keeps: VmRSS is memory now, VmHWM its highest."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def print_peak(name: str, way: str, batch: int) -> None:
    """Print what :func:`peak_mb` reads."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    WAYS[way](name, 1)(np.arange(1))
    step = WAYS[way](name, batch)
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
    before = status_mb("VmRSS")
    for _ in range(3):
        step(draw(way, batch, rng))
    print(json.dumps(status_mb("VmHWM") - before))


def measure(quick: bool) -> Results:
    """Measure every model in turn."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    results = Results(bench="dpsgd")
    for name, batch in SIZES if quick else SIZES + ALSO:
        found = rates(name, batch, repeats=(5 if quick else 15) * (10 if name == "mlp" else 1))
        results.details[f"samples_per_s_{name}{batch}"] = found
        print(
            f"{name:<12} {batch:>4}  " + "  ".join(f"{way} {rate:10,.0f}/s" for way, rate in found.items()), flush=True
        )
        if (name, batch) in SIZES:
            results.checks.append(check(f"over_plain_{name}{batch}", found["ours"] / found["plain"], at_least=0.5))
            if found["opacus"] < found["plain"] / 2:
                results.checks.append(check(f"over_opacus_{name}{batch}", found["ours"] / found["opacus"], at_least=2))
    for name in ("mlp", "cnn", "transformer"):
        peaks: dict[str, Any] = {way: peak_mb(name, way, 512) for way in WAYS}
        results.details[f"peak_mb_{name}512"] = peaks
        print(f"{name:<12}  512  " + "  ".join(f"{way} {peak:10,.1f} MB" for way, peak in peaks.items()), flush=True)
        results.checks.append(check(f"memory_{name}512", peaks["ours"] / peaks["plain"], at_most=1.5))
    return results


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print_peak(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main("dpsgd", __doc__ or "", measure)
