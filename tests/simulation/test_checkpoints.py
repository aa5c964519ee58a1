"""A simulated study that waits for people: also where it measures its scaling first, and when it is interrupted."""

import signal
import threading
import time

import pytest

from fedsci.cli.progress import SilentDisplay
from fedsci.config.study_file import load_study
from fedsci.coordinator.deciding import hand_in
from fedsci.coordinator.decisions import sign_decision
from fedsci.errors import PolicyRefused
from fedsci.secagg import Seed, SigningKey
from fedsci.simulation.run import SimulatedRun, _noting_signals

KEY = SigningKey(Seed(b"o" * 32))
NONE = {"mechanism": "none", "epsilon": None}


class Officer(SilentDisplay):
    """Decides as soon as it is asked, and notes where."""

    def __init__(self, refuses=None):
        self.asked, self.refuses = [], refuses

    def waits(self, question, roles, folder):
        for role in roles:
            self.asked.append((question.study, question.point.checkpoint, (folder / "model.safetensors").exists()))
            answer = "refuse" if self.asked[-1][:2] == self.refuses else "approve"
            now = time.time()
            hand_in(folder, sign_decision(question.point, role=role, name="O.", answer=answer, key=KEY, now=now))


@pytest.fixture
def waiting(tmp_path, make_lab, write_study):
    """A study whose scaling is measured first, and whose officer is asked before everything."""
    policy = {"strategies": ["dp_fedsgd", "feature_statistics"], "mechanisms": ["none"]}
    files = [make_lab(number, policy=policy) for number in range(1, 5)]
    study = load_study(
        write_study(
            features={"a": {"min": 0, "max": 1}, "b": {"min": 0, "max": 1}, "scaling": "federated"},
            privacy=NONE,
            evaluation={"baselines": []},
            sites=[file.name for file in files],
            checkpoints=[
                {"before": "training", "who": ["officer"]},
                {"every_rounds": 2, "who": ["officer"]},
                {"before": "release", "who": ["officer"]},
            ],
            signers={"officer": [KEY.public.hex()]},
        )
    )

    def run(officer):
        return SimulatedRun(study=study, engine="local", state=None, out=tmp_path / "runs", display=officer)

    return run


def test_people_are_asked_for_the_pass_and_then_for_the_study(waiting):
    officer = Officer()
    simulated = waiting(officer)
    summary = simulated.run()
    assert officer.asked == [
        ("tiny.scaling", "before:training", False),
        ("tiny.scaling", "before:release", False),
        ("tiny", "before:training", False),
        ("tiny", "round:2", False),
        ("tiny", "before:release", False),
    ]
    assert [one["checkpoint"] for one in summary["checkpoints"]] == ["before:training", "round:2", "before:release"]
    assert (simulated.folder.path / "model.safetensors").exists()
    assert (simulated.folder.path / "scaling" / "decisions" / "before-release.decided.json").exists()


def test_a_pass_that_may_not_release_what_it_measured_has_no_study_after_it(waiting, tmp_path):
    officer = Officer(refuses=("tiny.scaling", "before:release"))
    with pytest.raises(PolicyRefused, match="refused before release"):
        waiting(officer).run()
    assert {study for study, _, _ in officer.asked} == {"tiny.scaling"}
    assert not list((tmp_path / "runs").rglob("*.safetensors"))


def test_a_signal_is_noted_for_the_thread_that_waits_and_ends_the_process_as_ever():
    noted, before = threading.Event(), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), _noting_signals(noted):
        signal.raise_signal(signal.SIGINT)
    assert noted.is_set()
    assert signal.getsignal(signal.SIGINT) is before
