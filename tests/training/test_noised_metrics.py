"""Metrics that are noised: no record weighs more than is paid for, and without the noise they are the exact ones."""

import os
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsci.config.masking import grid_for
from fedsci.config.study import EXACT_METRICS
from fedsci.config.study import METRICS as ALL
from fedsci.data.table import EncodingReport, Table
from fedsci.errors import InputError
from fedsci.privacy.randomness import KeyStream
from fedsci.privacy.rounding_noise import LARGEST_CENTRE, round_and_noise
from fedsci.training import evaluation
from fedsci.training.accountant import cost_of
from fedsci.training.device import CPU
from fedsci.training.evaluation import bounded_sums, evaluate
from fedsci.training.learner import CHUNK, module_for
from fedsci.training.metrics import finish, half_range
from fedsci.training.models import load_vector
from fedsci.training.noised_metrics import BINS, NoisedSums, sensitivity, sums_of
from fedsci.training.sums import metric_table, room_for_noise

METRICS = {kind: [name for name in names if name not in EXACT_METRICS] for kind, names in ALL.items()}
TASKS = {
    "binary": {"kind": "binary", "target": "y"},
    "multiclass": {"kind": "multiclass", "target": "y", "classes": ["a", "b", "c"]},
    "regression": {"kind": "regression", "target": "y", "min": 0, "max": 10},
}
LISTS = [
    (kind, list(some)) for kind in METRICS for n in range(1, 4) for some in combinations(METRICS[kind], n)
]  # fmt: skip
OUTPUTS = st.one_of(
    st.floats(-40, 40, width=32),
    st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0, 1e-45]),
)


@pytest.fixture
def plan_for(make_plan):
    def plan(kind, metrics=None, **changes):
        features = {"a": {"min": -1, "max": 1}, "b": {"min": -1, "max": 1}}
        evaluated = {"evaluation": {"metrics": list(metrics or METRICS[kind])}}
        return make_plan(task=TASKS[kind], features=features, **evaluated | changes)

    return plan


@pytest.fixture
def says(monkeypatch):
    """Let the model say whatever a test wants."""

    def arrange(outputs):
        import torch

        fixed = torch.from_numpy(np.asarray(outputs, np.float32))
        monkeypatch.setattr(evaluation, "_outputs", lambda _, table, *__, **___: fixed[: len(table.target)])

    return arrange


def table_of(target, features=None):
    rows = len(target)
    report = EncodingReport(rows_read=rows, rows_dropped_missing=0, clipped={}, unseen={}, missing={})
    features = np.zeros((rows, 2), np.float32) if features is None else features
    return Table(features=features, target=np.asarray(target), row_ids=np.arange(rows), report=report)


def records(kind, rows, seed=1):
    rng = np.random.default_rng(seed)
    features = rng.uniform(-1, 1, (rows, 2)).astype(np.float32)
    if kind == "regression":
        target = np.clip(features[:, 0] + rng.normal(0, 0.2, rows), -1, 1).astype(np.float32)
    else:
        target = rng.integers(0, 3, rows) if kind == "multiclass" else (features[:, 0] > 0).astype(np.int64)
    return table_of(target, features)


def model_for(kind, seed=2):
    return np.random.default_rng(seed).normal(0, 1, 9 if kind == "multiclass" else 3).astype(np.float32)


def sums(plan, model, table, weight=1.0):
    return bounded_sums(plan, model, table, site_weight=weight, device=CPU)


