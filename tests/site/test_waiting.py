"""What waits at a site for a buffer: charged when it is made, sent once, and only as the buffer truly describes it."""

import secrets

import numpy as np
import pytest

from fedsci.config.site import load_site
from fedsci.errors import PolicyRefused
from fedsci.names import digest
from fedsci.site.service import SiteService
from fedsci.site.waiting import Waiting
from fedsci.transport.messages import Reply, Request

RECORDS = [40, 20]  # train and holdout of the 60 rows of lab-1
MODELS = [np.full(3, number, np.float32) for number in range(6)]
DIGESTS = [digest(model.tobytes()) for model in MODELS]
LABS = ("lab-1", "lab-2", "lab-3", "lab-4", "lab-5")


class Study:
    """A coordinator that speaks to one site of five, and says of the others what it likes."""

    def __init__(self, service, plan, run=None) -> None:
        self.service, self.plan, self.run = service, plan, run or secrets.token_hex(16)
        self.records = dict.fromkeys(plan.sites, RECORDS)

    def ask(self, action, *, vector=None, **fields) -> Reply:
        return self.service.handle(Request(action=action, fields={"run": self.run} | fields, vector=vector))

    def prepare(self) -> Reply:
        return self.ask("prepare", plan=self.plan.to_bytes().decode())

    def begin(self, version, *, vector=None) -> Reply:
        model = MODELS[version] if vector is None else vector
        return self.ask("begin", version=version, records=self.records, vector=model)

    def train(self, number, trained, *, models=None, vector=None, **fields) -> Reply:
        versions = {*trained.values(), number - 1}
        said = {str(v): DIGESTS[v] for v in versions} if models is None else models
        fields = {"round": number, "records": self.records, "trained": trained, "models": said} | fields
        return self.ask("train", **fields, vector=vector)


@pytest.fixture
def study(make_lab, make_plan, tmp_path):
    """A study in the clear, five rounds; with or without privacy."""

    def make(*, mechanism="none", strategy="fedbuff", run=None, **options) -> Study:
        policy = {"strategies": [strategy], "mechanisms": ["none", "local"]}
        service = SiteService(load_site(make_lab(policy=policy)), tmp_path / "state")
        privacy = {"mechanism": mechanism} | ({} if mechanism == "local" else {"epsilon": None})
        plan = make_plan(
            sites=5, strategy=strategy, recipe={"name": strategy, "options": options}, privacy=privacy,
            training={"rounds": 5}, secure_aggregation={"enabled": False}, evaluation={"baselines": []},
        )  # fmt: skip
        asked = Study(service, plan, run)
        if run is None:
            good(asked.prepare())
        return asked

    return make


def good(reply: Reply) -> Reply:
    assert reply.error is None, reply.error
    return reply


def refused(reply: Reply, words: str) -> None:
    assert reply.error is not None
    assert words in reply.error["message"]
    assert reply.vector is None


def all_of(version: int) -> dict[str, int]:
    return dict.fromkeys(LABS, version)


def test_a_contribution_is_weighted_by_its_age_at_the_site(study):
    fresh, old = study(), study()
    for asked in (fresh, old):
        good(asked.begin(0))
    now = good(fresh.train(1, all_of(0))).vector
    later = good(old.train(4, all_of(0))).vector
    assert np.abs(now).max() > 0
    assert later == pytest.approx(now / 2)  # 1 / sqrt(1 + 3)


def test_it_is_sent_once_also_by_another_process_and_each_model_is_trained_on_once(study):
    asked = study()
    good(asked.begin(1))
    good(asked.train(2, all_of(1)))
    refused(asked.train(3, all_of(1)), "nothing waits here")
    again = Study(SiteService(asked.service.site, asked.service.state), asked.plan, asked.run)
    refused(again.train(3, all_of(1)), "nothing waits here")
    for version in (1, 0):
        refused(again.begin(version), "came already, or one after it")
    good(again.begin(2))
    refused(again.begin(2), "each is trained on once")
    assert good(again.train(3, all_of(2))).vector is not None


