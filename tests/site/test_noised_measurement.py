"""Metrics with noise at a site: paid before they leave, each model once, and nothing that the plan does not name."""

import secrets

import numpy as np
import pytest

from fedsci.config.site import load_site
from fedsci.privacy.budget import charge_cost
from fedsci.privacy.events import from_json
from fedsci.site import upload
from fedsci.site.service import SiteService
from fedsci.site.upload import ActiveRun
from fedsci.training.noised_metrics import sums_of
from fedsci.transport.messages import Reply, Request

MODEL = np.zeros(3, np.float32)
RECORDS = [40, 20]  # train and holdout of the 60 rows of lab-1


@pytest.fixture
def serve(make_lab, tmp_path):
    """A site that lets no exact metrics leave; the same state folder for every one of a test."""

    def make(*, exact=False, **policy):
        policy = {"exact_evaluation": exact} | policy
        return SiteService(load_site(make_lab(policy=policy)), tmp_path / "state")

    return make


@pytest.fixture
def plan(make_plan):
    """Five rounds with local noise in the clear; the models after rounds 2, 4 and 5 are measured."""
    return make_plan(
        secure_aggregation={"enabled": False}, training={"rounds": 5}, evaluation={"every": 2, "baselines": []}
    )


class Study:
    """A coordinator that speaks to one site and asks for what it likes."""

    def __init__(self, service, plan, run=None) -> None:
        self.service, self.plan, self.run = service, plan, run or secrets.token_hex(16)
        self.records = dict.fromkeys(plan.sites, RECORDS)

    def ask(self, action, *, vector=None, **fields) -> Reply:
        return self.service.handle(Request(action=action, fields={"run": self.run} | fields, vector=vector))

    def prepare(self) -> Reply:
        return self.ask("prepare", plan=self.plan.to_bytes().decode())

    def train(self, number, *, vector=MODEL, **fields) -> Reply:
        return self.ask("train", **{"round": number, "records": self.records} | fields, vector=vector)

    def evaluate(self, evaluate="noised", *, number=5, vector=MODEL) -> Reply:
        return self.ask("evaluate", rounds=number, records=self.records, evaluate=evaluate, vector=vector)

    def alone(self, evaluate) -> Reply:
        return self.ask("alone", records=self.records, evaluate=evaluate)

    def restarted(self) -> "Study":
        """The same study, answered by another process."""
        return Study(SiteService(self.service.site, self.service.state), self.plan, self.run)


@pytest.fixture
def study(serve, plan):
    study = Study(serve(), plan)
    assert study.prepare().error is None
    return study


def kinds(study) -> list[str]:
    return [entry.kind for entry in study.service.ledger.entries()]


def refused(reply, code, message=None):
    assert reply.error is not None
    assert reply.error["code"] == code
    assert reply.vector is None
    assert "metrics" not in reply.fields
    if message is not None:
        assert reply.error["message"] == message
    return True


def test_noised_metrics_leave_where_exact_ones_may_not_and_are_written_down(study):
    assert study.train(1).error is None
    reply = study.train(3, evaluate="noised")
    [values] = reply.fields["metrics"]
    assert len(values) == len(sums_of(study.plan))
    assert reply.vector.shape == (3,)
    last = study.evaluate()
    assert last.fields["own"] == {"federated": None}
    assert last.fields["metrics"] != [values]
    assert kinds(study) == ["register", "reserve", "step", "step", "measure", "measure"]
    assert [e.body["after"] for e in study.service.ledger.entries() if e.kind == "measure"] == [2, 5]


def test_the_site_says_whether_exact_metrics_may_leave(serve, plan):
    for exact in (True, False):
        study = Study(serve(exact=exact), plan)
        assert study.prepare().fields["exact_evaluation"] is exact
        study.ask("finish")


def test_exact_metrics_of_a_site_that_lets_none_leave_are_none(study):
    assert study.train(3, evaluate="exact").fields["metrics"] == [None]
    assert study.evaluate("exact").fields["metrics"] == [None]
    assert "measure" not in kinds(study)


def test_a_model_is_measured_once_also_by_another_process(study):
    assert study.evaluate().error is None
    assert refused(study.evaluate(), "budget")
    assert refused(study.evaluate(vector=MODEL + 1), "budget")
    assert refused(study.restarted().evaluate(), "budget")
    assert study.train(3, evaluate="noised").error is None
    assert kinds(study).count("measure") == 2


def test_no_more_is_measured_than_was_reserved(study):
    for number in (3, 5):
        assert study.train(number, evaluate="noised").error is None
    assert study.evaluate().error is None
    assert kinds(study).count("measure") == 3
    for number in (1, 2, 4):
        assert refused(study.train(number, evaluate="noised"), "policy")
    assert refused(study.evaluate(), "budget")
    assert kinds(study).count("measure") == 3


@pytest.mark.parametrize("number", [1, 2, 4])
def test_models_that_the_plan_does_not_measure_are_refused_before_anything_is_charged(study, number):
    assert refused(study.train(number, evaluate="noised"), "policy")
    assert kinds(study) == ["register", "reserve"]


@pytest.mark.parametrize("number", [0, 6, -1, 10**9])
def test_evaluate_is_of_no_round_that_does_not_exist(study, number):
    for word in ("noised", "exact"):
        assert refused(study.evaluate(word, number=number), "policy")
    assert kinds(study) == ["register", "reserve"]