@pytest.mark.parametrize(("kind", "metrics"), LISTS, ids=str)
def test_no_record_moves_the_sums_by_more_than_the_sensitivity_whatever_the_model_says(
    plan_for, monkeypatch, kind, metrics
):
    import torch

    plan = plan_for(kind, metrics)
    model, bound, worst = model_for(kind), sensitivity(plan), [0.0]
    width = 3 if kind == "multiclass" else 1
    targets = st.floats(-1, 1, width=32) if kind == "regression" else st.integers(0, width - 1 if width > 1 else 1)

    @settings(deadline=None, max_examples=60, database=None)
    @given(st.lists(OUTPUTS, min_size=width, max_size=width), targets, st.floats(1e-6, 1.0))
    def holds(output, target, weight):
        said = torch.tensor([output], dtype=torch.float32)
        with monkeypatch.context() as patch:
            patch.setattr(evaluation, "_outputs", lambda *_, **__: said)
            dtype = np.float32 if kind == "regression" else np.int64
            norm = np.linalg.norm(sums(plan, model, table_of(np.array([target], dtype)), weight))
        assert norm <= bound
        worst[0] = max(worst[0], norm)

    holds()
    for output in ([np.nan] * width, [-60.0] * width, [60.0] * width, [60.0, -60.0, -60.0][:width]):
        for target in (0, 1) if kind != "regression" else (-1.0, 1.0):
            said = torch.tensor([output], dtype=torch.float32)
            with monkeypatch.context() as patch:
                patch.setattr(evaluation, "_outputs", lambda *_, said=said, **__: said)
                dtype = np.float32 if kind == "regression" else np.int64
                worst[0] = max(worst[0], np.linalg.norm(sums(plan, model, table_of(np.array([target], dtype)))))
    assert worst[0] <= bound
    assert worst[0] > 0.99 * bound  # so a sensitivity 1 % smaller would be passed


@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize("rows", [1, CHUNK, CHUNK + 1, 3 * CHUNK - 5])
def test_a_record_adds_the_same_whoever_else_is_held_out_bit_for_bit(plan_for, kind, rows):
    plan, model, everybody = plan_for(kind), model_for(kind), records(kind, rows)
    total = sums(plan, model, everybody, 0.5)
    for gone in {0, rows // 2, rows - 1}:
        keep = np.arange(rows) != gone
        without = sums(plan, model, everybody.where(keep), 0.5) if keep.any() else np.zeros_like(total)
        assert (total - without).tolist() == sums(plan, model, everybody.where(~keep), 0.5).tolist()


@pytest.mark.parametrize(("kind", "width"), [("binary", 1), ("multiclass", 3)])
def test_losses_and_scores_are_the_same_to_the_bit_at_every_place_among_however_many(kind, width):
    """Else a record more would change the bins of others, whose scores lie at an edge because a model was made so."""
    for value in torch.linspace(-6, 6, 101).tolist():
        output, target = torch.tensor([[value, 0.3, -value][:width]]), torch.zeros(1, dtype=torch.int64)
        alone = evaluation._same_everywhere(kind, output, target)
        for rows in (7, 33, 48, CHUNK + 1):
            among = evaluation._same_everywhere(kind, output.repeat(rows, 1), target.repeat(rows))
            for one, many in zip(alone, among, strict=True):
                assert set(many.tolist()) == set(one.tolist())


def test_sums_that_are_rounded_would_depend_on_who_else_is_held_out(plan_for, monkeypatch):
    monkeypatch.setattr(evaluation, "_EXACT", 2.0**60)
    with pytest.raises(AssertionError):
        test_a_record_adds_the_same_whoever_else_is_held_out_bit_for_bit(plan_for, "regression", 3 * CHUNK - 5)


def noised(plan, values, holdouts, deviation=1e-9, smallest=None):
    return NoisedSums(
        plan=plan, values=values, holdouts=holdouts, smallest=smallest or min(holdouts), deviation=deviation
    )


@pytest.mark.parametrize(("kind", "metrics"), LISTS, ids=str)
def test_without_the_noise_they_are_the_exact_metrics(plan_for, kind, metrics):
    plan, model = plan_for(kind, metrics), model_for(kind)
    labs = [records(kind, rows, seed) for seed, rows in enumerate((40, 90, 300))]
    total = sum(sums(plan, model, lab, 40 / lab.rows) for lab in labs)
    exact = [evaluate(plan, model, lab, device=CPU) for lab in labs]
    unit = half_range(plan.study)
    expected = finish(exact[0] + exact[1] + exact[2], half_range=unit)
    measured = noised(plan, total, (40, 90, 300))
    found = measured.pooled()
    assert list(found) == metrics
    for metric in metrics:
        room = 1.0 / BINS if metric == "auroc" else 1e-5
        assert found[metric] == pytest.approx(expected[metric], abs=room)
    own = [finish(each, half_range=unit) for each in exact]
    for metric, mean in measured.mean_site().items():
        if metric in ("accuracy", "mae"):
            assert mean == pytest.approx(np.mean([each[metric] for each in own]), abs=1e-5)
        else:
            assert mean is None
    # losses and errors beyond what a record is counted with are the difference, and there are none here
    assert max(np.abs(total)) < 430


def test_what_a_record_is_counted_with_is_bounded(plan_for, says):
    says([[-1000.0]])
    assert noised(plan_for("binary"), sums(plan_for("binary"), model_for("binary"), table_of([1])), (1,)).pooled() == {
        "accuracy": 0.0, "log_loss": 8.0, "auroc": None
    }  # fmt: skip
    says([[1000.0]])
    plan = plan_for("regression")
    found = noised(plan, sums(plan, np.zeros(3, np.float32), table_of(np.zeros(1, np.float32))), (1,)).pooled()
    assert found == {"mae": 10.0, "rmse": 10.0, "r2": None}


@pytest.mark.parametrize("kind", METRICS)
def test_where_rows_are_dropped_the_count_is_private_and_no_site_is_weighted(plan_for, kind):
    plan, model = plan_for(kind, missing="drop"), model_for(kind)
    names = sums_of(plan)
    assert names[0] == "records"
    assert not [name for name in names if name.startswith("site_")]
    assert "records" not in sums_of(plan_for(kind))
    lab = records(kind, 50)
    assert sums(plan, model, lab)[0] == 50
    # the public count holds the dropped rows too; the metrics are over those that are left
    measured = noised(plan, sums(plan, model, lab), (80,))
    expected = finish(evaluate(plan, model, lab, device=CPU), half_range=half_range(plan.study))
    for metric, value in measured.pooled().items():
        assert value == pytest.approx(expected[metric], abs=1 / BINS if metric == "auroc" else 1e-5)
    assert set(measured.mean_site().values()) == {None}
    assert measured.mean_site_deviation() == {}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "missing"), [("binary", "refuse"), ("binary", "drop"), ("regression", "drop")])
