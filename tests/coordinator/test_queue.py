"""The queue of studies: on disk, in order, and the same for whoever looks."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from fedsci.coordinator.queue import JobState, StudyQueue
from fedsci.errors import InputError


def test_a_study_comes_back_as_it_was_handed_in(tmp_path, make_plan):
    plan = make_plan()
    StudyQueue(tmp_path).add(plan, who="ada", patience_s=5.0)
    (job,) = StudyQueue(tmp_path).jobs()
    assert job.plan().to_bytes() == plan.to_bytes()
    assert (job.number, job.study, job.sites, job.planned) == (1, "tiny", plan.sites, plan.training.rounds)
    assert (job.state.state, job.stop_asked) == ("queued", None)
    job.write_state(JobState(state="running", rounds=2))
    job.ask_to_stop("ada")
    (seen,) = StudyQueue(tmp_path).jobs()
    assert (seen.state.state, seen.state.rounds, seen.stop_asked) == ("running", 2, "ada")
    assert (seen.claim.number, str(seen.claim), seen.claim.sites) == (1, "study tiny (run 1)", set(plan.sites))


def test_many_may_hand_in_at_once(tmp_path, make_plan):
    queue, plan = StudyQueue(tmp_path), make_plan()
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: queue.add(plan, who="ada", patience_s=1.0).number, range(24)))
    assert sorted(numbers) == list(range(1, 25))
    assert [job.number for job in queue.jobs(after=22)] == [23, 24]


def test_a_run_has_a_number_a_name_and_a_folder(tmp_path, make_plan):
    queue = StudyQueue(tmp_path)
    first = queue.add(make_plan(), who="ada", patience_s=1.0)
    second = queue.add(make_plan(), who="ada", patience_s=1.0)
    first.write_state(JobState(state="completed", folder="/srv/runs/tiny-20260101T000000Z-12345678"))
    assert queue.find("1") == first
    assert queue.find("tiny") == second
    assert queue.find("runs/tiny-20260101T000000Z-12345678") == first
    with pytest.raises(InputError, match="no run is called 3"):
        queue.find("3")


def test_a_name_stands_for_the_run_that_is_not_over_unless_there_are_two(tmp_path, make_plan):
    queue = StudyQueue(tmp_path)
    first, second, third = (queue.add(make_plan(), who="ada", patience_s=1.0) for _ in range(3))
    with pytest.raises(InputError, match="3 runs of tiny are not over") as caught:
        queue.find_going("tiny")
    assert caught.value.hint == "name one by its number: 1, 2, 3"
    assert queue.find_going("2") == second
    third.write_state(JobState(state="aborted"))
    second.write_state(JobState(state="completed"))
    assert queue.find_going("tiny") == first
    first.write_state(JobState(state="completed"))
    assert queue.find_going("tiny") == third


def test_a_study_stops_whatever_its_request_to_stop_holds(tmp_path, make_plan):
    job = StudyQueue(tmp_path).add(make_plan(), who="ada", patience_s=1.0)
    (job.path / "stop").write_bytes(b"\xff\n\x1b[2J")
    assert job.stop_asked == "\ufffd \ufffd[2J"
