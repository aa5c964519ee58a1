"""Seventeen labs, each a process of its own."""

import json

import pytest


@pytest.mark.slow
@pytest.mark.whole_machine
def test_seventeen_sites_finish_a_masked_private_study(deploy):
    consortium = deploy(labs=17, rounds=3, min_survivors=12)
    consortium.found()
    for lab in consortium.study.labs:
        consortium.start_site(lab)
    outcome = consortium.submit("--wait", "--json")
    assert outcome.code == 0, outcome.err + consortium.said()
    summary = json.loads(outcome.out)
    assert (summary["status"], summary["rounds_completed"]) == ("completed", 3)
    assert len(summary["sites"]) == 17
    assert summary["secure_aggregation"]["dropped"] == []
    assert all(spent["settled"] for spent in summary["privacy"]["by_site"].values())