def test_noised_metrics_are_unbiased_and_spread_as_they_say(plan_for, kind, missing):
    plan, model, rng = plan_for(kind, missing=missing), model_for(kind), np.random.default_rng(4)
    labs, deviation = [records(kind, rows, seed) for seed, rows in enumerate((150, 400))], 6.0
    total = sum(sums(plan, model, lab, 150 / lab.rows) for lab in labs)
    exact = noised(plan, total, (150, 400))
    drawn = [
        noised(plan, total + rng.normal(0, deviation, len(total)), (150, 400), deviation) for _ in range(3000)
    ]  # fmt: skip
    said = drawn[0].noise_deviation()
    assert set(said) == {metric for metric in plan.metrics if metric in ("accuracy", "log_loss", "mae")}
    for metric in said:
        stated = np.mean([each.noise_deviation()[metric] for each in drawn])
        values = np.array([each.pooled()[metric] for each in drawn])
        assert abs(values.mean() - exact.pooled()[metric]) < 4 * stated / np.sqrt(3000)
        assert 0.93 < values.std() / stated < 1.07
    for metric, stated in drawn[0].mean_site_deviation().items():
        values = np.array([each.mean_site()[metric] for each in drawn])
        assert abs(values.mean() - exact.mean_site()[metric]) < 4 * stated / np.sqrt(3000)
        assert 0.93 < values.std() / stated < 1.07


