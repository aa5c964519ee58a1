"""A ledger that was edited, cut, restored, moved or shared is refused; and the officer's way out of it."""

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from fedsci.errors import BudgetRefused, InputError, PolicyRefused
from fedsci.privacy.calibration import charged_plan
from fedsci.privacy.events import Plan as EventPlan
from fedsci.secagg import Seed, SigningKey
from fedsci.site.ledger import Ledger

BUDGET = {"epsilon": 8.0, "delta": 1e-5, "unit": "record"}
RUN, OTHER = "a" * 32, "b" * 32
KEY, STRANGER = SigningKey(Seed(b"o" * 32)), SigningKey(Seed(b"x" * 32))


def events(rounds: int) -> EventPlan:
    return charged_plan(noise_multiplier=4.0, sample_rate=1.0, steps=rounds, dimension=10)


def reserve(ledger: Ledger, run: str = RUN, rounds: int = 3) -> None:
    policy = ledger.register("heart", **BUDGET)
    ledger.reserve("heart", run, policy=policy, plan=events, rounds=rounds, measurements=0, distance=1e-20)


def spent(ledger: Ledger) -> float:
    return ledger.spending("heart", ledger.register("heart", **BUDGET)).spent_rdp


@pytest.fixture
def state(tmp_path) -> Path:
    return tmp_path / "lab-1"


@pytest.fixture
def path(state) -> Path:
    return state / "ledger.sqlite"


@pytest.fixture
def anchor(tmp_path) -> Path:
    return tmp_path / "anchors" / "lab-1.json"


@pytest.fixture
def ledger(state) -> Ledger:
    """Three entries: register, reserve, step."""
    ledger = Ledger(state)
    reserve(ledger)
    ledger.step("heart", RUN, 1)
    return ledger


def edit(path: Path, sql: str, *values: object) -> None:
    with sqlite3.connect(path) as connection:
        assert connection.execute(sql, values).rowcount > 0
    connection.close()


def check_refused(ledger: Ledger, match: str) -> BudgetRefused:
    """Everything is refused, and the ledger's own look at itself says the same."""
    for use in (
        lambda: ledger.entries(),
        lambda: ledger.register("heart", **BUDGET),
        lambda: reserve(ledger, OTHER),
        lambda: ledger.step("heart", RUN, 2),
        lambda: ledger.measure("heart", RUN, 1),
        lambda: ledger.settle("heart", RUN, policy=None, used=lambda rounds, _: events(rounds)),
        lambda: ledger.record_no_privacy("heart", OTHER),
        lambda: ledger.change_budget("heart", epsilon=9.0, delta=None, reason="more", key=KEY),
    ):
        with pytest.raises(BudgetRefused, match=match) as refused:
            use()
    assert refused.value.exit_code == 3
    assert refused.value.hint
    assert ledger.inspect().problem is not None
    return refused.value