def test_a_contribution_survives_the_process_that_made_it(study):
    asked = study()
    good(asked.begin(0))
    again = Study(SiteService(asked.service.site, asked.service.state), asked.plan, asked.run)
    assert good(again.train(2, all_of(0))).vector is not None


def test_it_is_gone_before_it_is_masked_so_that_a_crash_cannot_mask_it_twice(study, monkeypatch):
    asked = study()
    good(asked.begin(0))

    def dies(*_, **__):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(SiteService, "_send", dies)
        assert asked.train(1, all_of(0)).error is not None
    refused(asked.train(2, all_of(0)), "nothing waits here")


def test_nothing_is_sent_before_a_model_came(study):
    refused(study().train(1, all_of(0)), "nothing waits here")


@pytest.mark.parametrize(
    ("trained", "models", "words"),
    [
        (all_of(0), {"0": DIGESTS[0], "2": DIGESTS[2]}, "is not so"),  # it trained on 1
        (all_of(1), {"1": DIGESTS[0], "2": DIGESTS[2]}, "is not so"),  # under that number it got another model
        ({"lab-2": 1, "lab-3": 1, "lab-4": 1}, {"1": DIGESTS[1], "2": DIGESTS[2]}, "is not so"),
        (all_of(1), {"1": DIGESTS[1]}, "one digest for each model"),
        (all_of(1), {"0": DIGESTS[0], "1": DIGESTS[1], "2": DIGESTS[2]}, "one digest for each model"),
        (all_of(1) | {"lab-9": 1}, {"1": DIGESTS[1], "2": DIGESTS[2]}, "which model each of its sites"),
        (all_of(1) | {"lab-2": 3}, {"1": DIGESTS[1], "3": DIGESTS[3], "2": DIGESTS[2]}, "rounds 0 to 2"),
        (all_of(1) | {"lab-2": True}, {"1": DIGESTS[1], "2": DIGESTS[2]}, "rounds 0 to 2"),
        (all_of(1) | {"lab-2": -1}, {"1": DIGESTS[1], "-1": DIGESTS[1], "2": DIGESTS[2]}, "rounds 0 to 2"),
        (["lab-1"], {"1": DIGESTS[1], "2": DIGESTS[2]}, "which model each of its sites"),
        (all_of(1) | {"lab-1": 2}, {"1": DIGESTS[1], "2": DIGESTS[2]}, "is not so"),
    ],
)  # fmt: skip
def test_a_buffer_that_says_what_is_not_so_gets_nothing_and_what_waits_goes_on_waiting(study, trained, models, words):
    asked = study()
    good(asked.begin(1))
    fields = {"round": 3, "records": asked.records, "trained": trained, "models": models}
    refused(asked.ask("train", **fields), words)
    assert good(asked.train(3, all_of(1))).vector is not None


@pytest.mark.parametrize(
    "trained",
    [
        {"lab-1": 1, "lab-2": 0, "lab-3": 0, "lab-4": 0},  # alone with its model: others' may teach nothing
        {"lab-1": 1, "lab-2": 1, "lab-3": 0, "lab-4": 0, "lab-5": 0},
        {"lab-1": 1, "lab-2": 1, "lab-3": 1, "lab-4": 0, "lab-5": 0},  # not itself, but two others
    ],
)
def test_too_few_with_one_model_are_refused(study, trained):
    asked = study()
    good(asked.begin(1))
    refused(asked.train(2, trained), "of the buffer's sites trained on the model after round")
    good(asked.train(2, all_of(1)))


def test_the_rule_is_the_recipes(study):
    asked = study(together=2)
    good(asked.begin(1))
    good(asked.train(2, {"lab-1": 1, "lab-2": 1, "lab-3": 0, "lab-4": 0}))


def test_the_current_model_comes_to_be_measured_and_must_be_the_one_that_is_named(study):
    asked = study()
    good(asked.begin(1))
    refused(asked.train(3, all_of(1), vector=MODELS[3], evaluate="exact"), "not the one that the buffer names")
    assert asked.train(3, all_of(1), evaluate="exact").error["code"] == "input"  # none came
    reply = good(asked.train(3, all_of(1), vector=MODELS[2], evaluate="exact"))
    assert reply.vector is not None
    assert reply.fields["metrics"][0] is not None


