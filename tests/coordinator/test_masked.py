"""Masked studies end to end: the same result as in the clear, at the price of one exchange, and never a wrong sum."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from fedsci import secagg
from fedsci.config.masking import grid_for
from fedsci.secagg.round_messages import SurvivorList
from fedsci.site.round import Contributor
from fedsci.transport.binding import pack, unpack
from fedsci.transport.messages import Reply, Request

RATE = 0.5
ROUNDS = {"learning_rate": RATE}


class Dead(RuntimeError):
    """The lab's process is gone."""


def dying(*labs: str, action: str, slot: int, when: str = "before"):
    """Hooks with which labs die before they answer one request, or after they did what it asked for."""

    def strike(service, request) -> None:
        if service.site.site in labs and request.action == action and request.fields.get("slot") == slot:
            raise Dead

    def before(service, request):
        if when == "before":
            strike(service, request)
        return request

    def after(service, request, reply):
        if when == "after":
            strike(service, request)
        return reply

    return {"before": before, "after": after}


def metrics_of(result) -> list:
    return [(line.measured.pooled(), line.measured.mean_site()) for line in result.rounds if line.measured]


def slack(make_plan, *, labs: int, rounds: int) -> float:
    """Quantisation of every round, which later gradients of this model (it is convex) do not make larger."""
    return rounds * RATE * labs * grid_for(make_plan(sites=labs)).error_bound + rounds * 1e-7


def check_close(result, reference, within: float) -> None:
    assert result.error is None
    assert result.progress.rounds_completed == reference.progress.rounds_completed
    assert result.progress.model == pytest.approx(reference.progress.model, abs=within)
    for mine, theirs in zip(metrics_of(result), metrics_of(reference), strict=True):
        assert mine[0] == pytest.approx(theirs[0], abs=1e-3)
        assert mine[1] == pytest.approx(theirs[1], abs=1e-3)


@pytest.mark.slow
def test_seventy_rounds_in_three_batches_are_those_in_the_clear(conduct, make_plan):
    training = ROUNDS | {"rounds": 70}
    plain = conduct(masked=False, training=training)
    masked = conduct(training=training)
    check_close(masked, plain, slack(make_plan, labs=4, rounds=70))
    assert len(metrics_of(masked)) == 70
    # 70 rounds and the evaluation: setups after the first ride along
    assert masked.exchanges == {"prepare": 1, "share": 1, "train": 70, "evaluate": 1, "unmask": 71, "finish": 1}
    assert plain.exchanges == {"prepare": 1, "train": 70, "evaluate": 1, "finish": 1}
    adverts = [step.slot for step in masked.steps if "setup_batch" in step.request.fields and step.site == "lab-1"]
    assert adverts == [-1, 26, 58]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["dp_fedsgd", "fedavg"])
def test_the_same_seed_gives_the_same_model_bit_for_bit_on_every_path(conduct, strategy):
    runs = [conduct(strategy=strategy, serialise=serialise) for serialise in (False, False, True)]
    models = [run.progress.model.tobytes() for run in runs]
    assert models[0] == models[1] == models[2]
    assert metrics_of(runs[0]) == metrics_of(runs[1]) == metrics_of(runs[2])
    uploads = [run.said("train", slot=0)["lab-1"].vector.tobytes() for run in runs]
    assert len(set(uploads)) == 3  # the masks never repeat


@pytest.mark.slow
@pytest.mark.parametrize("ring_bits", [32, 64])
@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks_and_rings_agree_too(conduct, make_plan, ring_bits, task):
    tasks = {
        "multiclass": {"kind": "multiclass", "target": "above", "classes": [0, 1]},
        "regression": {"kind": "regression", "target": "above", "min": -1, "max": 2},
    }
    plain = conduct(masked=False, task=tasks[task])
    masked = conduct(secure_aggregation={"enabled": True, "ring_bits": ring_bits}, task=tasks[task])
    check_close(masked, plain, slack(make_plan, labs=4, rounds=2))


