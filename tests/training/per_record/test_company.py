"""A machine, or a model, on which a record's gradient depends on its company is refused."""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from fedsci.errors import ConfigError
from fedsci.training.losses import record_losses
from fedsci.training.per_record import ClippedGradients


class Planted(nn.Module):
    """A layer beside which a fault of the machine is played: outputs change a little with place or company."""

    def __init__(self, fault) -> None:
        super().__init__()
        self.layer, self.fault = nn.Linear(5, 3), fault

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * (1 + 2**-22 * self.fault(x))


def by_place(x: Tensor) -> Tensor:
    return (torch.arange(len(x)) == len(x) - 1)[:, None]  # the last row ends in another kernel


def by_parity(x: Tensor) -> Tensor:
    return (torch.arange(len(x)) % 16 == 7)[:, None]


def by_company(x: Tensor) -> Tensor:
    return 8 * x.detach().nan_to_num().sum().sin()


def by_damage(x: Tensor) -> Tensor:
    return (~x.detach().isfinite()).any() * torch.ones(len(x), 1)


def test_every_known_model_passes_here(zoo, model):
    module, features, targets = zoo.made(model, 12)
    assert zoo.clipped(module).most_records(features, targets) > 0


@pytest.mark.parametrize("fault", [by_place, by_parity, by_company, by_damage])
def test_a_difference_in_the_last_bits_is_refused(zoo, fault):
    features, targets = torch.zeros(12, 5), torch.zeros(12, dtype=torch.long)
    with pytest.raises(ConfigError, match="depends on the records beside it"):
        zoo.clipped(Planted(fault)).most_records(features, targets)


def test_the_trial_reads_no_record_and_leaves_the_model_alone(zoo):
    module, features, targets = zoo.made("mlp", 12)
    before = [p.clone() for p in module.parameters()]
    features.fill_(float("nan"))
    assert zoo.clipped(module).most_records(features, targets) > 0
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize(("own", "seen"), [(None, "AUTO,STRICT"), ("COMPATIBLE", "COMPATIBLE")])
def test_products_are_reproducible_unless_an_operator_says_how(own, seen):
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    if own is not None:
        environment["MKL_CBWR"] = own
    said = subprocess.run(
        [sys.executable, "-c", "import os, fedsci.training; print(os.environ['MKL_CBWR'])"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == seen


@pytest.mark.parametrize("hidden", [0, 9, 32, 64])
@pytest.mark.parametrize("inputs", [11, 12, 16, 30])
def test_two_classes_pass_in_the_shape_of_any_sample(inputs, hidden):
    """A sigmoid's last bit differs between whole vectors of the processor and what is left over at the end."""
    layers = [nn.Linear(inputs, hidden), nn.Tanh()] if hidden else []
    module = nn.Sequential(*layers, nn.Linear(hidden or inputs, 1))
    for expected in (1, 8, 20, 40, 64, 400, 1600):
        clipped = ClippedGradients(
            module=module, losses=partial(record_losses, "binary"), clipping_norm=1.0, expected=expected
        )
        assert clipped.most_records(torch.zeros(9, inputs), torch.zeros(9)) > 0