def kinds(service: SiteService) -> list[str]:
    return [entry.kind for entry in service.ledger.entries()]


def test_a_private_contribution_is_charged_once_before_it_is_made(study, monkeypatch):
    asked = study(mechanism="local")
    good(asked.begin(0))
    assert kinds(asked.service) == ["register", "reserve", "step"]
    good(asked.train(3, all_of(0)))
    assert kinds(asked.service) == ["register", "reserve", "step"]
    good(asked.begin(3))
    assert kinds(asked.service) == ["register", "reserve", "step", "step"]
    settled = good(asked.ask("finish")).fields["privacy"]
    assert settled["rounds_charged"] == 2  # also of one that no buffer took

    def full(*_):
        raise OSError("disk full")

    other, computed = study(mechanism="local"), []
    monkeypatch.setattr(type(other.service.ledger), "step", full)
    worker = other.service._runs[other.run].worker
    monkeypatch.setattr(type(worker), "contribution", lambda *_, **__: computed.append(1))
    assert other.begin(0).error["code"] == "internal"
    assert computed == []


@pytest.mark.parametrize("version", [-1, 5])
def test_a_model_of_no_round_of_the_plan_is_refused(study, version):
    assert study().begin(version, vector=MODELS[0]).error["code"] == "policy"


def test_a_study_without_buffers_begins_nothing(study):
    refused(study(strategy="fedavg").begin(0), "fedavg has no buffers")


def test_at_the_end_nothing_is_left(study):
    asked = study()
    good(asked.begin(0))
    folder = asked.service.state / "runs" / asked.run
    assert (folder / "waiting.safetensors").exists()
    assert (folder / "waiting.safetensors").stat().st_mode & 0o077 == 0
    good(asked.ask("finish"))
    assert not (folder / "waiting.safetensors").exists()


def test_survivors_that_leave_too_few_of_a_model_open_nothing(study, tmp_path):
    plan, waiting = study().plan, Waiting(tmp_path)
    with pytest.raises(PolicyRefused, match="sent nothing in slot 1"):
        waiting.require_together(plan, 1, LABS)
    waiting.keep(0, MODELS[0], MODELS[1])
    waiting.take(4, {"lab-1": 0, "lab-2": 0, "lab-3": 0, "lab-4": 0})
    for held in (waiting, Waiting(tmp_path)):
        held.require_together(plan, 4, LABS[:3])
        with pytest.raises(PolicyRefused, match="only 2 of the buffer's sites"):
            held.require_together(plan, 4, LABS[1:3])
        with pytest.raises(PolicyRefused, match="has moved on"):
            held.require_together(plan, 3, LABS)
    held.keep(4, MODELS[4], MODELS[1])  # what it begins next does not make it forget
    Waiting(tmp_path).require_together(plan, 4, LABS[:3])


def test_a_measurement_is_of_nobodys_model_and_a_buffer_before_it_is_opened_no_more(study, tmp_path):
    """A slot of an earlier batch may still be open at the site: what it stood for is forgotten, so it stays shut."""
    plan, waiting = study().plan, Waiting(tmp_path)
    waiting.measured(7)  # also at a site that was never there to begin
    Waiting(tmp_path).require_together(plan, 7, LABS[:1])
    waiting.keep(0, MODELS[0], MODELS[1])
    waiting.take(8, {"lab-1": 0, "lab-2": 0, "lab-3": 0})
    waiting.measured(9)
    with pytest.raises(PolicyRefused, match="sent nothing in slot 8, or has moved on"):
        waiting.require_together(plan, 8, LABS)
    Waiting(tmp_path).require_together(plan, 9, LABS[:3])
    with pytest.raises(PolicyRefused, match="came already"):
        Waiting(tmp_path).require_newer(0)


def test_it_is_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    waiting = Waiting(tmp_path)
    waiting.keep(0, MODELS[0], MODELS[1])

    def full(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("fedsci.site.waiting.replace_private", full)
        with pytest.raises(OSError, match="disk full"):
            waiting.take(1, {"lab-1": 0})
    assert Waiting(tmp_path).take(1, {"lab-1": 0}) == pytest.approx(MODELS[1])
