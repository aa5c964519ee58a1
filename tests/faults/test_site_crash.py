"""A lab that fails in the middle of a round: the others go on if enough remain, else the run ends cleanly."""

import pytest
from safetensors.numpy import load_file

from fedsci.errors import DataError
from fedsci.site.ledger import Ledger
from fedsci.site.round import Contributor

PRIVATE = "patient 4711"


@pytest.fixture
def crash(monkeypatch):
    """Let a lab's computation fail in one round."""

    def arrange(*labs, round_number, error):
        whole = Contributor.contribution

        def contribution(self, model, number, **rest):
            if self.name in labs and number == round_number:
                raise error
            return whole(self, model, number, **rest)

        monkeypatch.setattr(Contributor, "contribution", contribution)

    return arrange


@pytest.fixture(params=["plain", "masked"])
def way(request):
    """Updates travel in the clear where policies allow it, else masked."""
    return request.param


@pytest.fixture
def study(study, way):
    """A study over four labs; the first three suffice."""
    study = type(study)(study.folder, labs=4)
    study.values["secure_aggregation"] = {"enabled": way == "masked", "min_survivors": 3}
    study.write()
    return study


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [RuntimeError(PRIVATE), MemoryError(PRIVATE), DataError(PRIVATE, hint=PRIVATE)],
    ids=["bug", "out of memory", "data error"],
)
def test_a_round_goes_on_without_a_lab_that_crashed(fedsci, study, crash, error):
    crash("lab-2", round_number=2, error=error)
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert (outcome.code, outcome.err) == (0, "")
    summary = fedsci.summary(outcome)
    assert (summary["status"], summary["rounds_completed"]) == ("completed", 3)
    assert summary["secure_aggregation"]["dropped"] == [["lab-2", 2]]
    rounds = fedsci.rounds(outcome.folder)
    assert [line["dropped"] for line in rounds] == [[], ["lab-2"], []]
    assert [line["sites"] for line in rounds] == [4, 3, 4]


@pytest.mark.slow
def test_the_model_of_a_round_with_a_dropped_lab_is_the_others_alone(fedsci, study, crash, way):
    crash("lab-4", round_number=1, error=RuntimeError(PRIVATE))
    without = fedsci("run", "study.yaml", "--quiet", "--set", "training.rounds=1").folder
    others = ["--set", "sites=[lab-1.yaml, lab-2.yaml, lab-3.yaml]", "--set", "training.rounds=1"]
    three = fedsci("run", "study.yaml", "--quiet", *others).folder
    models = [load_file(fedsci.folder / folder / "model.safetensors") for folder in (without, three)]
    assert models[0].keys() == models[1].keys()
    # weights are shares of all four labs and then divided by those of the three: float32 rounding, and the grid's
    for name, values in models[0].items():
        assert values == pytest.approx(models[1][name], rel=1e-6, abs=1e-7)


@pytest.mark.slow
def test_a_lab_that_crashed_stays_charged_for_the_round_it_began(fedsci, study, crash):
    study.private()
    crash("lab-2", round_number=2, error=RuntimeError(PRIVATE))
    outcome = fedsci("run", "study.yaml", "--quiet")
    assert outcome.code == 0
    by_site = fedsci.summary(outcome)["privacy"]["by_site"]
    assert by_site["lab-2"]["epsilon_spent_study"] == by_site["lab-1"]["epsilon_spent_study"]


@pytest.mark.slow
def test_too_few_labs_end_the_run_with_what_there_is(fedsci, study, crash):
    crash("lab-1", "lab-2", round_number=3, error=RuntimeError(PRIVATE))
    outcome = fedsci("run", "study.yaml")
    assert outcome.code == 5
    assert "round 3: only 2 of 4 sites finished, 3 are needed" in outcome.error_line
    assert "the model up to the last finished round is kept" in outcome.hint_line
    assert "Traceback" not in outcome.err
    summary = fedsci.summary(outcome)
    assert (summary["status"], summary["rounds_completed"]) == ("aborted", 2)
    assert "round 3" in summary["reason"]
    folder = fedsci.folder / outcome.folder
    assert len(fedsci.rounds(folder)) == 2
    for name in ("plan.yaml", "model.safetensors", "model.json", "report.html"):
        assert (folder / name).stat().st_size > 0
    assert "Yes, joining pays" not in (folder / "report.html").read_text()


def test_too_few_labs_in_the_first_round_leave_no_model(fedsci, study, crash):
    crash("lab-1", "lab-2", round_number=1, error=RuntimeError(PRIVATE))
    outcome = fedsci("run", "study.yaml")
    assert outcome.code == 5
    assert fedsci.summary(outcome)["rounds_completed"] == 0
    assert not (fedsci.folder / outcome.folder / "model.safetensors").exists()
    assert (fedsci.folder / outcome.folder / "report.html").is_file()


@pytest.mark.slow
def test_an_aborted_run_charges_only_the_rounds_that_labs_computed(fedsci, study, crash):
    study.private()
    crash("lab-1", "lab-3", round_number=2, error=RuntimeError(PRIVATE))
    assert fedsci("run", "study.yaml").code == 5
    for lab in study.labs:
        entries = Ledger(fedsci.folder / ".fedsci" / lab).entries()
        assert [entry.kind for entry in entries] == ["register", "reserve", "step", "step", "settle"]
        assert entries[-1].body["rounds"] == 2
        assert entries[-1].body["rdp"] < entries[1].body["rdp"]


@pytest.mark.slow
def test_what_a_lab_failed_on_stays_in_its_own_log(fedsci, study, crash):
    crash("lab-1", "lab-2", round_number=2, error=RuntimeError(PRIVATE))
    outcome = fedsci("run", "study.yaml")
    told = outcome.out + outcome.err
    files = [path for path in (fedsci.folder / outcome.folder).rglob("*") if path.is_file()]
    told += "".join(path.read_text(errors="replace") for path in files)
    assert PRIVATE not in told
    assert "lab-1: the site had an internal error" in outcome.error_line
    assert PRIVATE in (fedsci.folder / ".fedsci" / "lab-1" / "site.log").read_text()
