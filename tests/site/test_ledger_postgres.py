"""The same ledger on a real PostgreSQL server: durable, one writer, edits noticed, no password in any message."""

import importlib.util
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fedsci.config.site import load_site
from fedsci.errors import BudgetRefused, ConfigError
from fedsci.privacy.budget import charge_cost
from fedsci.privacy.calibration import charged_plan
from fedsci.privacy.events import Plan as EventPlan
from fedsci.secagg import Seed, SigningKey
from fedsci.site.ledger import Ledger, open_ledger
from fedsci.site.ledger_store import read_url
from fedsci.site.service import SiteService

spec = importlib.util.spec_from_file_location("fedsci_test_postgres", Path(__file__).with_name("postgres.py"))
postgres = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = postgres
spec.loader.exec_module(postgres)

pytestmark = pytest.mark.slow
BUDGET = {"epsilon": 8.0, "delta": 1e-5, "unit": "record"}
RUN, OTHER = "a" * 32, "b" * 32
KEY = SigningKey(Seed(b"o" * 32))


def events(rounds: int) -> EventPlan:
    return charged_plan(noise_multiplier=4.0, sample_rate=1.0, steps=rounds, dimension=10)


def reserve(ledger: Ledger, run: str = RUN, rounds: int = 3) -> None:
    policy = ledger.register("heart", **BUDGET)
    ledger.reserve("heart", run, policy=policy, plan=events, rounds=rounds, measurements=0, distance=1e-20)


def spent(ledger: Ledger) -> float:
    return ledger.spending("heart", ledger.register("heart", **BUDGET)).spent_rdp


@pytest.fixture(scope="module")
def server():
    with postgres.running_server() as running:
        yield running


@pytest.fixture
def make(server, tmp_path):
    """A ledger on the server; ``machine`` says whose state folder and anchor."""
    server.execute("DROP TABLE IF EXISTS entries")
    made = []

    def ledger(site: str = "lab-1", machine: str = "one") -> Ledger:
        made.append(Ledger(tmp_path / machine / site, url=read_url(server.url)))
        return made[-1]

    yield ledger
    for each in made:
        each.close()


def test_a_study_is_charged_stepped_and_settled(make):
    ledger = make()
    reserve(ledger, rounds=5)
    ledger.step("heart", RUN, 1)
    assert spent(make()) == pytest.approx(charge_cost(events(5), ledger.register("heart", **BUDGET)))
    policy = ledger.register("heart", **BUDGET)
    assert ledger.settle("heart", RUN, policy=policy, used=lambda rounds, _: events(rounds)) == (1, 0)
    assert spent(make()) == pytest.approx(charge_cost(events(1), policy))
    assert [entry.kind for entry in ledger.entries()] == ["register", "reserve", "step", "settle"]
    assert ledger.inspect().problem is None


def test_two_sites_share_a_server(make):
    first, second = make("lab-1"), make("lab-2")
    reserve(first)
    reserve(second, OTHER)
    for ledger in (first, second):
        assert [(entry.sequence, entry.kind) for entry in ledger.entries()] == [(1, "register"), (2, "reserve")]


@pytest.mark.parametrize(
    ("sql", "match"),
    [
        (
            "UPDATE entries SET body = replace(body, ' 3', ' 1') WHERE sequence = 2",
            "entry 2: hash",
        ),
        ("DELETE FROM entries WHERE sequence = 2", "entry 2: sequence"),
        ("DELETE FROM entries WHERE sequence = 3", "it ends at entry 2"),
        ("DELETE FROM entries", "it ends at entry 0"),
        ("DROP TABLE entries", "it ends at entry 0"),
    ],
    ids=["edited", "a gap", "cut off", "empty", "gone"],
)
def test_a_ledger_that_was_changed_is_refused(make, server, sql, match):
    ledger = make()
    reserve(ledger)
    ledger.step("heart", RUN, 1)
    server.execute(sql)
    again = make()
    for use in (again.entries, lambda: reserve(again, OTHER), lambda: again.step("heart", RUN, 2)):
        with pytest.raises(BudgetRefused, match=match):
            use()
    assert match in again.inspect().problem.message


