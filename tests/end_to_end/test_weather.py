"""The built-in study under the shipped weather, compared on one page."""

import json

import pytest

from fedsci.config.shipped import shipped

MACHINES = shipped("examples") / "digits" / "machines.yaml"
QUICK = (
    "--set",
    "training.rounds=3",
    "--set",
    "training.round_deadline_s=90",
    "--set",
    "privacy.mechanism=none",
    "--set",
    "evaluation.baselines=[]",
)


@pytest.mark.slow
def test_two_strategies_of_the_demo_under_the_shipped_weather_over_two_seeds(fedsci):
    folders = []
    for strategy in ("fedavg", "dp_fedsgd"):
        for seed in (7, 8):
            outcome = fedsci(
                "demo",
                "--quiet",
                "--weather",
                "uneven",
                *QUICK,
                "--set",
                f"strategy={strategy}",
                "--set",
                f"seed={seed}",
            )
            assert outcome.code == 0, outcome.err
            folders.append(outcome.folder)
            summary = fedsci.summary(outcome)
            assert summary["rounds_completed"] == 3
            assert 0 < summary["virtual_hours"] <= 3 * 2 * 90 / 3600
            # the ship takes longer for its part of the first setup than the coordinator waits
            assert ["lab-11", 1] in summary["secure_aggregation"]["dropped"]
            assert all(line["virtual_seconds"] > 0 for line in fedsci.rounds(outcome.folder))
    values = json.loads(fedsci("compare", *folders, "--json", "--out", "page.html").out)
    assert [(group["words"], group["seeds"]) for group in values["groups"]] == [
        ("fedavg", ["7", "8"]),
        ("dp_fedsgd", ["7", "8"]),
    ]
    assert any("seeds" in words for words in values["sentences"])
    page = (fedsci.folder / "page.html").read_text()
    assert page.count('<svg viewBox="0 0 440') == 3


@pytest.mark.slow
def test_what_does_not_wait_for_slow_labs_is_done_earlier_and_compared_over_virtual_hours(fedsci):
    folders, hours = [], {}
    for strategy, pace in (("fedavg", "even"), ("fedbuff", "even"), ("fednova", "by_speed")):
        settings = ("--set", f"strategy={strategy}", "--set", f"training.pace={pace}", "--set", "training.batch_size=8")
        outcome = fedsci("demo", "--quiet", "--weather", str(MACHINES), *QUICK, *settings)
        assert outcome.code == 0, outcome.err
        folders.append(outcome.folder)
        summary = fedsci.summary(outcome)
        assert summary["rounds_completed"] == 3
        hours[strategy] = summary["virtual_hours"]
        if strategy == "fedbuff":
            assert ["lab-05", 1] in summary["secure_aggregation"]["dropped"]
            assert "not in this buffer" in summary["secure_aggregation"]["dropped_because"]
            assert summary["secure_aggregation"]["smallest_sum"] == 3
            page = (fedsci.folder / outcome.folder / "report.html").read_text()
            assert "at least 3." in page
            assert "were not in a round" in page
    assert hours["fedbuff"] < hours["fedavg"] / 3
    assert hours["fednova"] < hours["fedavg"] / 3
    values = json.loads(fedsci("compare", *folders, "--json", "--out", "page.html").out)
    assert [group["words"].split()[0] for group in values["groups"]] == ["fedavg", "fedbuff", "fednova"]
    page = (fedsci.folder / "page.html").read_text()
    assert "accuracy over virtual hours" in page
    for outside in ("<script", "<link", "src=", "@import", "https://"):
        assert outside not in page
