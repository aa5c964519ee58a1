"""A word is for one plan, once, for a time; what cannot be read is no approval."""

import pytest

from fedsci.config.site import load_site
from fedsci.errors import InputError, PolicyRefused
from fedsci.site.approvals import MOST_PENDING, Approvals
from fedsci.site.service import SiteService
from fedsci.transport.messages import Request


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def approvals(tmp_path, clock):
    return Approvals(tmp_path, clock=clock)


def approve(approvals, plan, **changes):
    return approvals.approve(plan.digest, **{"who": "ada", "permit": "sha256:" + 64 * "0", "nonce": 32 * "0"} | changes)


def use(approvals, plan):
    approvals.use(plan, "0" * 32, site="lab-1")


def test_nothing_runs_before_a_word(approvals, make_plan):
    with pytest.raises(PolicyRefused, match="needs the operator's approval"):
        use(approvals, make_plan())
    assert approvals.ask(make_plan()) == "pending"
    assert approvals.ask(make_plan()) == "pending"
    assert len(approvals.asked()) == 1
    with pytest.raises(PolicyRefused, match="needs the operator's approval"):
        use(approvals, make_plan())


def test_an_approval_is_used_up_by_one_run(approvals, make_plan):
    approvals.ask(make_plan())
    approve(approvals, make_plan())
    assert approvals.ask(make_plan()) == "given"
    use(approvals, make_plan())
    with pytest.raises(PolicyRefused):
        use(approvals, make_plan())
    assert approvals.ask(make_plan()) == "pending"


def test_it_is_for_that_very_plan(approvals, make_plan):
    approvals.ask(make_plan())
    approve(approvals, make_plan())
    other = make_plan(training={"rounds": 3})
    assert approvals.ask(other) == "pending"
    with pytest.raises(PolicyRefused):
        use(approvals, other)


def test_it_expires(approvals, clock, make_plan):
    approvals.ask(make_plan())
    approve(approvals, make_plan(), hours=1)
    clock.now += 3600
    with pytest.raises(PolicyRefused):
        use(approvals, make_plan())
    assert approvals.ask(make_plan()) == "pending"


def test_one_that_waits_for_a_second_signer_is_still_a_question(approvals, clock, make_plan):
    plan = make_plan(safety_critical=True)
    approvals.ask(plan)
    asked = approve(approvals, plan, second="ada", hours=1)
    assert (asked.state, asked.waits) == ("signed", True)
    assert approvals.ask(plan) == "pending"
    with pytest.raises(PolicyRefused, match="lacks the signature of its second signer, ada"):
        use(approvals, plan)
    with pytest.raises(InputError, match="changed meanwhile"):
        approvals.countersign(approve(approvals, plan, second="ben") and asked)
    approvals.countersign(approve(approvals, plan, second="ada", hours=1))
    assert approvals.ask(plan) == "given"
    clock.now += 3600
    assert approvals.ask(plan) == "pending"


def test_an_approval_without_a_permit_is_a_question(approvals, make_plan):
    """As a version without permits wrote them."""
    approvals.ask(make_plan())
    approve(approvals, make_plan(), permit="")
    assert approvals.ask(make_plan()) == "pending"


def test_a_refusal_says_why_and_stands(approvals, make_plan):
    approvals.ask(make_plan())
    approve(approvals, make_plan())
    approvals.refuse(make_plan().digest, who="ada", reason="not our topic")
    for asked in (approvals.ask, lambda plan: use(approvals, plan)):
        with pytest.raises(PolicyRefused) as refused:
            asked(make_plan())
        assert refused.value.public_message == "the operator refused this study: not our topic"


def test_a_decision_that_cannot_be_read_is_no(approvals, make_plan, tmp_path):
    approvals.ask(make_plan())
    approve(approvals, make_plan())
    (file,) = (tmp_path / "approvals").glob("*.json")
    file.write_text(file.read_text()[:40])
    with pytest.raises(PolicyRefused, match="nothing is approved"):
        use(approvals, make_plan())


def test_plans_are_found_by_name_or_digest(approvals, make_plan):
    first, second = make_plan(), make_plan(seed=4)
    approvals.ask(first)
    assert approvals.find("tiny").digest == first.digest
    approvals.ask(second)
    assert approvals.find(second.digest[7:15]).digest == second.digest
    assert approvals.find(second.digest).digest == second.digest
    with pytest.raises(InputError, match="2 plans are called"):
        approvals.find("tiny")
    for unknown in ("other", first.digest[7:10], ""):
        with pytest.raises(InputError, match="waits here"):
            approvals.find(unknown)


def test_nobody_can_fill_the_disk_with_questions(approvals, make_plan):
    for seed in range(MOST_PENDING):
        approvals.ask(make_plan(seed=seed))
    with pytest.raises(PolicyRefused, match="wait for the operator already"):
        approvals.ask(make_plan(seed=MOST_PENDING))
    assert approvals.ask(make_plan(seed=0)) == "pending"


@pytest.mark.parametrize(
    ("policy", "refused"),
    [
        ({}, None),
        ({"strategies": ["fedavg"]}, "policy.strategies does not allow 'dp_fedsgd'"),
        ({"max_epsilon_per_study": 3.0}, "policy.max_epsilon_per_study is 3.00"),
    ],
)
def test_asked_for_its_rules_alone_a_site_answers_without_its_operator(tmp_path, make_lab, make_plan, policy, refused):
    site = load_site(make_lab(1, policy={"approval": "manual"} | policy))
    service = SiteService(site, tmp_path / "state")
    fields = {"plan": make_plan(privacy={"colluding_sites": 1}).to_bytes().decode(), "rules_only": True}
    reply = service.handle(Request(action="propose", fields=fields))
    assert service.permitting.approvals.asked() == []
    if refused is None:
        assert (reply.error, reply.fields) == (None, {"approval": "given"})
    else:
        assert reply.error["code"] == "policy"
        assert refused in reply.error["message"]
