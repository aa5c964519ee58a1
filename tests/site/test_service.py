"""A site's answers: gate and ledger before data, and nothing private in any reply."""

import json
import re
import secrets
import threading

import numpy as np
import pytest

from fedsci.config.site import load_site
from fedsci.errors import DataError
from fedsci.site.charging import cost_for
from fedsci.site.dataset import content_digest, load_site_data
from fedsci.site.forecast import forecast
from fedsci.site.service import SiteService
from fedsci.training.metrics import MetricSums
from fedsci.training.noised_metrics import sums_of
from fedsci.transport.messages import ACTIONS, Reply, Request

MARKER = "zebra4711"
MODEL = np.zeros(3, np.float32)
RECORDS = [40, 20]  # train and holdout of the 60 rows of lab-1


@pytest.fixture
def serve(make_lab, tmp_path):
    """A site service; the same state folder for every one of a test."""
    return lambda **changes: SiteService(load_site(make_lab(**changes)), tmp_path / "state")


@pytest.fixture
def make_plan(make_plan):
    """Plans of studies in the clear: what one site answers by itself. Masked ones are in test_masked_service.py."""
    return lambda **changes: make_plan(**{"secure_aggregation": {"enabled": False}} | changes)


class Study:
    """A coordinator that speaks to one site and keeps everything that it receives."""

    def __init__(self, service: SiteService, plan, run: str | None = None) -> None:
        self.service, self.plan, self.run = service, plan, run or secrets.token_hex(16)
        self.received: list[Reply] = []
        self.records = dict.fromkeys(plan.sites, RECORDS)

    def ask(self, action: str, *, vector=None, **fields) -> Reply:
        reply = self.service.handle(Request(action=action, fields={"run": self.run} | fields, vector=vector))
        self.received.append(reply)
        return reply

    def prepare(self) -> Reply:
        return self.ask("prepare", plan=self.plan.to_bytes().decode())

    def train(self, number: int = 1, *, vector=MODEL, **fields) -> Reply:
        return self.ask("train", **{"round": number, "records": self.records} | fields, vector=vector)

    def evaluate(self, evaluate="exact", *, vector=MODEL, **fields) -> Reply:
        asked = {"round": self.plan.training.rounds, "records": self.records, "evaluate": evaluate}
        return self.ask("evaluate", **asked | fields, vector=vector)

    def alone(self, evaluate="exact") -> Reply:
        return self.ask("alone", records=self.records, evaluate=evaluate)

    def finish(self) -> Reply:
        return self.ask("finish")


@pytest.fixture
def study(serve, make_plan):
    return Study(serve(), make_plan())


def good(reply: Reply) -> Reply:
    assert reply.error is None, reply.error
    return reply


def code(reply: Reply) -> object:
    assert reply.error is not None
    return reply.error["code"]


def test_a_whole_study(serve, make_plan):
    study = Study(serve(policy={"mechanisms": ["local", "none"]}), make_plan())
    about = good(study.prepare()).fields
    assert about["parameters"] == 3
    assert about["inputs"] == 2
    assert list(about["records"].values()) == RECORDS
    for number in (1, 2):
        reply = good(study.train(number, **({"evaluate": "exact"} if number == 2 else {})))
        assert reply.vector.shape == (3,)
        assert [sums is None for sums in reply.fields["metrics"]] == [False] * (number - 1)
    for reply, labels in ((study.evaluate(), {"federated"}), (study.alone(), {"local", "local_no_dp"})):
        assert good(reply).vector is None
        assert set(reply.fields["own"]) == labels
        assert list(reply.fields["own"].values()) == reply.fields["metrics"]
        for sums in reply.fields["metrics"]:
            assert MetricSums(kind="binary", values=np.array(sums)).records == RECORDS[1]
    privacy = good(study.finish()).fields["privacy"]
    assert 3.5 < privacy["study"] <= 4.0
    assert privacy["total"] == pytest.approx(privacy["study"], rel=1e-3)
    assert privacy["budget"] == 8.0


def kinds(service: SiteService) -> list[str]:
    return [entry.kind for entry in service.ledger.entries()]


def test_the_charge_is_durable_before_the_site_says_yes_and_each_step_before_its_answer(study):
    study.prepare()
    assert kinds(study.service) == ["register", "reserve"]
    study.train()
    assert kinds(study.service) == ["register", "reserve", "step"]


