"""The shared model adapted at a lab: what moves, how far, and who may see it."""

import json
import secrets

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fedsci.config.site import load_site
from fedsci.data.table import EncodingReport, Table
from fedsci.errors import RoundAborted
from fedsci.site.memory import PERSONAL_MODEL
from fedsci.site.personal import personal_model
from fedsci.site.service import SiteService
from fedsci.training.learner import module_for
from fedsci.training.models import load_vector
from fedsci.transport.messages import Request

SHARED = np.array([0.3, -0.2, 0.1], np.float32)
OPEN = {"mechanisms": ["local", "none"]}


@pytest.fixture
def table():
    rng = np.random.default_rng(4)
    features = rng.uniform(-1, 1, (40, 2)).astype(np.float32)
    report = EncodingReport(rows_read=40, rows_dropped_missing=0, clipped={}, unseen={}, missing={})
    target = (features[:, 0] > 0.4).astype(np.int64)
    return Table(features=features, target=target, row_ids=np.arange(40), report=report)


@pytest.fixture
def adapt(make_plan, table):
    def made(shared=SHARED, *, model=None, **personalise):
        plan = make_plan(personalise=personalise, **({"model": model} if model else {}))
        return personal_model(plan, "lab-1", table, shared, device=torch.device("cpu"))

    return made


def loss(plan, table, vector) -> float:
    module = module_for(plan, inputs=2)
    load_vector(module, vector)
    outputs = module(torch.from_numpy(table.features)).squeeze(1)
    target = torch.from_numpy(table.target).float()
    return torch.nn.functional.binary_cross_entropy_with_logits(outputs, target).item()


@pytest.mark.parametrize("method", ["fine_tune", "local_intercept", "ditto"])
def test_it_fits_the_labs_records_better_and_is_the_same_every_time(adapt, make_plan, table, method):
    found = adapt(method=method)
    assert loss(make_plan(), table, found) < loss(make_plan(), table, SHARED) - 1e-3
    assert found.tobytes() == adapt(method=method).tobytes()


def test_a_local_intercept_moves_the_output_bias_alone(adapt):
    moved = adapt(method="local_intercept") != SHARED
    assert moved.tolist() == [False, False, True]
    size = 2 * 4 + 4 + 4 + 1
    start = np.random.default_rng(1).normal(size=size).astype(np.float32)
    mlp = {"name": "mlp", "hidden": [4]}
    assert np.flatnonzero(adapt(start, model=mlp, method="local_intercept") != start).tolist() == [size - 1]


def test_ditto_lies_between_the_shared_model_and_the_fine_tuned_one(adapt):
    far = np.linalg.norm(adapt(method="fine_tune") - SHARED)
    distances = [np.linalg.norm(adapt(method="ditto", proximal=p) - SHARED) for p in (0.01, 0.3, 3.0)]
    assert far > distances[0] > distances[1] > distances[2] > 0


def test_dittos_minimum_is_where_the_pull_holds_the_gradient(adapt, make_plan, table):
    """The stationary point of loss + lambda / 2 * |w - shared|^2: gradient = lambda * (shared - w)."""
    found = adapt(method="ditto", proximal=0.5, epochs=400, learning_rate=0.05)
    module = module_for(make_plan(), inputs=2)
    load_vector(module, found)
    outputs = module(torch.from_numpy(table.features)).squeeze(1)
    torch.nn.functional.binary_cross_entropy_with_logits(outputs, torch.from_numpy(table.target).float()).backward()
    gradient = np.concatenate([p.grad.reshape(-1).numpy() for p in module.parameters()])
    assert gradient == pytest.approx(0.5 * (SHARED - found), abs=0.02)
    assert np.abs(gradient).max() > 0.05


def test_a_model_that_diverges_is_none(adapt):
    with pytest.raises(RoundAborted):
        adapt(method="ditto", learning_rate=1e30, proximal=1e6)


class Lab:
    """One site, asked as a coordinator asks it."""

    def __init__(self, make_lab, tmp_path, plan, **policy):
        self.service = SiteService(load_site(make_lab(policy=policy)), tmp_path / secrets.token_hex(4))
        self.plan, self.run = plan, secrets.token_hex(16)
        assert self.ask("prepare", plan=plan.to_bytes().decode()).error is None

    def ask(self, action, vector=None, **fields):
        return self.service.handle(Request(action=action, fields={"run": self.run} | fields, vector=vector))

    def alone(self, vector=SHARED):
        records = {site: [40, 20] for site in self.plan.sites}
        return self.ask("alone", vector, records=records, evaluate="exact")

    @property
    def kept(self):
        return self.service.state / "runs" / self.run / PERSONAL_MODEL


@pytest.fixture
def lab(make_lab, make_plan, tmp_path):
    def made(*, baselines=("local",), personalise="fine_tune", privacy=None, **policy):
        plan = make_plan(
            secure_aggregation={"enabled": False}, evaluation={"baselines": list(baselines)}, personalise=personalise,
            privacy=privacy or {},
        )  # fmt: skip
        return Lab(make_lab, tmp_path, plan, **policy)

    return made


def test_the_model_stays_at_the_lab_and_its_metrics_are_told_beside_the_others(lab):
    site = lab(**OPEN)
    reply = site.alone()
    assert reply.error is None
    assert reply.vector is None
    assert list(reply.fields["own"]) == ["local", "local_no_dp", "personalised"]
    assert None not in reply.fields["metrics"]
    kept = load_file(site.kept)
    assert site.kept.stat().st_mode & 0o777 == 0o600
    about = json.loads(site.kept.with_suffix(".json").read_text())
    assert about["run"] == site.run
    assert about["personalise"]["method"] == "fine_tune"
    assert sum(values.size for values in kept.values()) == 3
    assert str(site.kept) in site.service.log.path.read_text()
    assert site.ask("finish").error is None
    assert site.kept.exists()
    assert site.alone().error is not None


@pytest.mark.parametrize(
    ("policy", "labels"),
    [
        ({}, set()),  # a private study, at a lab that does not accept results without any guarantee
        (OPEN, {"local", "local_no_dp", "personalised"}),
        (OPEN | {"exact_evaluation": False}, set()),
    ],
)
def test_in_a_private_study_only_a_lab_that_accepts_none_tells_and_each_keeps_its_model(lab, policy, labels):
    site = lab(**policy)
    shown = site.alone().fields["own"]
    assert {label for label, sums in shown.items() if sums is not None} == labels
    assert site.kept.exists()


def test_it_is_told_once_in_a_run_exactly_or_not_at_all(lab):
    site = lab(**OPEN)
    records = {name: [40, 20] for name in site.plan.sites}
    assert site.ask("alone", SHARED, records=records, evaluate="noised").error["code"] == "policy"
    assert site.alone().error is None
    assert site.alone().error["message"] == "alone was already answered in this run"


@pytest.mark.parametrize("model", [None, SHARED[:2]])
def test_without_the_shared_model_nothing_is_adapted(lab, model):
    site = lab(**OPEN)
    assert site.alone(model).error is not None
    assert not site.kept.exists()
    assert site.alone().error is None  # and the run's one answer is not used up


def test_personalising_needs_no_baseline(lab):
    assert list(lab(baselines=(), **OPEN).alone().fields["own"]) == ["personalised"]


def test_a_plan_without_either_has_nothing_to_ask_for(lab):
    nothing = lab(baselines=(), personalise="none", **OPEN).alone(None)
    assert nothing.error["message"] == "the plan compares with nothing that a lab has for itself"