@pytest.mark.parametrize("word", ["", "Noised", "noised ", "none", True, 1, ["noised"], {"noised": 1}], ids=repr)
def test_another_word_is_refused_before_anything_is_charged(study, word):
    for reply in (study.train(3, evaluate=word), study.evaluate(word), study.alone(word)):
        assert refused(reply, "policy")
        assert reply.error["message"].startswith("evaluate is ")
    assert kinds(study) == ["register", "reserve"]


def test_a_study_without_privacy_has_no_noised_metrics(serve, make_plan):
    plan = make_plan(
        secure_aggregation={"enabled": False}, training={"rounds": 5}, privacy={"mechanism": "none", "epsilon": None}
    )
    study = Study(serve(mechanisms=["none"]), plan)
    assert study.prepare().error is None
    for reply in (study.train(3, evaluate="noised"), study.evaluate()):
        assert refused(reply, "policy", "a study without privacy has no noised metrics")
    assert kinds(study) == ["no_privacy"]


@pytest.mark.parametrize("exact", [True, False])
def test_what_a_lab_reaches_alone_is_never_told_with_noise(serve, plan, exact, monkeypatch):
    def touched(*_, **__):
        raise AssertionError("it was computed")

    monkeypatch.setattr("fedsci.site.own_models.train_alone", touched)
    study = Study(serve(exact=exact), plan)
    assert study.prepare().error is None
    assert refused(study.alone("noised"), "policy")
    assert refused(study.alone(None), "policy")
    assert kinds(study) == ["register", "reserve"]


def test_nothing_is_measured_before_a_study_is_let_in_or_after_it_is_over(serve, plan):
    study = Study(serve(), plan)
    for reply in (study.train(3, evaluate="noised"), study.evaluate()):
        assert refused(reply, "policy", "this run was never admitted here")
    assert study.prepare().error is None
    assert study.ask("finish").error is None
    for process in (study, study.restarted()):
        for reply in (process.train(3, evaluate="noised"), process.evaluate()):
            assert refused(reply, "policy", "this run was never admitted here")
    assert kinds(study) == ["register", "reserve", "settle"]


def test_a_settled_run_measures_nothing_even_if_the_site_forgot_that_it_is_over(study):
    budget = study.service.charging.budget("points")
    cost = study.service._runs[study.run].cost
    study.service.ledger.settle("points", study.run, policy=budget, used=cost.events)
    assert refused(study.evaluate(), "budget")
    assert refused(study.train(3, evaluate="noised"), "budget")


def test_a_measurement_that_cannot_be_written_down_is_not_made(study, monkeypatch):
    made = []
    monkeypatch.setattr(ActiveRun, "measure_noised", lambda *_, **__: made.append(1))

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(type(study.service.ledger), "measure", full)
    assert refused(study.evaluate(), "internal")
    assert refused(study.train(3, evaluate="noised"), "internal")
    assert made == []


@pytest.mark.parametrize("moment", ["measure_noised", "seal"])
def test_killed_between_charge_and_answer_the_charge_stays_and_the_model_is_not_measured_again(
    study, monkeypatch, moment
):
    class Killed(BaseException):
        pass

    def die(*_, **__):
        raise Killed

    where = (
        "fedsci.site.upload.ActiveRun.measure_noised"
        if moment == "measure_noised"
        else "fedsci.site.upload.Upload.seal"
    )
    with monkeypatch.context() as patch:
        patch.setattr(where, die)
        with pytest.raises(Killed):
            study.evaluate()
    again = study.restarted()
    assert kinds(again) == ["register", "reserve", "measure"]
    assert refused(again.evaluate(), "budget")
    assert again.ask("finish").error is None
    settled = again.service.ledger.entries()[-1]
    assert (settled.kind, settled.body["rounds"], settled.body["measurements"]) == ("settle", 0, 1)
    budget = again.service.charging.budget("points")
    charged = from_json(settled.body["events"])
    assert charged.held_out
    assert charge_cost(charged, budget) > 0
    assert again.service.ledger.spending("points", budget).spent_rdp == pytest.approx(charge_cost(charged, budget))


def test_metrics_cost_a_study_nothing_on_top_of_its_training(serve, plan, tmp_path):
    spent = []
    for exact in (True, False):
        study = Study(serve(exact=exact), plan)
        study.prepare()
        for number in range(1, 6):
            asked = {"evaluate": "exact" if exact else "noised"} if number in (3, 5) else {}
            assert study.train(number, **asked).error is None
        assert study.evaluate("exact" if exact else "noised").error is None
        before = spent[-1]["total"] if spent else 0.0
        spent.append(study.ask("finish").fields["privacy"])
        assert spent[-1]["total"] > before
    assert spent[0]["study"] == spent[1]["study"] <= 4.0


@pytest.mark.parametrize(("stated", "smallest"), [(1, 1), (19, 19), (20, 20), (1000, 20)])
def test_counts_stated_for_other_sites_never_make_a_record_weigh_more(study, monkeypatch, stated, smallest):
    weights = []
    real = upload.bounded_sums

    def spy(*arguments, site_weight, device):
        weights.append(site_weight)
        return real(*arguments, site_weight=site_weight, device=device)

    monkeypatch.setattr(upload, "bounded_sums", spy)
    study.records |= {"lab-2": [40, stated]}
    assert study.evaluate().error is None
    assert weights == [smallest / 20]


def test_counts_too_large_for_the_ring_are_refused_before_anything_is_charged(study):
    study.records |= {"lab-2": [40, 10**9]}
    assert refused(study.evaluate(), "input")
    assert kinds(study) == ["register", "reserve"]
