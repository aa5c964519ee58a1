"""The sum of clipped gradients is Opacus', layer by layer; and no record moves it by more than the clipping norm."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from fedsci.training.per_record.book_keeping import BookKeeping
from fedsci.training.per_record.opacus_rows import OpacusRows

C = 0.5


def error(found, expected) -> float:
    return float(np.abs(found - expected).max()) / C


def test_the_sum_is_that_of_opacus_gradients_and_a_wrong_factor_is_noticed(zoo, model):
    module, features, targets = zoo.made(model, 12)
    expected = zoo.by_opacus(module, features, targets, C)
    found = zoo.clipped(module, C).sum_of(features, targets, np.arange(12))
    assert found.dtype == np.float64
    assert found.shape == (sum(p.numel() for p in module.parameters()),)
    assert error(found, expected) < 1e-5
    assert error(found, zoo.by_opacus(module, features, targets, C * 1.001)) > 1e-5
    assert error(found, zoo.one_by_one(module, features, targets, C)) < 1e-5


def test_only_layers_of_other_types_are_left_to_opacus(zoo, model):
    module, _, _ = zoo.made(model, 1)
    by_opacus = model in {"own_parameter", "transposed_convolution"}
    assert isinstance(zoo.clipped(module).source, OpacusRows if by_opacus else BookKeeping)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    rows=st.integers(1, 40),
    norm=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_mlp_of_any_shape(zoo, sizes, rows, norm, seed):
    torch.manual_seed(seed)
    layers = [layer for i, o in pairwise([*sizes, 3]) for layer in (nn.Linear(i, o), nn.Tanh())]
    module, features, targets = nn.Sequential(*layers), torch.randn(rows, sizes[0]), torch.randint(0, 3, (rows,))
    found = zoo.clipped(module, norm).sum_of(features, targets, np.arange(rows))
    assert np.abs(found - zoo.by_opacus(module, features, targets, norm)).max() <= 1e-5 * norm


def test_an_output_changed_in_place_is_no_obstacle(zoo):
    torch.manual_seed(0)
    layers = nn.Linear(5, 5), nn.ReLU(inplace=True), nn.Linear(5, 4, bias=False), nn.ReLU(inplace=True)
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(12, 3))
    features, targets = torch.randn(8, 3, 5), torch.randint(0, 3, (8,))
    found = zoo.clipped(module, C).sum_of(features, targets, np.arange(8))
    assert error(found, zoo.one_by_one(module, features, targets, C)) < 1e-5


@pytest.mark.parametrize("padding_mode", ["reflect", "circular", "replicate"])
def test_padding_modes_of_convolutions(zoo, padding_mode):
    # Opacus pads with zeros whatever the mode
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode=padding_mode), nn.Flatten())
    module.append(nn.Linear(3 * 5 * 7, 3))
    features, targets = torch.randn(8, 2, 5, 5), torch.randint(0, 3, (8,))
    found = zoo.clipped(module, C).sum_of(features, targets, np.arange(8))
    assert error(found, zoo.one_by_one(module, features, targets, C)) < 1e-5


def test_the_padding_row_of_an_embedding_gets_no_gradient(zoo):
    # Opacus gives it one
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(5, 4, padding_idx=2), nn.Flatten(), nn.Linear(24, 3))
    features, targets = torch.randint(0, 5, (8, 6)), torch.randint(0, 3, (8,))
    found = zoo.clipped(module, C).sum_of(features, targets, np.arange(8))
    assert error(found, zoo.one_by_one(module, features, targets, C)) < 1e-5
    assert not found[8:12].any()


def test_frozen_and_unused_parameters_stay_zero_and_do_not_count(zoo, known):
    if known == "tied":
        pytest.skip("it has one parameter")
    module, features, targets = zoo.made(known, 6)
    holder = nn.ModuleDict({"used": module, "spare": nn.Linear(2, 2)})
    holder.forward = lambda x: holder["used"](x)
    next(module.parameters()).requires_grad_(False)
    found = zoo.clipped(holder, C).sum_of(features, targets, np.arange(6))
    size = next(module.parameters()).numel()
    assert not found[:size].any()
    assert not found[-6:].any()
    assert error(found[:-6], zoo.one_by_one(module, features, targets, C)) < 1e-5


def test_no_record_gives_zeros(zoo, model):
    module, features, targets = zoo.made(model, 3)
    found = zoo.clipped(module).sum_of(features, targets, np.arange(0))
    assert found.tolist() == [0.0] * sum(p.numel() for p in module.parameters())


@pytest.mark.slow
def test_the_sum_does_not_depend_on_how_many_passes_it_takes(zoo, model):
    module, features, targets = zoo.made(model, 70)
    few, many = (zoo.clipped(module, C, expected=b).sum_of(features, targets, np.arange(70)) for b in (4096, 4))
    assert error(few, many) < 1e-5


@pytest.mark.parametrize("damage", [float("nan"), float("inf"), 3e38])
def test_a_damaged_record_adds_nothing_and_harms_no_other(zoo, known, damage):
    module, features, targets = zoo.made(known, 9)
    if not features.is_floating_point():
        pytest.skip("row numbers cannot be damaged")
    worker, rest = zoo.clipped(module, C), np.array([0, 1, 2, 3, 5, 6, 7, 8])
    others = worker.sum_of(features, targets, rest)
    features[4] = damage
    together = worker.sum_of(features, targets, np.arange(9))
    alone = worker.sum_of(features, targets, np.array([4]))
    assert np.isfinite(together).all()
    assert np.linalg.norm(alone) <= C
    if not np.isfinite(damage) or known == "linear":
        assert together - alone == pytest.approx(others, abs=1e-12)
    if not np.isfinite(damage):
        assert not alone.any()


def test_a_filling_record_that_is_damaged_harms_nobody(zoo):
    module, features, targets = zoo.made("mlp", 9)
    worker = zoo.clipped(module, C)
    expected = worker.sum_of(features, targets, np.arange(1, 9))
    features[0] = float("nan")
    assert worker.sum_of(features, targets, np.arange(1, 9)).tolist() == expected.tolist()


@pytest.mark.parametrize("rows", [16, 40])
def test_a_records_gradient_is_the_same_to_the_bit_in_every_place_and_company(zoo, model, rows):
    module, features, targets = zoo.made(model, 3 * rows, scale=30.0)
    source, subject = zoo.clipped(module).source, 0
    seen = []
    for place, company in ((0, 1), (1, 2), (rows // 2, 1), (rows - 1, 2), (7, 1)):
        index = torch.arange(company * rows, company * rows + rows)
        index[place] = subject
        others = features[index]
        if others.is_floating_point() and place == 7:
            others[8] = float("nan")
        pieces = source.pieces(others, targets[index])
        seen.append([values[place] for p in pieces.values() for values in (*p.stored(), *p.lengths())])
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))


@pytest.mark.parametrize("seed", [0, 3])
def test_weights_chosen_to_cancel_move_the_sum_by_no_more_than_the_norm(zoo, model, seed):
    module, features, targets = zoo.made(model, 24, seed=seed)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for p in module.parameters():  # every magnitude, and pairs of columns that cancel
            values = rng.choice([-1.0, 1.0], p.shape) * 2.0 ** rng.integers(-20, 12 + 8 * seed, p.shape)
            p.copy_(torch.from_numpy(values))
            if p.ndim > 1 and p.shape[1] > 1:
                p[:, 1] = -p[:, 0]
        if features.is_floating_point():
            features[:, ...] = torch.from_numpy(np.sign(rng.normal(size=features.shape)))
    worker = zoo.clipped(module, C)
    whole = worker.sum_of(features, targets, np.arange(24))
    for row in (0, 11, 23):
        without = worker.sum_of(features, targets, np.delete(np.arange(24), row))
        assert np.linalg.norm(whole - without) <= C
        assert np.linalg.norm(worker.sum_of(features, targets, np.array([row]))) <= C