def test_a_step_that_cannot_be_written_down_releases_nothing(study, monkeypatch):
    study.prepare()
    computed = []
    worker = study.service._runs[study.run].worker
    monkeypatch.setattr(type(worker), "contribution", lambda *_, **__: computed.append(1))

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(type(study.service.ledger), "step", full)
    assert code(study.train()) == "internal"
    assert computed == []


def test_a_round_is_answered_once_also_by_another_process(study, tmp_path):
    study.prepare()
    good(study.train())
    assert code(study.train()) == "budget"
    again = Study(SiteService(study.service.site, tmp_path / "state"), study.plan, study.run)
    assert code(again.train()) == "budget"
    assert good(again.train(2)).vector is not None


@pytest.mark.parametrize("number", [0, 3, -1])
def test_a_round_that_is_not_in_the_plan_is_refused(study, number):
    study.prepare()
    assert code(study.train(number)) == "policy"


def test_a_run_is_prepared_once(study):
    good(study.prepare())
    assert code(study.prepare()) == "policy"
    assert kinds(study.service) == ["register", "reserve"]


@pytest.mark.parametrize("action", ["train", "evaluate", "alone", "finish"])
def test_a_run_that_was_not_admitted_gets_nothing(study, action):
    reply = study.ask(action, round=1, records=study.records, vector=MODEL)
    assert reply.error["message"] == "this run was never admitted here"
    assert reply.vector is None


@pytest.mark.parametrize("run", ["", "../../etc", "A" * 32, "a" * 31, "a" * 33, "a" * 32 + "\n"])
def test_a_run_id_that_could_be_a_path_is_refused(serve, make_plan, run):
    study = Study(serve(), make_plan(), run="x")
    study.run = run
    for reply in (study.prepare(), study.train(), study.finish()):
        assert code(reply) == "config"


def test_after_the_end_no_more_rounds(study):
    study.prepare()
    study.train()
    said = good(study.finish())
    spent = kinds(study.service)
    for process in (study, Study(SiteService(study.service.site, study.service.state), study.plan, study.run)):
        assert good(process.finish()) == said  # a coordinator that lost the answer gets it again
        for reply in (process.train(2), process.evaluate(), process.alone()):
            assert reply.error["message"] == "this run was never admitted here"
        assert code(process.prepare()) == "policy"
    assert kinds(study.service) == spent


def test_settling_gives_back_what_was_not_computed(study):
    reserved = good(study.prepare()).fields["privacy"]["enforced_total"]
    study.train()
    settled = good(study.finish()).fields["privacy"]
    assert 0 < settled["enforced_total"] < reserved
    assert 0 < settled["study"] < 4.0


def test_the_policy_is_asked_again_when_another_process_answers(study, make_lab, tmp_path):
    good(study.prepare())
    stricter = SiteService(load_site(make_lab(policy={"models": ["mlp"]})), tmp_path / "state")
    assert code(Study(stricter, study.plan, study.run).train()) == "policy"


def test_a_budget_edited_in_the_site_file_is_refused(study, serve, make_plan):
    good(study.prepare())
    assert code(Study(serve(dataset={"privacy": {"epsilon": 800.0}}), make_plan()).prepare()) == "budget"


def test_studies_add_up_until_the_budget_says_no(serve, make_plan):
    service, answers = serve(), []
    for _ in range(20):
        study = Study(service, make_plan())
        answers.append(study.prepare())
        if answers[-1].error:
            break
        for number in (1, 2):
            good(study.train(number))
        good(study.finish())
    assert 1 < len(answers) < 20
    assert answers[-1].error == {
        "code": "budget", "exit_code": 3, "message": "the budget for points does not allow this study",
    }  # fmt: skip


def test_a_study_that_costs_more_than_the_policy_allows_is_refused_and_not_charged(serve, make_plan):
    service = serve(policy={"max_epsilon_per_study": 1.0})
    assert code(Study(service, make_plan()).prepare()) == "policy"
    assert "reserve" not in kinds(service)


def test_a_refused_plan_never_reaches_the_data(serve, make_plan, monkeypatch):
    def touched(*_, **__):
        raise AssertionError("data was read")

    monkeypatch.setattr("fedsci.site.service.load_site_data", touched)
    assert code(Study(serve(policy={"approval": "manual"}), make_plan()).prepare()) == "policy"
    assert code(Study(serve(policy={"strategies": []}), make_plan()).prepare()) == "policy"