@pytest.mark.slow
def test_a_round_costs_one_exchange_more_and_two_where_a_lab_dropped(conduct):
    calm = conduct(training={"rounds": 3})
    assert (calm.exchanges["unmask"], calm.exchanges["votes"]) == (4, 0)
    rough = conduct(training={"rounds": 3}, **dying("lab-2", action="train", slot=1))
    assert rough.error is None
    assert (rough.exchanges["unmask"], rough.exchanges["votes"]) == (4, 1)
    assert rough.progress.dropped == [("lab-2", 2)]
    asked = [(step.site, step.slot) for step in rough.steps if step.action == "votes"]
    assert sorted(asked) == [("lab-1", 1), ("lab-3", 1), ("lab-4", 1)]


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["train", "unmask", "votes"])
@pytest.mark.parametrize("dead", [1, 2, 3])
def test_labs_that_die_at_any_step_leave_the_right_sum_or_none(conduct, make_plan, step, when, dead):
    """Of seven labs five must finish. For votes to be asked for at all, another lab dies before its upload."""
    labs = ("lab-2", "lab-5", "lab-6")[:dead]
    hooks = [dying(*labs, action=step, slot=0, when=when)]
    if step == "votes":
        hooks.append(dying("lab-3", action="train", slot=0))

    def before(service, request):
        for hook in hooks:
            hook["before"](service, request)
        return request

    def after(service, request, reply):
        for hook in hooks:
            hook["after"](service, request, reply)
        return reply

    result = conduct(labs=7, before=before, after=after)
    left = 7 - dead - (step == "votes")
    if left < secagg.default_terms(7).threshold:
        assert result.error.exit_code == 5
        assert result.progress.rounds_completed == 0
        return
    not_in_the_sum = {"train": list(labs), "unmask": [], "votes": ["lab-3"]}[step]
    assert result.error is None
    assert result.progress.dropped == [(lab, 1) for lab in not_in_the_sum]
    plain = conduct(
        labs=7, masked=False, before=die_in_round(not_in_the_sum, 1),
        secure_aggregation={"enabled": False, "min_survivors": 5},
    )  # fmt: skip
    check_close(result, plain, 2 * slack(make_plan, labs=7, rounds=2))


def die_in_round(labs, number):
    def before(service, request):
        if service.site.site in labs and request.action == "train" and request.fields["round"] == number:
            raise Dead
        return request

    return before


@pytest.mark.slow
def test_a_lab_that_lost_its_secrets_sits_out_and_comes_back_at_the_next_batch(conduct):
    """As after a reboot: what lay in memory is gone, the state folder is not."""
    rounds, lost_in = 36, 5

    def before(service, request):
        if service.site.site == "lab-3" and request.action == "train" and request.fields["round"] == lost_in:
            run = request.fields["run"]
            assert service.keystore.holds(run, 0)
            service.keystore.forget(run)
            service._runs.clear()
        return request

    computed = []
    whole = Contributor.contribution

    def contribution(self, model, number, **rest):
        if self.name == "lab-3":
            computed.append(number)
        return whole(self, model, number, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Contributor, "contribution", contribution)
        result = conduct(training={"rounds": rounds}, before=before)
    assert result.error is None
    assert result.progress.dropped == [("lab-3", number) for number in range(lost_in, 33)]
    assert computed == [*range(1, lost_in), *range(33, rounds + 1)]
    refused = result.said("train", slot=lost_in)["lab-3"]
    assert refused.error["message"] == "refused: batch-burnt"
    assert refused.vector is None


@pytest.mark.slow
def test_a_lab_that_missed_one_setup_is_asked_to_join_the_one_after(conduct):
    result = conduct(training={"rounds": 70}, **dying("lab-2", action="train", slot=26))
    assert result.error is None
    assert result.progress.dropped == [("lab-2", number) for number in (27, *range(33, 65))]


def test_a_restored_state_folder_lets_no_slot_be_used_twice(conduct, tmp_path):
    saved = tmp_path / "backup"

    def after(service, request, reply):
        if service.site.site != "lab-1" or request.action != "train":
            return reply
        if request.fields["round"] == 1:
            shutil.copytree(service.state, saved)
            first.append(request)
        if request.fields["round"] == 2:
            shutil.copytree(saved, service.state, dirs_exist_ok=True)
            again = type(service)(service.site, service.state)
            for request_again in (request, *first):
                for process in (service, again):
                    refused = process.handle(request_again)
                    assert refused.error["message"] == "refused: slot-used"
                    assert refused.vector is None
            later.append(1)
        return reply

    first, later = [], []
    assert conduct(training={"rounds": 3}, after=after).error is None
    assert later == [1]


