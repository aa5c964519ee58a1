"""A coordinator whose process ends goes on from the last applied round; what was under way is lost, no more."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# every lab's gradient is over all its records: the same in every round, so that rounds can be counted by the model
FULL = {"learning_rate": 0.5, "sample_rate": 1.0}
BATCHES = FULL | {"rounds": 34}
#: exchanges of a masked study: prepare, share, then a pair for every slot
FIRST_ROUND, ROUND = 2, 2


def exchange(number: int, step: str = "train") -> int:
    """The number of a slot's exchange in a study that is not disturbed before it."""
    return FIRST_ROUND + ROUND * (number - 1) + (step == "unmask")


def check_like(result, reference) -> None:
    """The model is the one that an undisturbed study has after as many rounds as were applied."""
    assert result.error is None
    assert result.progress.rounds_completed == reference.progress.rounds_completed
    np.testing.assert_allclose(result.progress.model, reference.progress.model, atol=1e-4)
    assert result.progress.federated.pooled() == pytest.approx(reference.progress.federated.pooled(), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["train", "unmask"])
@pytest.mark.parametrize("number", [1, 27])
def test_a_round_under_way_is_given_up_and_every_other_one_counts(conduct, number, step, when):
    """The next batch is set up on the messages of round 27."""
    reference = conduct(masked=False, strategy="dp_fedsgd", training=BATCHES | {"rounds": 33})
    result = conduct(strategy="dp_fedsgd", training=BATCHES, dies=[(exchange(number, step), when)])
    check_like(result, reference)
    assert result.progress.abandoned == [number]
    assert [line.number for line in result.rounds] == list(range(1, 35))
    assert [line.number for line in result.rounds if line.abandoned] == [number]
    assert result.progress.settled == {"lab-1", "lab-2", "lab-3", "lab-4"}
    assert result.progress.dropped == []


@pytest.mark.slow
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("when", ["before", "after"])
def test_nothing_is_lost_where_no_round_was_under_way(conduct, masked, when):
    training = FULL | {"rounds": 3}
    reference = conduct(masked=False, strategy="dp_fedsgd", training=training)
    last = exchange(5) + (when == "after") if masked else 5  # finish; envelopes that were lost are asked for again
    cuts = [(1, when), (last, when)] if masked else [(last, when)]
    result = conduct(masked=masked, strategy="dp_fedsgd", training=training, dies=cuts)
    check_like(result, reference)
    assert result.progress.abandoned == []
    assert result.progress.settled == reference.progress.settled


@pytest.mark.slow
def test_an_answer_that_came_back_is_kept_and_one_that_did_not_is_not_asked_for_again(conduct):
    options = {
        "strategy": "dp_fedsgd",
        "training": FULL | {"rounds": 3},
        "evaluation": {"baselines": ["local"]},
        "policy": {"exact_evaluation": True, "show_own_metrics": True},
    }
    calm = conduct(**options)
    assert calm.progress.alone["local"].pooled() is not None
    end = conduct(**options, dies=[(exchange(6), "before")])
    for kept in (end.progress.federated, end.progress.alone["local"]):
        assert kept.of("lab-1") is not None
    assert end.progress.federated.pooled() == pytest.approx(calm.progress.federated.pooled(), abs=1e-9)
    assert end.exchanges == calm.exchanges
    gone = conduct(**options, dies=[(exchange(5, "unmask"), "after")])
    assert gone.progress.federated.pooled() == pytest.approx(calm.progress.federated.pooled(), abs=1e-9)
    assert gone.progress.alone == {}
    lost = conduct(**options, dies=[(exchange(4, "unmask"), "after")])
    assert lost.error is None
    assert (lost.exchanges["evaluate"], lost.exchanges["alone"]) == (1, 1)
    assert lost.progress.rounds_completed == 3


@pytest.mark.slow
@pytest.mark.parametrize("masked", [True, False])
def test_what_personal_models_reach_is_kept_like_every_answer(conduct, masked):
    options = {
        "masked": masked,
        "strategy": "dp_fedsgd",
        "training": FULL | {"rounds": 3},
        "personalise": "fine_tune",
        "policy": {"exact_evaluation": True, "show_own_metrics": True},
    }
    calm = conduct(**options)
    assert set(calm.progress.alone) == {"personalised"}  # without any baseline
    finish = exchange(6) if masked else 6
    cut = conduct(**options, dies=[(finish, "before")])
    assert cut.exchanges == calm.exchanges
    for result in (calm, cut):
        personal, shared = result.progress.alone["personalised"], result.progress.federated
        assert personal.mean_site() == pytest.approx(calm.progress.alone["personalised"].mean_site(), abs=1e-9)
        assert personal.of("lab-2")["log_loss"] < shared.of("lab-2")["log_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", [{"kind": "sgd", "momentum": 0.9}, {"kind": "adam", "learning_rate": 0.1}])
def test_what_the_server_optimiser_remembers_is_kept(conduct, tmp_path, optimiser):
    (tmp_path / "recipe.yaml").write_text(json.dumps({"name": "dp_fedsgd", "server_optimiser": optimiser}))
    training = FULL | {"rounds": 6}
    calm = conduct(masked=False, strategy="recipe.yaml", training=training | {"rounds": 4})
    cut = conduct(strategy="recipe.yaml", training=training, dies=[(exchange(3), "before"), (exchange(4), "after")])
    assert cut.progress.abandoned == [3, 5]
    check_like(cut, calm)


@pytest.mark.slow
def test_charges_of_a_lab_count_the_round_that_was_given_up(conduct, make_plan):
    result = conduct(
        strategy="dp_fedsgd",
        training=FULL | {"rounds": 6},
        privacy={"mechanism": "distributed", "epsilon": 3.0, "colluding_sites": 1},
        policy={"mechanisms": ["distributed"], "exact_evaluation": True},
        dies=[(exchange(3, "unmask"), "before"), (exchange(4, "unmask"), "before")],
    )
    assert result.error is None
    assert result.progress.abandoned == [3, 5]
    # round 3 was computed at every lab, round 5 was not asked for yet
    assert {said["rounds_charged"] for said in result.progress.privacy.values()} == {5}


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(cuts=st.sets(st.tuples(st.integers(1, 72), st.sampled_from(["before", "after"])), max_size=6))
def test_however_often_the_process_ends_every_round_counts_once(conduct, cuts):
    result = conduct(strategy="dp_fedsgd", training=BATCHES, dies=cuts)
    assert result.error is None
    progress = result.progress
    assert progress.rounds_completed + len(progress.abandoned) == 34
    assert sorted({line.number for line in result.rounds}) == list(range(1, 35))
    reference = conduct(masked=False, strategy="dp_fedsgd", training=BATCHES | {"rounds": progress.rounds_completed})
    np.testing.assert_allclose(progress.model, reference.progress.model, atol=1e-4)