@pytest.mark.parametrize("own", [True, False])
def test_a_site_that_shows_nothing_withholds(serve, make_plan, own):
    study = Study(serve(policy={"exact_evaluation": False, "show_own_metrics": own}), make_plan())
    good(study.prepare())
    assert good(study.train(1, evaluate="exact")).fields == {"metrics": [None]}
    for reply, labels in ((study.evaluate(), ["federated"]), (study.alone(), ["local", "local_no_dp"])):
        assert good(reply).vector is None
        shown = {"own": dict.fromkeys(labels)} if own else {}
        assert dict(reply.fields) == {"metrics": [None] * len(labels)} | shown


def test_a_sites_own_metrics_are_in_sums_only_unless_its_policy_shows_them(serve, make_plan):
    study = Study(serve(policy={"show_own_metrics": False, "mechanisms": ["local", "none"]}), make_plan())
    good(study.prepare())
    for reply in (study.train(1, evaluate="exact"), study.evaluate(), study.alone()):
        assert "own" not in good(reply).fields
        assert reply.fields["metrics"][0] is not None


def test_what_a_lab_reaches_without_privacy_is_told_only_where_no_privacy_is_allowed(serve, make_plan):
    """Exact metrics of a model trained at the lab tell of training records once more, and nobody charged for that."""
    study = Study(serve(), make_plan())
    good(study.prepare())
    assert good(study.alone()).fields["metrics"] == [None, None]
    open_to_all = Study(serve(policy={"mechanisms": ["local", "none"]}), make_plan())
    good(open_to_all.prepare())
    assert None not in good(open_to_all.alone()).fields["metrics"]


def test_a_second_process_on_the_state_folder_waits(serve, make_plan):
    first = serve()
    with first._only_process():
        done = []
        thread = threading.Thread(target=lambda: done.append(serve().handle(Request(action="hello"))))
        thread.start()
        thread.join(0.3)
        assert not done
    thread.join(10)
    assert done[0].fields["site"] == "lab-1"


@pytest.mark.secret_split
def test_counts_tell_nothing_of_the_records_whatever_the_schema(serve, make_plan):
    """The split must not follow the study's schema: counts under chosen schemas would count records of any kind."""
    counts = set()
    for features in (None, {"a": {"min": 0, "max": 1}}, {"a": {"min": 1e6, "max": 2e6}}):
        changes = {} if features is None else {"features": features}
        study = Study(serve(), make_plan(**changes))
        counts.add(tuple(good(study.prepare()).fields["records"].values()))
        good(study.finish())
    assert len(counts) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"lab-1": [41, 20]},
        {"lab-1": [40, 19]},
        {"lab-1": [20, 40]},
        {"lab-1": None},
        {"lab-2": [-1, 20]},
        {"lab-2": [40]},
        {"lab-2": 40},
        {"lab-4": [40, 20]},
    ],
    ids=str,
)
def test_record_counts_that_are_not_the_sites_own_or_the_plans_are_refused(study, change):
    good(study.prepare())
    study.records |= change
    for reply in (study.train(), study.evaluate(), study.alone()):
        assert code(reply) == "policy"
        assert reply.vector is None
    for absent in ({}, None, [[40, 20]] * 3):
        study.records = absent
        assert code(study.train()) == "policy"
    assert kinds(study.service) == ["register", "reserve"]


def test_a_study_without_privacy_is_recorded_as_infinite(serve, make_plan):
    service = serve(policy={"mechanisms": ["local", "none"]})
    study = Study(service, make_plan(privacy={"mechanism": "none", "epsilon": None}))
    assert good(study.prepare()).fields["privacy"]["study"] == "inf"
    assert "no_privacy" in kinds(service)
    later = Study(service, make_plan())
    assert good(later.prepare()).fields["privacy"]["total"] == "inf"


@pytest.mark.parametrize("content", ["", "{", "null", "[]", '{"plan_version": 1}', '{"plan_version": 2}'])
def test_garbage_instead_of_a_plan_is_a_config_error(study, content):
    assert code(study.ask("prepare", plan=content)) == "config"


@pytest.mark.parametrize("vector", [None, np.zeros(3), np.zeros(4, np.float32), np.full(3, np.nan, np.float32)])
def test_a_model_that_does_not_fit_is_refused(study, vector):
    study.prepare()
    assert code(study.train(2, vector=vector)) == "input"
    assert code(study.evaluate(vector=vector)) == "input"


