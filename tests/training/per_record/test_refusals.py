"""Models that mix records, hide a parameter's use or draw random numbers are refused, with what to use instead."""

from dataclasses import replace
from threading import Event, Thread

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fedsci.errors import ConfigError


def refusal(zoo, module, features) -> str:
    with pytest.raises(ConfigError) as refused:
        zoo.clipped(module).sum_of(features, torch.zeros(len(features), dtype=torch.int64), np.arange(len(features)))
    return f"{refused.value.message}; {refused.value.hint}"


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (nn.BatchNorm1d(5), "replace BatchNorm by GroupNorm or LayerNorm"),
        (nn.BatchNorm1d(5, affine=False), "replace BatchNorm by GroupNorm or LayerNorm"),
        (nn.SyncBatchNorm(5), "replace BatchNorm by GroupNorm or LayerNorm"),
        (nn.MultiheadAttention(5, 1), "opacus.layers.DPMultiheadAttention"),
        (nn.TransformerEncoderLayer(5, 1, 4, dropout=0.0), "opacus.layers.DPMultiheadAttention"),
        (nn.LSTM(5, 5), "opacus.layers.DPLSTM"),
        (nn.Dropout(0.1), "set its p to 0"),
        (nn.Embedding(5, 5, max_norm=1.0), "leave max_norm out"),
        (nn.Embedding(5, 5, scale_grad_by_freq=True), "leave scale_grad_by_freq out"),
        (nn.InstanceNorm1d(5, affine=True, track_running_stats=True), "leave track_running_stats out"),
    ],
    ids=str,
)
def test_a_layer_that_cannot_be_clipped_is_refused_by_name(zoo, layer, said):
    message = refusal(zoo, nn.Sequential(nn.Linear(5, 5), layer, nn.Linear(5, 3)), torch.randn(4, 5))
    assert said in message
    assert "gradients: 1" in message  # the layer's name


def test_dropout_that_drops_nothing_is_no_obstacle(zoo):
    module, features, targets = nn.Sequential(nn.Dropout(0.0), nn.Linear(5, 3)), torch.randn(4, 5), torch.arange(4) % 3
    found = zoo.clipped(module, 0.5).sum_of(features, targets, np.arange(4))
    assert found == pytest.approx(zoo.one_by_one(module, features, targets, 0.5), abs=5e-6)


class Model(nn.Module):
    """Two layers and something wrong between them."""

    def __init__(self, between) -> None:
        super().__init__()
        self.first, self.second, self.between = nn.Linear(5, 5), nn.Linear(5, 3), between

    def forward(self, x):
        return self.second(self.between(self, self.first(x)))


def changed_in_place(model, x):
    y = model.second.weight.new_zeros(()) + x
    z = model.first(y)
    y += 1
    return z


@pytest.mark.parametrize(
    ("between", "said"),
    [
        (lambda model, x: functional.dropout(x, 0.5), "random numbers"),
        (lambda model, x: x + torch.randn(x.shape), "random numbers"),
        (
            lambda model, x: functional.linear(x, model.first.weight),
            "parameter first.weight is used 2 times, 1 of them",
        ),
        (lambda model, x: x @ model.second.weight.T @ model.second.weight, "parameter second.weight"),
        (lambda model, x: (model.first(x), x)[1], "does not reach the loss"),
        (lambda model, x: model.first(x.T @ x)[:1] + x, "not called with one record a row"),
        (
            lambda model, x: model.first(x[None].transpose(0, 1).reshape(1, -1, 5))[0],
            "not called with one record a row",
        ),
        (changed_in_place, "changed in place"),
    ],
)
def test_a_use_that_cannot_be_followed_is_refused(zoo, between, said):
    assert said in refusal(zoo, Model(between), torch.randn(4, 5))


@pytest.mark.parametrize("size", [2, 3])
def test_a_first_dimension_that_agrees_by_chance_is_noticed(zoo, size):
    class PositionsFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 3)

        def forward(self, x):
            return self.layer(x.transpose(0, 1)).sum(0)

    message = refusal(zoo, PositionsFirst(), torch.randn(4, size, 5))
    assert "not called with one record a row" in message


def test_a_loss_that_is_not_one_number_a_record_is_refused(zoo):
    worker = replace(zoo.clipped(nn.Linear(5, 3)), losses=functional.cross_entropy)
    with pytest.raises(ConfigError, match="losses of shape"):
        worker.sum_of(torch.randn(4, 5), torch.arange(4) % 3, np.arange(4))


def test_opacus_is_refused_where_it_gives_no_gradient_a_record(zoo):
    class MoreRows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.layer = nn.ConvTranspose1d(1, 1, 1), nn.Linear(5, 3)

        def forward(self, x):
            return self.layer(self.first(x).reshape(-1, 5)).reshape(len(x), -1, 3).sum(1)

    assert "no gradient a record was found for parameter layer" in refusal(zoo, MoreRows(), torch.randn(4, 1, 10))


def test_random_numbers_are_noticed_where_opacus_makes_the_gradients(zoo):
    class Dropping(nn.Module):
        def forward(self, x):
            return functional.dropout(x, 0.5)

    module = nn.Sequential(nn.ConvTranspose1d(1, 1, 1), Dropping(), nn.Flatten(), nn.Linear(10, 3))
    assert "draws random numbers" in refusal(zoo, module, torch.randn(4, 1, 10))


@pytest.mark.parametrize(("dropout", "refused"), [(0.0, False), (0.1, True)])
def test_attention_is_refused_only_where_it_drops_something(zoo, dropout, refused):
    module = Model(lambda model, x: functional.scaled_dot_product_attention(x, x, x, dropout_p=dropout).mean(1))
    features = torch.randn(4, 2, 5)
    if refused:
        assert "random numbers" in refusal(zoo, module, features)
    else:
        assert zoo.clipped(module).sum_of(features, torch.zeros(4, dtype=torch.int64), np.arange(4)).any()


def test_random_numbers_drawn_by_other_threads_are_no_obstacle(zoo):
    done = Event()

    def draw() -> None:
        while not done.is_set():
            torch.randn(8)

    thread = Thread(target=draw)
    thread.start()
    try:
        for seed in range(20):
            module, features, targets = zoo.made("mlp", 4, seed=seed)
            zoo.clipped(module).sum_of(features, targets, np.arange(4))
    finally:
        done.set()
        thread.join()


def test_nothing_is_left_on_the_model(zoo, model):
    module, features, targets = zoo.made(model, 4)
    zoo.clipped(module).sum_of(features, targets, np.arange(4))
    assert not any(layer._forward_hooks or layer._backward_hooks for layer in module.modules())
    assert all(p.grad is None and getattr(p, "grad_sample", None) is None for p in module.parameters())