def test_a_finished_study_leaves_no_secret(conduct):
    services = {}

    def before(service, request):
        services[service.site.site] = service
        return request

    result = conduct(before=before)
    assert result.error is None
    for service in services.values():
        assert not service.keystore._batches.exists()


def other_model(request: Request) -> Request:
    return replace(request, vector=request.vector + np.float32(1))


def other_fields(**changes):
    return lambda request: replace(request, fields=request.fields | changes)


TAMPERED = {
    "another model": (other_model, "permit: initial_model"),
    "other record counts": (
        lambda request: replace(
            request, fields=request.fields | {"records": request.fields["records"] | {"lab-1": [1, 1]}}
        ),
        "took part in another round",
    ),
    "a field of its own": (other_fields(extra=True), "took part in another round"),
    "to measure": (other_fields(evaluate="exact"), "its upload does not fit the model"),
    "to measure with noise that is not there": (
        other_fields(evaluate="noised"),
        "a study without privacy has no noised metrics",
    ),
    "a smaller cohort": (other_fields(cohort=["lab-1", "lab-2", "lab-3"]), "took part in another round"),
    "the next slot": (other_fields(slot=1), "train belongs to slot 0, not 1"),
    "a slot of the next batch": (other_fields(slot=32), "train belongs to slot 0, not 32"),
    "the next round": (other_fields(round=2), "train belongs to slot 1, not 0"),
    "a cohort too small": (other_fields(cohort=["lab-2", "lab-3"]), "refused: cohort-too-small"),
    "a stranger": (other_fields(cohort=["lab-1", "lab-2", "lab-3", "lab-9"]), "refused: unknown-site"),
    "no cohort": (other_fields(cohort=7), "refused: unknown-site"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TAMPERED)
def test_a_site_that_is_told_something_else_is_in_no_sum(conduct, make_plan, name):
    change, reason = TAMPERED[name]

    def before(service, request):
        mine = service.site.site == "lab-2" and request.action == "train" and request.fields["round"] == 1
        return change(request) if mine else request

    result = conduct(before=before, training={"rounds": 2})
    assert result.error is None
    assert result.progress.dropped == [("lab-2", 1)]
    plain = conduct(
        masked=False, before=die_in_round(["lab-2"], 1), training={"rounds": 2},
        secure_aggregation={"enabled": False, "min_survivors": 3},
    )  # fmt: skip
    check_close(result, plain, 2 * slack(make_plan, labs=4, rounds=2))
    # and where it is one too many, the round is called off with the reason
    three = conduct(labs=3, before=before) if "cohort" not in name and name != "a stranger" else None
    if three is not None:
        assert three.error.exit_code == 5
        assert reason in three.error.message
        assert three.exchanges["unmask"] == 0


def test_two_models_in_one_round_cancel_no_masks(conduct):
    """Half of the labs get another model: neither half is large enough, so nothing is opened.

    In the first round their permits say which it must be; later only the masks tell.
    """

    def before(service, request):
        other = service.site.site in ("lab-3", "lab-4") and request.action == "train" and request.fields["round"] == 2
        return other_model(request) if other else request

    result = conduct(before=before, training={"rounds": 2})
    assert result.error.exit_code == 5
    assert "lab-3: site 3 took part in another round" in result.error.message
    assert result.exchanges["unmask"] == 1


def shortened(request: Request, keep: int) -> Request:
    listed = SurvivorList.decode(unpack(request.fields["survivors"]))
    fewer = replace(listed, headers=listed.headers[:keep])
    return replace(request, fields=request.fields | {"survivors": pack(fewer.encode())})


@pytest.mark.parametrize(("keep", "rule"), [(1, "too-few-survivors"), (2, "too-few-survivors")])
def test_a_survivor_list_that_is_too_short_opens_nothing(conduct, keep, rule):
    def before(service, request):
        return shortened(request, keep) if request.action == "unmask" else request

    result = conduct(before=before)
    assert result.error.exit_code == 5
    assert result.progress.rounds_completed == 0
    for reply in result.said("unmask").values():
        assert reply.error["message"] == f"refused: {rule}"


def test_a_site_told_of_other_survivors_releases_no_share(conduct):
    """One lab is told that another dropped: it votes for that, and its vote fits no other."""
    replies, whole = [], {}

    def before(service, request):
        if service.site.site != "lab-1" or request.action != "unmask":
            return request
        whole["list"] = request.fields["survivors"]
        return shortened(request, 3)

    def after(service, request, reply):
        if service.site.site == "lab-1" and request.action == "unmask":
            replies.append(reply)
            true = service.handle(replace(request, fields=request.fields | {"survivors": whole["list"]}))
            assert true.error["message"] == "refused: two-survivor-sets"
        return reply

    result = conduct(before=before, after=after, training={"rounds": 1})
    assert result.error is None  # the other three are enough, and the sum is over all four
    assert replies
    assert all(reply.error is None for reply in replies)


def test_a_roster_of_another_consortium_is_refused(conduct):
    """Of the same sites and keys, but signed by a key that the site never pinned."""
    stranger = secagg.SigningKey(secagg.Seed(bytes(32)))

    def before(service, request):
        if request.action != "prepare" or service.site.site != "lab-2":
            return request
        true = unpack(request.fields["roster"])
        roster = secagg.open_roster(true, consortium_key=service.keystore.consortium_key())
        forged = pack(secagg.sign_roster(roster, stranger))
        return replace(request, fields=request.fields | {"roster": forged})

    result = conduct(before=before)
    assert result.error is not None
    assert result.error.exit_code == 5
    assert result.error.message.startswith("lab-2: refused: ")
    assert result.exchanges == {"prepare": 1, "finish": 1}


@pytest.mark.slow
def test_nothing_but_sums_is_in_the_clear(conduct):
    result = conduct(policy={"show_own_metrics": False}, training={"rounds": 40}, evaluation={"baselines": ["local"]})
    assert result.error is None
    assert {step.action for step in result.steps} >= {"hello", "prepare", "share", "train", "evaluate", "alone"}
    allowed = {
        "hello": {"site", "key"},
        "prepare": {
            *("records", "inputs", "parameters", "schema", "exact_evaluation", "privacy", "advert"),
            *("rounds_allowed", "measurements_allowed", "stops", "permit"),
        },
        "share": {"envelopes"},
        "train": {"header", "advert"},
        "evaluate": {"header"},
        "alone": {"header"},
        "unmask": {"answer", "envelopes"},
        "finish": {"privacy", "spend"},
    }
    uploads = []
    for step in result.steps:
        reply: Reply = step.reply
        assert reply.error is None
        assert set(reply.fields) <= allowed[step.action]
        for name, value in reply.fields.items():
            assert isinstance(value, (str, int)) or name in ("records", "privacy")
        if reply.vector is not None:
            assert step.action in ("train", "evaluate", "alone")
            assert reply.vector.dtype == np.uint32
            uploads.append(reply.vector)
    assert metrics_of(result)
    assert chi_square(np.concatenate(uploads)) < 400  # 255 degrees of freedom: one in 10**7 is above 385


def test_the_uniformity_check_rejects_what_is_not_masked():
    values = np.random.default_rng(1).normal(0, 2**29, 40 * 4 * 500).astype(np.int64).astype(np.uint32)
    assert chi_square(values) > 1000


def chi_square(words: np.ndarray) -> float:
    counts = np.bincount(words.view(np.uint8), minlength=256)
    expected = counts.sum() / 256
    return float(((counts - expected) ** 2 / expected).sum())


def test_an_unmasked_study_is_refused_where_the_policy_says_so(conduct):
    result = conduct(masked=False, policy={"unmasked_updates": False})
    assert result.error.exit_code == 4
    assert "updates may not travel unmasked (policy.unmasked_updates is false)" in result.error.message
    assert result.exchanges == {"prepare": 1}


def test_a_study_goes_on_with_its_roster_after_a_newer_one_came_and_the_lab_was_restarted(conduct):
    """Another study began at the lab meanwhile, after somebody had joined the consortium."""

    def before(service, request):
        if request.action == "train" and request.fields["round"] == 2:
            service.keystore.check_serial(99)
            service._runs.clear()
        return request

    result = conduct(training={"rounds": 3}, before=before)
    assert result.error is None
    assert result.progress.dropped == []
    assert len(result.progress.settled) == 4


def test_a_study_cannot_begin_with_an_older_roster(conduct):
    def before(service, request):
        if request.action == "prepare":
            service.keystore.check_serial(99)
        return request

    assert "old-roster" in str(conduct(before=before).error)