def test_an_unknown_action_is_an_error_and_not_a_crash(study):
    assert code(study.ask("drop table")) == "internal"


DAMAGE = {
    "a word where a number should be": lambda text: text.replace("\n0.", f"\n{MARKER}", 1),
    "a word as target": lambda text: text.replace(",1\n", f",{MARKER}\n", 1).replace(",0\n", f",{MARKER}\n", 1),
    "a column called so": lambda text: text.replace("a,b,", f"{MARKER},b,", 1),
    "a row too long": lambda text: text + f"0.1,0.2,1,{MARKER}\n",
    "a row of its own": lambda text: text + f"{MARKER}\n",
    "a quote that never ends": lambda text: text + f'"{MARKER}\n',
    "nothing but it": lambda text: MARKER,
    "bytes that are no text": lambda text: text + MARKER + "\udcff\n",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_in_a_record_is_in_no_reply_and_in_the_sites_own_log(serve, make_plan, tmp_path, name):
    service = serve()
    file = tmp_path / "lab-1.csv"
    file.write_bytes(DAMAGE[name](file.read_text()).encode("utf-8", "surrogateescape"))
    study = Study(service, make_plan())
    assert code(study.prepare()) == "data"
    study.train()
    study.evaluate()
    study.alone()
    study.finish()
    for reply in study.received:
        assert MARKER not in json.dumps([dict(reply.fields), dict(reply.error or {})])
    assert service.log.last_error(study.run) is not None
    # paid before the data was opened, and given back: nothing of it was released
    assert kinds(service) == ["register", "reserve", "settle"]
    assert service.ledger.entries()[-1].body["rounds"] == 0
    assert set(np.ravel(service.ledger.entries()[-1].body["rdp"])) == {0.0}


@pytest.mark.parametrize("error", [ValueError, RuntimeError, KeyError, MemoryError])
def test_no_exceptions_text_leaves(study, monkeypatch, error):
    study.prepare()

    def fail(*_, **__):
        raise error(MARKER)

    monkeypatch.setattr(type(study.service._runs[study.run].worker), "contribution", fail)
    reply = study.train()
    assert reply.error == {"code": "internal", "exit_code": 1, "message": "the site had an internal error"}
    log = (study.service.state / "site.log").read_text()
    assert MARKER in log
    assert (study.service.state / "site.log").stat().st_mode & 0o077 == 0
    assert "Traceback" in log
    assert study.service.log.last_error(study.run)["code"] == "internal"


def test_the_charge_is_durable_before_the_data_is_opened(serve, make_plan, monkeypatch):
    service, seen = serve(), []

    def fail(*_, **__):
        seen.append(kinds(service))
        raise DataError("gone")

    monkeypatch.setattr("fedsci.site.service.load_site_data", fail)
    assert code(Study(service, make_plan()).prepare()) == "data"
    assert seen == [["register", "reserve"]]


def test_a_delta_that_gives_away_a_record_is_refused_and_not_charged(serve, make_plan):
    service = serve()
    plan = make_plan(privacy={"mechanism": "local", "epsilon": 1.0, "delta": 0.03})
    reply = Study(service, plan).prepare()
    assert reply.error["message"] == "delta 0.03 is larger than 1 / 40 records"
    assert service.ledger.entries()[-1].body["rounds"] == 0


def test_a_site_says_how_many_rounds_it_pays_for_and_computes_no_more(serve, make_plan):
    service = serve(dataset={"privacy": {"epsilon": 4.0, "when_exceeded": "stop"}})
    study = Study(service, make_plan(training={"rounds": 40}))
    allowed = good(study.prepare()).fields["rounds_allowed"]
    assert 1 <= allowed < 40
    good(study.train(allowed))
    refused = study.train(allowed + 1)
    assert (code(refused), refused.error["exit_code"]) == ("budget", 3)
    assert refused.error["message"] == "this round is beyond what the site's privacy budget pays for"
    assert kinds(service) == ["register", "reserve", "step"]


def test_without_the_officers_leave_a_study_is_refused_and_not_stopped(serve, make_plan):
    service = serve(dataset={"privacy": {"epsilon": 4.0}})
    assert code(Study(service, make_plan(training={"rounds": 40})).prepare()) == "budget"
    assert kinds(service) == ["register"]


def test_a_study_that_is_paid_for_whole_runs_all_its_rounds(study):
    assert good(study.prepare()).fields["rounds_allowed"] == 2


@pytest.mark.parametrize("rounds", [0, -1, 3, "2", True])
def test_a_study_cannot_end_after_rounds_that_it_does_not_have(study, rounds):
    study.prepare()
    for action in ("evaluate", "alone"):
        reply = study.ask(action, records=study.records, vector=MODEL, rounds=rounds)
        assert code(reply) in ("policy", "input", "config")


def test_the_same_file_under_another_name_is_refused(serve, make_plan, tmp_path):
    good(Study(serve(), make_plan()).prepare())
    again = {"path": "lab-1.csv", "privacy": {"epsilon": 8.0, "delta": 1e-5}}
    renamed = serve(datasets={"points": None, "dots": again})
    reply = Study(renamed, make_plan(dataset="dots")).prepare()
    assert (code(reply), reply.error["exit_code"]) == ("budget", 3)
    message = renamed.log.last_error(reply_run(renamed))["message"]
    assert "data set dots holds the same data as points, whose budget holds" in message


def reply_run(service: SiteService) -> str:
    lines = (service.state / "site.log").read_text().splitlines()
    return json.loads(lines[-1])["run"]


def test_the_same_file_without_a_budget_is_refused_too(serve, make_plan):
    """Else a second name, with no budget, would let out without noise what the first one protects."""
    good(Study(serve(), make_plan()).prepare())
    renamed = serve(datasets={"points": None, "dots": {"path": "lab-1.csv"}})
    plan = make_plan(dataset="dots", privacy={"mechanism": "none", "epsilon": None})
    assert code(Study(renamed, plan).prepare()) == "budget"


def test_a_file_that_changed_draws_on_the_same_budget(serve, make_plan, tmp_path):
    service = serve()
    good(Study(service, make_plan()).prepare())
    file = tmp_path / "lab-1.csv"
    file.write_text(file.read_text() + "0.5,0.25,1\n")
    good(Study(service, make_plan()).prepare())
    assert kinds(service) == ["register", "reserve", "data", "reserve"]


def test_parts_of_a_builtin_data_set_are_told_apart(serve, make_plan, make_lab, tmp_path):
    def digest(**builtin):
        site = load_site(make_lab(dataset={"path": None, "builtin": {"name": "digits", "shard": 1, "of": 3} | builtin}))
        return content_digest(site, site.datasets["points"])

    several = [{}, {"shard": 2}, {"of": 4}, {"skew": 0.5}, {"uneven": 0.5}, {"name": "diabetes"}]
    assert len({digest(**one) for one in several}) == len(several)
    assert digest() == digest()


def test_a_missing_file_is_named_and_nothing_is_charged(serve, make_plan, tmp_path):
    service = serve()
    (tmp_path / "lab-1.csv").unlink()
    study = Study(service, make_plan())
    assert code(study.prepare()) == "data"
    assert service.log.last_error(study.run)["message"].startswith("lab-1: ")
    assert kinds(service) == []


def test_a_delta_that_gives_away_a_held_out_record_is_refused_too(serve, make_plan):
    privacy = {"mechanism": "local", "epsilon": 1.0, "delta": 0.03}
    reply = Study(serve(), make_plan(privacy=privacy, evaluation={"holdout": 0.8})).prepare()
    assert re.fullmatch(r"delta 0.03 is larger than 1 / (4|5)\d records", reply.error["message"])


def test_every_action_has_an_answer(study):
    for action in ACTIONS:
        assert isinstance(study.ask(action), Reply)
    key = study.service.keystore.signing_key().public.hex()
    assert study.ask("hello").fields == {"site": "lab-1", "key": key}


def test_what_a_lab_reaches_alone_is_computed_once_in_a_run_also_by_another_process(study):
    """The noise in its training would average out over many such models, and no charge is made for them."""
    good(study.prepare())
    good(study.alone())
    again = Study(SiteService(study.service.site, study.service.state), study.plan, study.run)
    for process in (study, again):
        assert process.alone().error["message"] == "alone was already answered in this run"
    later = Study(study.service, study.plan)
    good(later.prepare())
    good(later.alone())


def test_data_that_changed_since_the_study_was_let_in_is_not_used_after_a_restart(study, tmp_path):
    """Its budget may be another data set's, and a record that changed sides pays for one of them only."""
    good(study.prepare())
    file = tmp_path / "lab-1.csv"
    text = file.read_text()
    file.write_text(text.replace(text.splitlines()[5], "0.5,0.25,1"))
    again = Study(SiteService(study.service.site, tmp_path / "state"), study.plan, study.run)
    for reply in (again.train(), again.evaluate(), again.alone()):
        assert code(reply) == "data"
    assert kinds(study.service) == ["register", "reserve"]
    file.write_text(text)
    good(again.train())


def test_data_that_changes_while_it_is_read_is_not_used(serve, make_plan, tmp_path, monkeypatch):
    service = serve()

    def read(*arguments, **more):
        data = load_site_data(*arguments, **more)
        (tmp_path / "lab-1.csv").write_text("a,b,above\n")
        return data

    monkeypatch.setattr("fedsci.site.service.load_site_data", read)
    study = Study(service, make_plan())
    assert code(study.prepare()) == "data"
    assert service.ledger.entries()[-1].body["rounds"] == 0


@pytest.mark.parametrize("gap", [False, True])
@pytest.mark.parametrize("side", ["holdout", "train"])
@pytest.mark.parametrize("exact", [False, True])
def test_a_study_whose_held_out_share_is_one_row_does_not_learn_whether_it_has_a_gap(
    serve, make_plan, tmp_path, gap, side, exact
):
    """The share is the coordinator's choice and the counts are public: a refusal would tell of that one row."""
    service = serve(policy={"exact_evaluation": exact})
    rows = (tmp_path / "lab-1.csv").read_text().splitlines()
    if gap:
        rows = [rows[0], *(",".join(["", *row.split(",")[1:]]) for row in rows[1:])]
        (tmp_path / "lab-1.csv").write_text("\n".join(rows) + "\n")
    plan = make_plan(missing="drop", evaluation={"holdout": 0.02 if side == "holdout" else 0.98}, seed=0)
    study = Study(service, plan)
    counts = good(study.prepare()).fields["records"]
    study.records = {site: list(counts.values()) for site in plan.sites}
    for number in (1, 2):
        assert np.isfinite(good(study.train(number)).vector).all()
    assert len(good(study.evaluate("noised")).fields["metrics"][0]) == len(sums_of(plan))
    good(study.evaluate("exact"))
    good(study.alone())
    good(study.finish())


@pytest.mark.parametrize(
    ("when_exceeded", "epsilon", "rounds"),
    [("refuse", 30.0, None), ("stop", 30.0, 2), ("stop", 100.0, None)],
)
def test_plan_and_run_agree_on_a_budget_whose_delta_pays_for_no_noise(
    serve, make_plan, tmp_path, when_exceeded, epsilon, rounds
):
    """With ``stop`` a study may still run without its measurements, whose noise is further from exact."""
    privacy = {"epsilon": epsilon, "when_exceeded": when_exceeded}
    service, plan = serve(dataset={"privacy": privacy}), make_plan()
    said = forecast(plan, service.site, cost=cost_for(plan), dimension=3, state=tmp_path / "state")
    reply = Study(service, plan).prepare()
    assert said.stops_after == rounds
    if rounds is None:
        assert said.exit_code == 3
        assert "does not pay for this study: all noise together" in said.refusal
        assert code(reply) == "budget"
    else:
        assert said.exit_code == 0
        assert good(reply).fields["rounds_allowed"] == rounds
        assert reply.fields["measurements_allowed"] == 0


@pytest.mark.parametrize("changed", ["data", "policy"])
def test_a_study_is_settled_also_where_a_restarted_site_could_not_go_on_with_it(study, make_lab, tmp_path, changed):
    """Only rounds that were computed stay charged, and nothing of the study stays at the site."""
    good(study.prepare())
    good(study.train())
    if changed == "data":
        (tmp_path / "lab-1.csv").write_text("a,b,above\n")
    site = load_site(make_lab(policy={"models": ["mlp"]})) if changed == "policy" else study.service.site
    again = Study(SiteService(site, tmp_path / "state"), study.plan, study.run)
    assert code(again.train(2)) == changed
    said = good(again.finish()).fields["privacy"]
    assert said["rounds_charged"] == 1
    assert kinds(study.service)[-1] == "settle"
    assert good(again.finish()).fields["privacy"] == said
