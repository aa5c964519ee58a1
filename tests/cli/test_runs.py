"""The list of studies shows what sites said as they said it."""

import pytest

from fedsci.coordinator.queue import JobState, StudyQueue
from fedsci.errors import SiteFailed


@pytest.mark.parametrize("reason", ["see [/srv/policy] first", "[red]no", "[bold", "done[/]", "no\n[/x]\x1b[2J"])
def test_a_reason_with_brackets_is_shown_as_it_is(fedsci, make_plan, reason, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert fedsci("coordinator", "init", "--address", "127.0.0.1").code == 0
    job = StudyQueue(fedsci.folder / "consortium").add(make_plan(), who="ada", patience_s=1.0)
    failure = SiteFailed("lab-1", {"message": f"the operator refused this study: {reason}", "exit_code": 4})
    job.write_state(JobState(state="aborted", reason=failure.message, exit_code=4))
    outcome = fedsci("coordinator", "runs")
    assert (outcome.code, outcome.err) == (0, "")
    assert failure.message in outcome.out
    assert "\x1b" not in outcome.out
