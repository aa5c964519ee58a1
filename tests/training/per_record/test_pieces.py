"""What is measured is never shorter than what is added, where float32 inner products would be wrong by far."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsci.privacy.clipping import SLACK, clip_factors
from fedsci.training.per_record.pieces import CANCELLATION, Products, Rows, TableRows, norms_of, squared_norms


def exact_norm(left: torch.Tensor, right: torch.Tensor) -> float:
    """The norm of sum_t g_t aᵀ_t in rational arithmetic."""
    g, a = ([[Fraction(v) for v in row] for row in side.tolist()] for side in (left, right))
    total = Fraction(0)
    for i in range(len(g[0])):
        for j in range(len(a[0])):
            total += sum(g[t][i] * a[t][j] for t in range(len(g))) ** 2
    return float(np.sqrt(float(total)))


def gram_norm(left: torch.Tensor, right: torch.Tensor) -> float:
    """The norm by inner products in float32: what is not done here."""
    return float(((left @ left.T) * (right @ right.T)).sum().clamp(min=0).sqrt())


def cancelling(ratio: float, *, positions: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors in pairs of opposite sign, whose terms are about ``ratio`` times as long as their sum."""
    rng = np.random.default_rng(seed)
    g, a = rng.normal(size=(positions // 2, 5)), rng.normal(size=(positions // 2, 7))
    left = np.concatenate([g, -g * (1 - 1 / ratio)]).astype(np.float32)
    return torch.from_numpy(left), torch.from_numpy(np.concatenate([a, a]).astype(np.float32))


@pytest.mark.parametrize("seed", range(5))
def test_a_norm_under_cancellation_is_exact_where_float32_inner_products_are_not(seed):
    left, right = cancelling(20.0, seed=seed)
    left, right = left * 1e6, right * 1e-3
    true = exact_norm(left, right)
    assert norms_of([Products.of(left[None], right[None])]).item() == pytest.approx(true, rel=1e-9)
    far_left, far_right = cancelling(1e5, seed=seed)
    true = exact_norm(far_left, far_right)
    assert abs(gram_norm(far_left, far_right) / true - 1) > 0.1
    assert norms_of([Products.of(far_left[None], far_right[None])]).item() >= true


@given(st.floats(1, 1e7), st.integers(0, 1000), st.floats(-20, 20))
@settings(max_examples=40, deadline=None)
def test_no_products_are_measured_too_short_or_limited_too_little(ratio, seed, log_scale):
    left, right = cancelling(ratio, seed=seed)
    left = left * 2.0**log_scale
    piece = Products.of(left[None], right[None])
    norm = norms_of([piece]).item()
    assert norm >= exact_norm(left, right) * (1 - 1e-12)
    terms = float((left.double().norm(dim=1) * right.double().norm(dim=1)).sum())
    factor = clip_factors(np.array([norm]), 1.0)[0]
    assert terms * factor <= CANCELLATION
    total = torch.zeros(35, dtype=torch.float64)
    piece.add_to(total, torch.tensor([factor], dtype=torch.float64), None)
    assert total.norm().item() <= 1.0


def test_rows_are_measured_as_they_are_added():
    left, right = cancelling(1e9)
    piece = Rows.of_products(left[None], right[None])
    assert norms_of([piece]).item() == piece.values.double().norm().item()


@given(st.integers(4090, 9000), st.floats(-37, 37), st.integers(0, 3), st.floats(0, 30), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_long_rows_are_never_measured_too_short(width, log_scale, spikes, log_spike, seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(3, width)) * 10.0**log_scale
    rows[:, rng.integers(0, width, spikes)] *= 10.0**log_spike
    values = torch.from_numpy(np.clip(rows, -3e38, 3e38).astype(np.float32))
    exact = (values.double().numpy().astype(np.longdouble) ** 2).sum(1).astype(np.float64)
    found = squared_norms(values).numpy()
    assert (found >= exact * (1 - 1e-13)).all()
    assert (found <= exact * (1 + 5e-6)).all()


def test_a_long_row_that_is_damaged_has_no_norm():
    values = torch.ones(3, 5000)
    values[0, 17], values[1, 4999] = float("nan"), float("inf")
    assert torch.isfinite(squared_norms(values)).tolist() == [False, False, True]


@pytest.mark.parametrize("damage", [float("nan"), float("inf")])
def test_what_is_left_out_adds_nothing_in_every_form(damage):
    bad = torch.tensor([False, True, False])
    factors = torch.tensor([0.5, 0.0, 2.0], dtype=torch.float64)
    values = torch.arange(12.0).reshape(3, 2, 2)
    values[1] = damage
    numbers = torch.zeros(3, 2, dtype=torch.int64)
    for piece, size in (
        (Rows.of(values.flatten(1)), 4),
        (TableRows(numbers, values.double()), 4),
        (Products.of(values, torch.ones(3, 2, 3)), 6),
        (Products.of(torch.ones(3, 2, 3), values), 6),
    ):
        total = torch.zeros(size, dtype=torch.float64)
        assert not norms_of([piece])[1].isfinite()
        piece.add_to(total, factors, bad)
        assert total.isfinite().all()
        assert total.any()


def test_the_slack_covers_the_rounding_of_the_sums():
    # the bounds of the module's docstring, for 200,000 records
    records, unit = 200_000, 2.0**-53
    within_records = records * (512 + 3) * unit * CANCELLATION
    across_records = records * unit * records
    assert within_records + across_records < SLACK
