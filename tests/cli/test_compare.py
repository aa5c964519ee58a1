"""``fedsci compare`` and ``--weather``: what is printed, what is written, and where."""

import json

import pytest
import yaml

WEATHER = {
    "seed": 1,
    "every_lab": {"records_per_s": 50, "down_bytes_per_s": 1e5, "up_bytes_per_s": 1e4},
    "labs": {"lab-2": {"availability": 0.5}},
}


def two_runs(fedsci, study):
    study.unmasked(min_survivors=2)
    (fedsci.folder / "weather.yaml").write_text(yaml.safe_dump(WEATHER))
    folders = []
    for strategy in ("fedavg", "dp_fedsgd"):
        outcome = fedsci("run", "study.yaml", "--quiet", "--weather", "weather.yaml", "--set", f"strategy={strategy}")
        assert outcome.code == 0, outcome.err
        folders.append(outcome.folder)
    return folders


@pytest.mark.slow
def test_two_strategies_under_the_same_weather(fedsci, study):
    folders = two_runs(fedsci, study)
    shown = fedsci("compare", *folders)
    assert shown.code == 0, shown.err
    for words in ("A  fedavg (seed 7)", "B  dp_fedsgd (seed 7)", "Virtual hours of the rounds", "may be chance"):
        assert words in shown.out
    assert shown.out.endswith("page       comparison.html\n")
    assert "virtual hours" in (fedsci.folder / "comparison.html").read_text()
    (fedsci.folder / "comparison.html").unlink()

    values = json.loads(fedsci("compare", *folders, "--json").out)
    assert values["page"] is None
    assert not (fedsci.folder / "comparison.html").exists()
    assert values["differing"]["strategy"] == ["fedavg", "dp_fedsgd"]
    assert [group["runs"] for group in values["groups"]] == [[str(folder)] for folder in folders]
    hours = [spread["mean"] for spread in values["results"]["Virtual hours of the rounds"]]
    assert hours == [json.loads((fedsci.folder / f / "summary.json").read_text())["virtual_hours"] for f in folders]
    away = [round_ for round_ in fedsci.rounds(folders[0]) if round_["dropped"]]
    assert [line["round"] for line in away] == [
        line["round"] for line in fedsci.rounds(folders[1]) if line["dropped"] == ["lab-2"]
    ]
    assert 0 < len(away) < 3


@pytest.mark.slow
def test_the_page_goes_where_it_is_told(fedsci, study):
    folders = two_runs(fedsci, study)
    assert json.loads(fedsci("compare", *folders, "--json", "--out", "meeting.html").out)["page"] == "meeting.html"
    assert (fedsci.folder / "meeting.html").exists()


@pytest.mark.slow
def test_what_cannot_be_compared_is_refused_with_exit_2(fedsci, study):
    first, second = two_runs(fedsci, study)
    summary = fedsci.folder / second / "summary.json"
    whole = summary.read_text()
    summary.write_text(whole[:40])
    damaged = fedsci("compare", first, second)
    assert (damaged.code, damaged.out) == (2, "")
    assert damaged.error_line.startswith(f"fedsci: {second}: summary.json is damaged")
    summary.write_text(whole.replace("Is this tumour benign?", "Is this tumour large?"))
    other = fedsci("compare", first, second)
    assert other.code == 2
    assert "not comparable: the question of" in other.error_line
    assert fedsci("compare", first).error_line == "fedsci: one run alone cannot be compared"
    assert not (fedsci.folder / "comparison.html").exists()
