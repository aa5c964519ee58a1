"""The built-in study under the shipped weather, compared on one page."""

import json

import pytest

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
