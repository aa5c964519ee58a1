"""A site whose disk is full says so by a code, releases only what it can write down, and goes on when it can."""

import contextlib
import resource
import secrets
import signal

import numpy as np
import pytest

from fedsci.config.site import load_site
from fedsci.identity.files import replace_private
from fedsci.registry.journal import Journal
from fedsci.site.service import SiteService
from fedsci.transport.messages import Request

MODEL = np.zeros(3, np.float32)
UNUSABLE = "the site's ledger cannot be used, so nothing is released"


@contextlib.contextmanager
def files_up_to(size_bytes):
    """Let the system refuse every write beyond ``size_bytes`` of a file, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def service(make_lab, tmp_path):
    return SiteService(load_site(make_lab()), tmp_path / "state")


@pytest.fixture
def plan(make_plan):
    return make_plan(secure_aggregation={"enabled": False}, training={"rounds": 4})


def prepare(service, plan, run):
    return service.handle(Request(action="prepare", fields={"run": run, "plan": plan.to_bytes().decode()}))


def train(service, plan, run, number):
    fields = {"run": run, "round": number, "records": {site: [40, 20] for site in plan.sites}}
    return service.handle(Request(action="train", fields=fields, vector=MODEL))


def kinds(service):
    return [entry.kind for entry in service.ledger.entries()]


def test_a_study_that_cannot_be_written_down_is_refused_uncharged_and_may_come_again(service, plan):
    run = secrets.token_hex(16)
    with files_up_to(0):
        refused = prepare(service, plan, run)
    assert refused.error["message"] == "the site cannot write to its disk"
    assert (refused.error["code"], refused.error["exit_code"]) == ("input", 2)
    assert not (service.state / "runs" / run).exists()
    assert "reserve" not in kinds(service)
    assert prepare(service, plan, run).error is None
    assert kinds(service)[-1] == "reserve"


def test_room_for_the_plan_and_not_for_the_charge_is_no_room(service, plan):
    assert prepare(service, plan, secrets.token_hex(16)).error is None
    run = secrets.token_hex(16)
    with files_up_to(len(plan.to_bytes()) + 1):
        refused = prepare(service, plan, run)
    assert (refused.error["code"], refused.error["message"]) == ("budget", UNUSABLE)
    assert not (service.state / "runs" / run).exists()
    assert prepare(service, plan, run).error is None


def test_a_charge_whose_run_cannot_begin_is_given_back(service, plan, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "plan.new")

    run = secrets.token_hex(16)
    with monkeypatch.context() as patch:
        patch.setattr("fedsci.site.service.Path.rename", full)
        assert prepare(service, plan, run).error["message"] == "the site cannot write to its disk"
    assert kinds(service)[-2:] == ["reserve", "settle"]
    assert service.ledger.entries()[-1].body["rounds"] == 0
    assert not (service.state / "runs" / run).exists()


def test_a_round_that_cannot_be_charged_is_not_computed_and_the_next_is(service, plan, monkeypatch):
    run, computed = secrets.token_hex(16), []
    assert prepare(service, plan, run).error is None
    worker = service._runs[run].worker
    whole = type(worker).contribution

    def contribution(self, model, number, **about):
        computed.append(number)
        return whole(self, model, number, **about)

    monkeypatch.setattr(type(worker), "contribution", contribution)
    assert train(service, plan, run, 1).error is None
    with files_up_to(100):
        refused = train(service, plan, run, 2)
    assert (refused.error["code"], refused.error["message"]) == ("budget", UNUSABLE)
    assert train(service, plan, run, 3).error is None
    assert computed == [1, 3]
    assert [entry.body["round"] for entry in service.ledger.entries() if entry.kind == "step"] == [1, 3]
    assert service.ledger.inspect().problem is None


def test_an_anchor_that_cannot_be_written_releases_nothing_and_the_entry_stays(service, plan, monkeypatch):
    run = secrets.token_hex(16)
    assert prepare(service, plan, run).error is None

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fedsci.site.ledger_keeping.write_anchor", full)
        assert train(service, plan, run, 1).error["message"] == UNUSABLE
    assert kinds(service)[-1] in ("step", "reserve")  # whichever it is: at most charged and not released
    assert train(service, plan, run, 2).error is None
    assert service.ledger.inspect().problem is None


def test_other_errors_of_the_system_say_nothing(service, plan, monkeypatch):
    run = secrets.token_hex(16)
    assert prepare(service, plan, run).error is None

    def broken(*_, **__):
        raise OSError(5555, "patient-4711", "patient-4711.csv")

    monkeypatch.setattr(type(service._runs[run].worker), "contribution", broken)
    assert train(service, plan, run, 1).error["message"] == "the site had an internal error"


def test_a_file_that_cannot_be_replaced_leaves_the_old_one_and_no_litter(tmp_path):
    replace_private(tmp_path / "a", b"old")
    with files_up_to(2), pytest.raises(OSError, match="File too large"):
        replace_private(tmp_path / "a", b"new one")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_journal_goes_on_when_there_is_room_again(tmp_path):
    with (tmp_path / "log").open("w") as stream:
        journal = Journal(stream)
        journal("before")
        with files_up_to(0):
            journal("meanwhile")
        journal("after")
    lines = (tmp_path / "log").read_text().splitlines()
    assert '"before"' in lines[0]
    assert '"after"' in lines[-1]