@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize("value", [-1e9, 0.0, 1e9])
def test_metrics_stay_in_their_ranges_whatever_the_noise_did(plan_for, kind, value):
    for missing in ("refuse", "drop"):
        plan = plan_for(kind, missing=missing)
        values = np.full(len(sums_of(plan)), value)
        measured = noised(plan, values, (30, 40), deviation=5.0)
        found = [*(measured.pooled() or {}).items(), *measured.mean_site().items()]
        for metric, number in found:
            limits = {"accuracy": (0, 1), "auroc": (0, 1), "log_loss": (0, 8), "mae": (0, 10), "rmse": (0, 10)}
            low, high = limits.get(metric, (-np.inf, 1))
            assert number is None or low <= number <= high


def test_a_class_that_cannot_be_told_from_noise_has_no_auroc(plan_for):
    plan = plan_for("binary", ["auroc"])
    values = np.zeros(len(sums_of(plan)))
    values[[3, BINS + 20]] = 100.0, 30.0
    assert noised(plan, values, (130,), deviation=2.0).pooled() == {"auroc": 1.0}
    assert noised(plan, values, (130,), deviation=3.0).pooled() is None


def test_more_records_than_fit_beside_the_noise_are_refused_before_any_are_clipped(plan_for):
    plan = plan_for("binary")
    cost = cost_of(plan, dimension=3)
    assert metric_table(plan, cost, noised=True, holdout=10**6).width == len(sums_of(plan))
    with pytest.raises(InputError, match="metric sums over 1000000000 records do not fit a ring of 32 bits") as refused:
        metric_table(plan, cost, noised=True, holdout=10**9)
    assert refused.value.hint == "use secure_aggregation.ring_bits: 64"


def test_no_sum_that_is_let_in_is_beyond_what_noise_can_be_drawn_around(plan_for):
    """An error there would say that a private sum is large."""
    plan = plan_for("binary", secure_aggregation={"ring_bits": 64})
    grid = grid_for(plan)
    assert grid.site_bound > LARGEST_CENTRE
    room = room_for_noise(grid, deviation=8.0)
    round_and_noise(np.array([room, -room], np.float64), gamma=1.0, deviation=8.0, keystream=KeyStream(os.urandom))
    with pytest.raises(InputError, match="too large for the grid"):
        round_and_noise(np.array([2.0**32]), gamma=1.0, deviation=8.0, keystream=KeyStream(os.urandom))


@pytest.mark.parametrize(
    "model",
    [
        {"name": "linear"},
        {"name": "mlp", "hidden": [33]},
        {"name": "mlp", "hidden": [128, 7]},
        {"name": "cnn", "channels": [3, 8], "hidden": [9]},
    ],
    ids=str,
)
def test_a_record_is_seen_alike_wherever_it_stands_also_by_a_model_made_to_tell(make_plan, model):
    """Weights so far apart that the order of additions decides what is left."""
    width, rows, rng = 196, CHUNK + 90, np.random.default_rng(3)
    columns = {f"c{number}": {"min": -1, "max": 1} for number in range(width)}
    if model["name"] == "cnn":
        columns = {"image": {"shape": [14, 14], "min": -1, "max": 1}}
    task = {"kind": "regression", "target": "y", "min": -1, "max": 1}
    plan = make_plan(features=columns, task=task, model=model)
    module = module_for(plan, inputs=width).eval()
    size = sum(parameter.numel() for parameter in module.parameters())
    load_vector(module, (rng.choice([-1, 1], size) * 2.0 ** rng.integers(-20, 20, size)).astype(np.float32))
    everybody = table_of(np.zeros(rows, np.float32), rng.uniform(-1, 1, (rows, width)).astype(np.float32))
    said = evaluation._outputs(module, everybody, CPU, rows=CHUNK).numpy()
    assert len(np.unique(said)) > 10
    for gone in (0, 1, 100, CHUNK, rows - 1):
        keep = np.arange(rows) != gone
        without = evaluation._outputs(module, everybody.where(keep), CPU, rows=CHUNK).numpy()
        assert without.tobytes() == said[keep].tobytes()
    assert evaluation._outputs(module, everybody.where(np.arange(rows) == 5), CPU, rows=CHUNK)[0] == said[5]