def test_two_daemons_are_refused_until_the_officer_decides(make):
    first, second = make(machine="one"), make(machine="two")
    reserve(first)
    with pytest.raises(BudgetRefused, match="a ledger belongs to one state folder"):
        reserve(second, OTHER)
    second.adopt(reason="a new machine", key=KEY)
    reserve(second, OTHER)
    with pytest.raises(BudgetRefused, match="a ledger belongs to one state folder"):
        first.step("heart", RUN, 1)


def test_threads_and_openings_at_once_keep_one_chain(make):
    make().entries()
    ledgers = [make() for _ in range(4)]

    def work(number: int) -> None:
        for run in range(5):
            reserve(ledgers[number], f"{number}{run}" * 16, rounds=1)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [entry.kind for entry in make().entries()] == ["register"] + ["reserve"] * 20


KILLED = """
import os, signal, sys
from pathlib import Path
from fedsci.privacy.calibration import charged_plan
from fedsci.site.ledger import Ledger
from fedsci.site.ledger_store import read_url
ledger = Ledger(Path(sys.argv[1]), url=read_url(sys.argv[2]))
policy = ledger.register("heart", epsilon=8.0, delta=1e-5, unit="record")
plan = lambda rounds: charged_plan(noise_multiplier=4.0, sample_rate=1.0, steps=rounds, dimension=10)
ledger.reserve("heart", "a" * 32, policy=policy, plan=plan, rounds=3, measurements=0, distance=0.0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_charge_outlives_the_site_and_a_crash_of_the_server(tmp_path):
    with postgres.running_server() as server:
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path / "lab-1"), server.url], capture_output=True, check=False
        )
        assert done.returncode == -9, done.stderr
        ledger = Ledger(tmp_path / "lab-1", url=read_url(server.url))
        assert [entry.kind for entry in ledger.entries()] == ["register", "reserve"]
        ledger.close()
        server.process.send_signal(3)  # immediate shutdown: as a crash, it recovers from its log
        server.process.wait(60)
        with pytest.raises(BudgetRefused, match="cannot be used") as refused:
            ledger.entries()
        assert "nothing is released without a ledger" in refused.value.hint
        assert postgres.PASSWORD not in refused.value.message


def test_a_server_without_fsync_is_refused(make, server):
    server.execute("ALTER SYSTEM SET fsync = off")
    server.execute("SELECT pg_reload_conf()")
    try:
        for _ in range(50):
            if "the server runs with fsync off" in str(make().inspect().problem):
                break
            time.sleep(0.1)
        with pytest.raises(BudgetRefused, match="the server runs with fsync off"):
            reserve(make())
    finally:
        server.execute("ALTER SYSTEM RESET fsync")
        server.execute("SELECT pg_reload_conf()")


def test_no_password_is_in_any_message(server, tmp_path):
    for url in (
        server.url,
        server.url.replace("pa55", "pa66"),
        server.url.replace(str(server.folder), "/nowhere"),
        server.url.replace("postgres?", "nodatabase?"),
        server.url.replace("@/", "@no.such.host.invalid/").split("?")[0],
    ):
        ledger = Ledger(tmp_path / "lab-9", url=read_url(url))
        messages = [ledger.inspect().store, repr(ledger), str(ledger.__dict__)]
        try:
            ledger.entries()
        except BudgetRefused as refused:
            messages += [refused.message, refused.hint, str(refused.public()), repr(refused.__cause__)]
        assert not any("a55word" in text or "a66word" in text for text in messages), messages
        ledger.close()


def test_a_site_file_names_the_server_and_does_not_show_it(make_lab, server, make, tmp_path):
    site = load_site(make_lab(ledger=server.url))
    assert "a55word" not in repr(site) + str(site)
    service = SiteService(site, tmp_path / "one" / "lab-1")
    reserve(service.ledger)
    assert not (tmp_path / "one" / "lab-1" / "ledger.sqlite").exists()
    assert [entry.kind for entry in make().entries()] == ["register", "reserve"]
    service.ledger.close()


@pytest.mark.parametrize(
    "url", ["mysql://me:secret@host/db", "nonsense secret", "sqlite://", "postgresql+psycopg://host/db?password=secret"]
)
def test_a_ledger_of_another_kind_is_refused(make_lab, tmp_path, url):
    with pytest.raises(ConfigError) as refused:
        open_ledger(load_site(make_lab(ledger=url)), tmp_path / "lab-1")
    assert "secret" not in refused.value.message + refused.value.hint
