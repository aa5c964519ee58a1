"""Runs side by side: what is one group, what may be claimed, what is refused, and a page that lets nothing through."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedsci.errors import InputError
from fedsci.reporting.comparison import compare_runs
from fedsci.reporting.comparison_page import render_comparison, write_comparison
from fedsci.reporting.comparison_words import reaching, result_rows, sentences

STUDY: dict[str, Any] = {
    "study": "digits",
    "question": "Which digit was written?",
    "dataset": "digits",
    "task": {"kind": "multiclass", "target": "digit", "classes": [0, 1]},
    "training": {"rounds": 3, "learning_rate": 0.1},
    "privacy": {"mechanism": "none", "epsilon": 3.0, "delta": 1e-5},
    "evaluation": {"holdout": 0.25},
}


def changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(values)
    for key, value in changes.items():
        section, _, inner = key.partition(".")
        if inner:
            result.setdefault(section, {})[inner] = value
        else:
            result[section] = value
    return result


@pytest.fixture
def run(tmp_path):
    """Writes a run folder: a strategy, a seed, the curve of the deciding metric, and what else is said of it."""

    def write(
        name: str, *, strategy: str = "fedavg", seed: int = 1, curve: Any = (0.5, 0.7, 0.8), size: int = 1000,
        virtual: float | None = None, study: dict[str, Any] | None = None, noise: float | None = None,
        epsilon: Any = "inf", **summary: Any,
    ) -> Path:  # fmt: skip
        folder = tmp_path / name
        folder.mkdir()
        asked = changed(STUDY | {"strategy": strategy, "seed": seed}, study or {})
        plan = {"plan_version": 1, "study": asked, "strategy": {"name": strategy}, "sites": ["lab-1", "lab-2"]}
        final = curve[-1]
        values: dict[str, Any] = {
            "study": asked["study"], "question": asked["question"], "plan_digest": f"sha256:{name}", "seed": seed,
            "status": "completed", "rounds_completed": len(curve), "sites": ["lab-1", "lab-2"],
            "metrics": {
                "primary": "accuracy", "higher_is_better": True, "by_site": {},
                "federated": {"accuracy": final - 0.01}, "federated_mean_site": {"accuracy": final},
                "local_mean_site": {"accuracy": 0.6}, "pooled": None,
                "noise_deviation": None if noise is None else {"accuracy": noise},
                "noise_deviation_mean_site": None if noise is None else {"accuracy": noise},
            },
            "privacy": {"mechanism": "none", "by_site": {"lab-1": {"epsilon_spent_study": epsilon}}},
            "secure_aggregation": {"enabled": True, "dropped": [["lab-1", 2]]},
            "traffic_bytes": {"up": size * len(curve), "down": 0}, "seconds": {"total": 9.0},
        }  # fmt: skip
        if virtual is not None:
            values["virtual_hours"] = virtual * len(curve) / 3600
        values = changed(values, summary)
        (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
        (folder / "summary.json").write_text(json.dumps(values))
        lines = [
            {"round": number, "metrics": {"accuracy": value - 0.01}, "mean_site": {"accuracy": value}, "seconds": 1.0,
             "traffic_bytes": {"up": size, "down": 0}, **({} if virtual is None else {"virtual_seconds": virtual})}
            for number, value in enumerate(curve, start=1)
        ]  # fmt: skip
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    return write


def results(comparison) -> dict[str, tuple[str, ...]]:
    return {row.label: row.cells for row in result_rows(comparison)}


def test_runs_that_differ_in_their_seeds_alone_are_one_group_with_mean_and_spread(run):
    a = [run(f"a{seed}", seed=seed, curve=(0.5, value)) for seed, value in ((1, 0.8), (2, 0.82), (10, 0.84))]
    b = run("b", strategy="fedprox", curve=(0.5, 0.7))
    comparison = compare_runs([a[0], b, a[2], a[1]])
    assert [(group.letter, group.words, group.seeds) for group in comparison.groups] == [
        ("A", "fedavg", ["1", "2", "10"]),
        ("B", "fedprox", ["1"]),
    ]
    assert comparison.differing == {"strategy": ("fedavg", "fedprox")}
    assert results(comparison)["Joint, mean over labs"] == ("0.820 ± 0.020", "0.700")


def test_a_change_of_the_weather_makes_another_group_and_its_seed_does_not(run):
    calm, again, storm = (
        run(name, weather={"seed": seed, "every_lab": {"availability": chance}}, virtual=10)
        for name, seed, chance in (("calm", 1, 0.9), ("again", 2, 0.9), ("storm", 1, 0.5))
    )
    comparison = compare_runs([calm, again, storm])
    assert [len(group.runs) for group in comparison.groups] == [2, 1]
    assert comparison.differing == {"weather.every_lab.availability": ("0.9", "0.5")}
    assert "The simulated weather is not the same everywhere." in comparison.cautions


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ((0.80, 0.90), (0.70, 0.81), "is larger than its spread from seed to seed (0.00707). A is ahead in 2 of 2"),
        ((0.80, 0.90), (0.90, 0.70), "is no larger than its spread from seed to seed (0.212): the runs do not settle"),
        ((0.90, 0.91), (0.70, 0.71, 0.72), "is larger than the spread between single runs (0.012"),
        ((0.80, 0.91), (0.70, 0.79, 0.90), "is no larger than the spread between single runs (0.12"),
    ],
)
def test_a_difference_is_held_against_the_spread(run, ours, theirs, words):
    folders = [run(f"a{seed}", seed=seed, curve=(0.4, value)) for seed, value in enumerate(ours)]
    folders += [run(f"b{seed}", seed=seed, curve=(0.4, value), strategy="fedprox") for seed, value in enumerate(theirs)]
    said = " ".join(sentences(compare_runs(folders)))
    assert words in said
    assert "Two runs say little" in said


def test_single_runs_prove_nothing_and_noised_ones_are_held_against_their_noise(run):
    plain = compare_runs([run("a"), run("b", strategy="fedprox", curve=(0.5, 0.9))])
    assert "may be chance: there are not several runs of each" in " ".join(sentences(plain))
    noised = [run("c", noise=0.03), run("d", strategy="fedprox", curve=(0.5, 0.84), noise=0.04)]
    said = " ".join(sentences(compare_runs(noised)))
    assert "0.040, is no larger than the privacy noise of the measurement (0.050)" in said
    assert results(compare_runs(noised))["Joint, mean over labs"][0] == "0.800 (noise ± 0.030)"


def test_errors_are_better_when_they_are_small(run):
    low, high = (
        run(name, strategy=name, curve=(20.0, value), **{
            "metrics.primary": "rmse", "metrics.higher_is_better": False,
            "metrics.federated_mean_site": {"rmse": value}, "metrics.federated": {"rmse": value},
        })
        for name, value in (("fedavg", 9.0), ("fedprox", 12.0))
    )  # fmt: skip
    for folder in (low, high):
        lines = (folder / "metrics.jsonl").read_text().replace("accuracy", "rmse")
        (folder / "metrics.jsonl").write_text(lines)
    comparison = compare_runs([high, low])
    assert sentences(comparison)[0].startswith("In RMSE (the mean over the labs), B (fedavg) reaches 9.000 and A")
    assert reaching(comparison)[0] == 12.0


def test_time_and_bytes_to_the_level_that_all_reach_are_those_of_the_first_round_there(run):
    fast = run("a", curve=(0.5, 0.8, 0.9), size=1000, virtual=3600)
    slow = run("b", strategy="fedprox", curve=(0.5, 0.6, 0.8), size=500, virtual=1800)
    comparison = compare_runs([fast, slow])
    found = results(comparison)
    assert found["To reach 0.800: rounds"] == ("2", "3")
    assert found["To reach 0.800: sent"] == ("2 kB", "1.5 kB")
    assert found["To reach 0.800: virtual hours"] == ("2", "1.5")
    assert found["Virtual hours of the rounds"] == ("3", "1.5")
    assert "Least virtual time is taken by B, 1 h 30 min; most by A, 3 h 0 min." in sentences(comparison)


def test_what_a_run_does_not_have_is_left_out_or_a_dash(run):
    one = run("a", **{"metrics.pooled": {"accuracy": 0.9}})
    old = run("b", strategy="fedprox")
    lines = [json.loads(line) for line in (old / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["traffic_bytes"]
    (old / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    comparison = compare_runs([one, old])
    found = results(comparison)
    assert found["Pooled, no privacy"] == ("0.900", "–")
    assert "Virtual hours of the rounds" not in found
    assert "Personalised, mean over labs" not in found
    assert render_comparison(comparison).count('<svg viewBox="0 0 440') == 3


def test_a_run_that_was_aborted_is_named_and_its_numbers_do_not_count(run):
    good, bad = run("a", curve=(0.5, 0.8)), run("b", seed=2, curve=(0.5, 0.1), status="aborted", reason="a storm")
    comparison = compare_runs([good, bad])
    assert results(comparison)["Joint, mean over labs"] == ("0.800",)
    assert comparison.cautions == ("1 of 2 runs of A did not come to an end (a storm).",)
    nothing = compare_runs([bad, run("c", strategy="fedprox", status="aborted", curve=(0.5, 0.2))])
    assert sentences(nothing)[0] == "No run has a result in accuracy."
    assert "Which digit" in render_comparison(nothing)


def test_other_test_records_are_cautioned_of(run):
    comparison = compare_runs([run("a"), run("b", study={"evaluation.holdout": 0.5})])
    assert comparison.cautions == ("The models were not tested on the same records: evaluation.holdout differ.",)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"study": {"question": "Is it a seven?"}}, "the question of a is 'Which digit was written?', of b 'Is it a"),
        ({"study": {"dataset": "letters"}}, "the data set of a is 'digits', of b 'letters'"),
        ({"study": {"task.target": "letter"}}, "the task of a is"),
        ({"metrics.primary": "log_loss"}, "the deciding metric of a is accuracy, of b log_loss"),
    ],
)
def test_runs_of_another_question_target_or_metric_are_refused(run, changes, what):
    folders = [run("a"), run("b", **changes)]
    with pytest.raises(InputError, match="not comparable: ") as refused:
        compare_runs(folders)
    assert what in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("summary.json", "{", "summary.json is damaged"),
        ("summary.json", None, "summary.json is missing"),
        ("plan.yaml", "a: [", "plan.yaml is damaged"),
        ("plan.yaml", "a: 1", "plan.yaml names no study"),
        ("metrics.jsonl", '{"round": 1}\n{"rou', "The last line of metrics.jsonl is cut off"),
    ],
)
def test_a_damaged_folder_is_named_with_its_file(run, file, content, message):
    folders = [run("a"), run("b", strategy="fedprox")]
    if content is None:
        (folders[1] / file).unlink()
    else:
        (folders[1] / file).write_text(content)
    with pytest.raises(InputError) as refused:
        compare_runs(folders)
    assert message in refused.value.message
    assert refused.value.message.startswith((str(folders[1]), "b:"))


def test_one_run_and_one_run_twice_are_refused(run):
    folder = run("a")
    with pytest.raises(InputError, match="cannot be compared"):
        compare_runs([folder])
    with pytest.raises(InputError, match="given twice"):
        compare_runs([folder, folder.parent / "." / "a"])


def test_the_page_loads_nothing_runs_nothing_and_lets_no_name_through(run, tmp_path):
    odd = '<script>alert("x")</script>'
    one = run("a", study={"training.note": odd, "question": odd})
    other = run("b", strategy=odd, study={"training.note": "plain", "question": odd}, status="aborted", reason=odd)
    third = run("c", strategy="fedprox", study={"question": odd})
    html = write_comparison(compare_runs([one, other, third]), tmp_path / "page.html").read_text()
    assert "<script" not in html
    assert not re.search(r"\bsrc=|href=|url\(", html)
    assert "default-src 'none'" in html
    with pytest.raises(InputError, match="cannot write"):
        write_comparison(compare_runs([one, other]), tmp_path / "nowhere" / "page.html")
