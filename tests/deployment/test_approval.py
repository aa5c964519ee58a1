"""The operator's word decides, in the site's process; a refusal's reason is what the coordinator reads."""

import pytest

pytestmark = pytest.mark.slow


def test_a_study_waits_for_a_word_and_each_word_is_for_one_run(deploy):
    consortium = deploy(rounds=2)
    consortium.study.sites["lab-2"]["policy"]["approval"] = "manual"
    consortium.study.values["privacy"]["epsilon"] = 1.0
    consortium.study.write()
    consortium.found()
    for lab in consortium.study.labs:
        consortium.start_site(lab)

    assert consortium.submit().code == 0
    consortium.until(lambda: "lab-2" in consortium.runs()[0]["waiting"] and len(consortium.runs()[0]["waiting"]) == 1)
    consortium.until(lambda: "approval" in consortium.runs()[0]["waiting"].get("lab-2", ""))
    assert "waits for lab-2, which waits for its operator's approval" in consortium.good("coordinator", "status").out
    (asked,) = consortium.json("site", "pending", "lab-2.yaml")
    assert (asked["study"], asked["data"], asked["sites"]) == ("tumours", "tumours", consortium.study.labs)
    assert 1.0 <= asked["costs"] < 2.5
    assert (asked["spent"], asked["budget"], asked["would_be_refused"]) == (0.0, 4.0, None)
    assert "costs     epsilon" in consortium.good("site", "pending", "lab-2.yaml").out
    assert consortium.json("site", "status", "lab-2.yaml")["pending"] == ["tumours"]
    assert consortium.json("site", "status", "lab-1.yaml")["datasets"]["tumours"]["spent"] == 0.0  # nobody paid yet
    consortium.kill("coordinator")  # while it waits: it goes on waiting
    consortium.start_coordinator()
    consortium.until(lambda: consortium.events("coordinator").count("started") == 2)
    consortium.until(lambda: "approval" in consortium.runs()[0]["waiting"].get("lab-2", ""))
    consortium.good("site", "approve", "lab-2.yaml", "tumours")
    consortium.until(lambda: consortium.runs()[0]["state"] == "completed")
    assert len(list((consortium.folder / "runs").iterdir())) == 1

    assert consortium.submit().code == 0  # the same plan: the approval was used
    consortium.until(lambda: "approval" in consortium.runs()[1]["waiting"].get("lab-2", ""))
    digest = consortium.json("site", "pending", "lab-2.yaml")[0]["digest"]
    consortium.good("site", "refuse", "lab-2.yaml", digest[7:19], "--reason", "once is enough")
    consortium.until(lambda: consortium.runs()[1]["state"] == "aborted")
    refused = consortium.submit("--wait")
    assert refused.code == 4
    assert refused.error_line == "fedsci: lab-2: the operator refused this study: once is enough"

    late = consortium.submit("--wait", "--timeout", "3", "--set", "seed=9")
    assert late.code == 4
    assert late.error_line == "fedsci: lab-2 did not decide within 3 s"
    consortium.good("coordinator", "stop", "4")  # over already


def test_an_approval_lifts_no_limit(deploy):
    consortium = deploy(rounds=2)
    consortium.study.sites["lab-2"]["policy"] |= {"approval": "manual", "max_epsilon_per_study": 1.0}
    consortium.study.write()
    consortium.found()
    for lab in consortium.study.labs:
        consortium.start_site(lab)
    assert consortium.submit().code == 0
    consortium.until(lambda: "approval" in consortium.runs()[0]["waiting"].get("lab-2", ""))
    (asked,) = consortium.json("site", "pending", "lab-2.yaml")
    assert "policy.max_epsilon_per_study is 1.00" in asked["would_be_refused"]
    consortium.good("site", "approve", "lab-2.yaml", "tumours")
    consortium.until(lambda: consortium.runs()[0]["state"] == "aborted")
    assert "policy.max_epsilon_per_study is 1.00" in consortium.runs()[0]["reason"]
    assert consortium.runs()[0]["exit_code"] == 4