FORGERIES = {
    "a smaller charge": (
        "hash",
        "UPDATE entries SET body = replace(body, '\"rounds\": 3', '\"rounds\": 9') WHERE sequence = 2",
    ),
    "another data set": ("hash", "UPDATE entries SET dataset = 'lungs' WHERE sequence = 2"),
    "another time": ("hash", "UPDATE entries SET time = time + 1 WHERE sequence = 1"),
    "another writer": ("hash", "UPDATE entries SET writer = 'me' WHERE sequence = 2"),
    "another hash": ("hash", "UPDATE entries SET hash = ? WHERE sequence = 2", "sha256:" + "1" * 64),
    "another link": ("previous", "UPDATE entries SET previous = ? WHERE sequence = 2", "sha256:" + "1" * 64),
    "the first row deleted": ("sequence", "DELETE FROM entries WHERE sequence = 1"),
    "a row in the middle deleted": ("sequence", "DELETE FROM entries WHERE sequence = 2"),
    "a row renumbered": ("sequence", "UPDATE entries SET sequence = 9 WHERE sequence = 3"),
    "a row added": (
        "hash",
        "INSERT INTO entries SELECT site, 4, time, kind, dataset, run, body, writer, hash, hash FROM entries "
        "WHERE sequence = 3",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_ledger_that_was_changed_by_hand_refuses_everything_when_it_is_opened(ledger, state, path, name):
    field, *change = FORGERIES[name]
    edit(path, *change)
    refused = check_refused(Ledger(state), rf"lab-1: the ledger was changed: entry \d: {field}: ")
    assert "move this one away" in refused.hint
    assert f": {field}: " in Ledger(state).inspect().problem.message


@pytest.mark.parametrize("name", FORGERIES)
def test_a_process_that_runs_notices_when_it_reads_the_whole(ledger, path, name):
    edit(path, *FORGERIES[name][1:])
    with pytest.raises(BudgetRefused, match="the ledger was changed"):
        ledger.entries()
    check_refused(ledger, "the ledger was changed")


@pytest.mark.parametrize("name", ["a row renumbered", "a row added"])
def test_a_process_that_runs_notices_a_forged_head_at_once(ledger, path, name):
    edit(path, *FORGERIES[name][1:])
    with pytest.raises(BudgetRefused, match="the ledger was changed"):
        ledger.step("heart", RUN, 2)


def test_a_process_that_runs_reads_only_what_is_new(ledger, state, monkeypatch):
    asked = []
    rows = type(ledger._store).rows
    monkeypatch.setattr(
        type(ledger._store), "rows", lambda *a, since: asked.append((since, found := rows(*a, since=since))) or found
    )
    ledger.step("heart", RUN, 2)
    assert [(since, len(found)) for since, found in asked] == [(3, 1)]


def test_a_file_that_is_no_ledger_is_refused(state, path):
    state.mkdir()
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(BudgetRefused, match="cannot be used"):
        Ledger(state).entries()


def test_a_ledger_of_an_earlier_form_is_refused_and_not_begun_anew(state, path):
    state.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE entries (sequence INTEGER PRIMARY KEY, kind TEXT, body TEXT)")
    connection.close()
    with pytest.raises(BudgetRefused, match="written by another version"):
        Ledger(state).register("heart", **BUDGET)


@pytest.mark.parametrize("again", [False, True])
def test_a_ledger_whose_table_is_gone_is_refused(ledger, state, path, again):
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE entries")
    connection.close()
    check_refused(Ledger(state) if again else ledger, "cannot be used|cannot be trusted")


def test_only_the_owner_may_read_it(ledger, path, state, anchor):
    for file in (path, state / "writer.id", anchor):
        assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("again", [False, True], ids=["in the process that runs", "when opened again"])
def test_a_missing_last_row_is_noticed(ledger, state, path, again):
    edit(path, "DELETE FROM entries WHERE sequence = 3")
    refused = check_refused(Ledger(state) if again else ledger, "it ends at entry 2, the anchor .* has seen 3")
    assert "fedsci privacy ledger SITE --adopt --reason TEXT" in refused.hint


@pytest.mark.parametrize("again", [False, True], ids=["in the process that runs", "when opened again"])
def test_a_restored_backup_is_noticed(state, path, again):
    ledger = Ledger(state)
    reserve(ledger)
    backup = path.read_bytes()
    ledger.step("heart", RUN, 1)
    path.write_bytes(backup)
    check_refused(Ledger(state) if again else ledger, "it ends at entry 2, the anchor .* has seen 3: a backup")


@pytest.mark.parametrize("again", [False, True], ids=["in the process that runs", "when opened again"])
def test_a_new_empty_ledger_is_noticed(ledger, state, path, again):
    path.unlink()
    refused = check_refused(Ledger(state) if again else ledger, "cannot be used|it ends at entry 0")
    assert refused.hint


def test_a_restored_backup_that_went_on_is_noticed(state, path, anchor):
    """As long as the old one, but with other entries."""
    ledger = Ledger(state)
    reserve(ledger)
    backup = path.read_bytes(), anchor.read_bytes()
    ledger.step("heart", RUN, 1)
    seen = anchor.read_bytes()
    path.write_bytes(backup[0])
    anchor.write_bytes(backup[1])
    Ledger(state).step("heart", RUN, 2)
    anchor.write_bytes(seen)
    check_refused(Ledger(state), "its entry 3 is not the one that the anchor .* has seen")


def test_a_missing_anchor_is_noticed(ledger, anchor):
    anchor.unlink()
    check_refused(ledger, "it has 3 entries, but no anchor")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"sequence": -1}', '{"ledger": "", "sequence": "3"}', "\xff"])
def test_a_damaged_anchor_is_no_anchor(ledger, anchor, content):
    anchor.write_text(content, encoding="latin-1")
    check_refused(ledger, "anchor .* cannot be read: it is not an anchor")


def test_a_restored_anchor_is_noticed(ledger, state, anchor):
    old = anchor.read_bytes()
    ledger.step("heart", RUN, 2)
    ledger.step("heart", RUN, 3)
    anchor.write_bytes(old)
    check_refused(Ledger(state), "it is 2 entries ahead of the anchor")


def test_a_crash_between_commit_and_anchor_is_mended(ledger, state, anchor):
    old = anchor.read_bytes()
    ledger.step("heart", RUN, 2)
    anchor.write_bytes(old)
    again = Ledger(state)
    again.step("heart", RUN, 3)
    assert json.loads(anchor.read_bytes())["sequence"] == 5
    assert again.inspect().problem is None


def test_a_crash_before_the_first_commit_leaves_a_ledger_that_begins(state, path, anchor, ledger):
    values = {"ledger": "", "sequence": 0, "hash": "sha256:" + "0" * 64, "spent": {}}
    path.unlink()
    anchor.write_text(json.dumps(values))
    reserve(Ledger(state))


def test_nothing_is_added_where_the_anchor_cannot_follow(ledger, state, anchor, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedsci.site.ledger_keeping.write_anchor", full)
        for number in (2, 3):  # the first one's entry is written, its anchor is not; nothing goes on before it is
            with pytest.raises(BudgetRefused, match=r"anchor .* cannot be written: No space left on device"):
                ledger.step("heart", RUN, number)
    assert len(Ledger(state).entries()) == 4
    ledger.step("heart", RUN, 3)
    assert ledger.inspect().problem is None


def test_two_daemons_on_one_ledger_are_noticed(ledger, state, tmp_path):
    """Another installation: the same ledger and anchor, but a state folder of its own."""
    ledger.close()
    other = tmp_path / "elsewhere" / "lab-1"
    shutil.copytree(state, other)
    (other / "writer.id").unlink()
    second = Ledger(other, anchor=tmp_path / "anchors" / "lab-1.json")
    check_refused(second, "entry 1 was written by another installation .*; a ledger belongs to one state folder")
    second.adopt(reason="moved to a new machine", key=KEY)
    reserve(second, OTHER)
    # and the first one, should it still run on the same file, is refused in turn
    shutil.copy(other / "ledger.sqlite", state / "ledger.sqlite")
    check_refused(ledger, "entry 4 was written by another installation")


def test_a_copied_installation_is_noticed_by_its_anchor(ledger, state, tmp_path):
    """The same writer's id: what two copies write in turns does not fit either's anchor."""
    other = tmp_path / "copy" / "lab-1"
    shutil.copytree(state, other)
    shutil.copytree(tmp_path / "anchors", tmp_path / "copy" / "anchors")
    second = Ledger(other)
    second.step("heart", RUN, 2)
    second.step("heart", RUN, 3)
    shutil.copy(other / "ledger.sqlite", state / "ledger.sqlite")
    check_refused(Ledger(state), "it is 2 entries ahead of the anchor")


class TestAdoption:
    def test_a_missing_anchor(self, ledger, state, anchor):
        anchor.unlink()
        found = Ledger(state).adopt(reason="the disk with the anchors died", key=KEY)
        assert "no anchor" in found
        reserve(ledger, OTHER)
        entry = ledger.entries()[3]
        assert (entry.kind, entry.body["reason"]) == ("adopt", "the disk with the anchors died")
        assert entry.body["key"] == KEY.public.hex()

    def test_a_restored_backup_keeps_what_the_anchor_knows_was_spent(self, state, path):
        ledger = Ledger(state)
        reserve(ledger)
        backup = path.read_bytes()
        reserve(ledger, OTHER, rounds=5)
        before = spent(ledger)
        path.write_bytes(backup)
        Ledger(state).adopt(reason="restored", key=KEY)
        assert spent(Ledger(state)) == pytest.approx(before)
        spending = ledger.spending("heart", ledger.register("heart", **BUDGET))
        assert spending.lost_rdp == pytest.approx(before * 5 / 8)

    @pytest.mark.parametrize("rounds", [1, 3, 9])
    def test_a_ledger_that_went_another_way_is_charged_for_both(self, state, path, anchor, rounds):
        """What each way spent after they parted was released, whichever of them spent more."""
        ledger = Ledger(state)
        reserve(ledger)
        backup, common = (path.read_bytes(), anchor.read_bytes()), spent(ledger)
        reserve(ledger, OTHER, rounds=3)
        seen, lost = anchor.read_bytes(), spent(ledger) - common
        path.write_bytes(backup[0])
        anchor.write_bytes(backup[1])
        reserve(Ledger(state), "c" * 32, rounds=rounds)
        kept = spent(Ledger(state))
        anchor.write_bytes(seen)
        Ledger(state).adopt(reason="two copies of this machine ran", key=KEY)
        assert spent(Ledger(state)) >= kept + lost

    def test_what_was_charged_at_a_lower_order_uses_the_budget_up(self, ledger, state, path, anchor):
        """A Renyi divergence says nothing of a higher order's."""
        seen = anchor.read_bytes()
        path.unlink()
        anchor.unlink()
        small = {"epsilon": 0.5, "delta": 1e-5, "unit": "record"}
        policy = Ledger(state).register("heart", **small)
        assert policy.order > json.loads(seen)["spent"]["heart"]["order"]
        anchor.write_bytes(seen)
        Ledger(state).adopt(reason="the anchor was found again", key=KEY)
        again = Ledger(state)
        assert again.spending("heart", policy).epsilon_enforced >= 0.5
        with pytest.raises(BudgetRefused, match="would pass the budget"):
            again.reserve(
                "heart",
                OTHER,
                policy=policy,
                plan=lambda n: charged_plan(noise_multiplier=1000.0, sample_rate=1.0, steps=n, dimension=10),
                rounds=1,
                measurements=0,
                distance=0.0,
            )

    def test_a_lost_ledger_keeps_what_the_anchor_knows_was_spent_and_at_which_order(self, ledger, state, path):
        policy, before = ledger.register("heart", **BUDGET), spent(ledger)
        path.unlink()
        again = Ledger(state)
        again.adopt(reason="the disk died", key=KEY)
        new = again.register("heart", epsilon=3.0, delta=1e-5, unit="record")
        assert new.order == policy.order
        assert again.spending("heart", new).spent_rdp == pytest.approx(before)

    def test_a_lost_ledger_keeps_for_whom_it_was_charged(self, ledger, state, path):
        """What was spent on records says nothing of groups of them."""
        path.unlink()
        again = Ledger(state)
        again.adopt(reason="the disk died", key=KEY)
        with pytest.raises(BudgetRefused, match=r"unit group by patient, .* for unit record"):
            again.register("heart", epsilon=8.0, delta=1e-5, unit="group", group_by="patient")
        assert spent(again) > 0

    def test_a_damaged_anchor(self, ledger, state, anchor):
        anchor.write_text("{")
        Ledger(state).adopt(reason="a torn file", key=KEY)
        reserve(ledger, OTHER)

    def test_what_was_open_is_closed_whole_since_its_rounds_may_have_been_computed(self, state, path):
        """Else a round that was computed after the backup could be computed again, for one charge."""
        ledger = Ledger(state)
        reserve(ledger)
        backup, before = path.read_bytes(), spent(ledger)
        ledger.step("heart", RUN, 1)
        path.write_bytes(backup)
        Ledger(state).adopt(reason="restored", key=KEY)
        with pytest.raises(BudgetRefused, match="no open charge"):
            ledger.step("heart", RUN, 1)
        policy = ledger.register("heart", **BUDGET)
        ledger.settle("heart", RUN, policy=policy, used=lambda rounds, _: events(rounds))
        assert spent(ledger) == before

    def test_a_broken_chain_is_not_adopted(self, ledger, state, path):
        edit(path, *FORGERIES["a smaller charge"][1:])
        with pytest.raises(BudgetRefused, match="the ledger was changed"):
            Ledger(state).adopt(reason="please", key=KEY)

    def test_nothing_wrong_nothing_to_adopt(self, ledger):
        with pytest.raises(InputError, match="nothing is wrong"):
            ledger.adopt(reason="to be sure", key=KEY)

    def test_only_with_a_reason_and_the_officers_key(self, ledger, state, anchor):
        anchor.unlink()
        with pytest.raises(InputError, match="needs a reason"):
            ledger.adopt(reason=" ", key=KEY)
        pinned = Ledger(state, officer=KEY.public.hex())
        with pytest.raises(PolicyRefused, match="is not the privacy officer's"):
            pinned.adopt(reason="mine now", key=STRANGER)
        assert not anchor.exists()


CHARGE_MANY = """
import sys, time
from pathlib import Path
from fedsci.privacy.calibration import charged_plan
from fedsci.site.ledger import Ledger
state, prefix = Path(sys.argv[1]), sys.argv[2]
plan = lambda rounds: charged_plan(noise_multiplier=50.0, sample_rate=1.0, steps=rounds, dimension=10)
(state.parent / f"ready-{prefix}").touch()
while len(list(state.parent.glob("ready-*"))) < 2:
    time.sleep(0.001)
ledger = Ledger(state)
policy = ledger.register("heart", epsilon=8.0, delta=1e-5, unit="record")
for number in range(8):
    run = prefix * 16 + f"{number:016x}"
    ledger.reserve("heart", run, policy=policy, plan=plan, rounds=1, measurements=0, distance=0.0)
    ledger.step("heart", run, 1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("fresh", [True, False], ids=["a new file", "an old file"])
def test_two_processes_of_one_installation_keep_one_valid_chain(state, fresh):
    if not fresh:
        Ledger(state).entries()
    command = [sys.executable, "-c", CHARGE_MANY, str(state)]
    workers = [subprocess.Popen([*command, prefix], stderr=subprocess.PIPE, text=True) for prefix in "ab"]
    problems = [worker.communicate(timeout=60)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], problems
    entries = Ledger(state).entries()
    assert [entry.sequence for entry in entries] == list(range(1, 34))
    assert [entry.kind for entry in entries].count("register") == 1
    assert len({(entry.kind, entry.run) for entry in entries}) == 33
    assert Ledger(state).inspect().problem is None
