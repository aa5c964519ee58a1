"""Steps that a round says: within the plan, and never more than the site was asked for when it let the study in."""

import secrets

import numpy as np
import pytest

from fedsci.config.site import load_site
from fedsci.errors import PolicyRefused
from fedsci.site.pace import steps_in
from fedsci.site.service import SiteService
from fedsci.transport.messages import Request

LABS = ("lab-1", "lab-2", "lab-3")
NONE = {"mechanism": "none", "epsilon": None}


@pytest.fixture
def plan(make_plan):
    """Ten local steps at most: two epochs of 40 records in batches of 8."""

    def make(pace: str = "by_speed"):
        training = {"pace": pace, "local_epochs": 2, "batch_size": 8}
        masked = {"enabled": False}
        return make_plan(strategy="fednova", training=training, privacy=NONE, secure_aggregation=masked)

    return make


def asked(steps) -> Request:
    return Request(action="train", fields={} if steps is None else {"steps": steps})


@pytest.mark.parametrize("steps", [1, 7, 10])
def test_a_site_takes_the_steps_that_the_round_says(plan, steps):
    said = dict.fromkeys(LABS, 3) | {"lab-2": steps}
    assert steps_in(asked(said), plan(), "lab-2", records=40) == steps


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (None, "does not say how many steps"),
        ({"lab-1": 3}, "does not say how many steps each"),
        (dict.fromkeys((*LABS, "lab-4"), 3), "does not say how many steps each"),
        (3, "does not say how many steps"),
        (dict.fromkeys(LABS, 11), "this one 10 at most"),
        (dict.fromkeys(LABS, 0), "1 step or more"),
        (dict.fromkeys(LABS, 3) | {"lab-2": -1}, "1 step or more"),
        (dict.fromkeys(LABS, True), "1 step or more"),
        (dict.fromkeys(LABS, 2.0), "1 step or more"),
    ],
)
def test_steps_that_cannot_be_are_refused(plan, steps, words):
    with pytest.raises(PolicyRefused, match=words):
        steps_in(asked(steps), plan(), "lab-1", records=40)


def test_where_the_plan_says_all_of_them_the_round_says_nothing(plan):
    assert steps_in(asked(None), plan("even"), "lab-1", records=40) == 10
    with pytest.raises(PolicyRefused, match="the plan does not let it"):
        steps_in(asked(dict.fromkeys(LABS, 3)), plan("even"), "lab-1", records=40)


def test_a_site_stops_after_its_steps_and_divides_by_them(plan, make_lab, tmp_path):
    policy = {"strategies": ["fednova"], "mechanisms": ["none"]}
    service = SiteService(load_site(make_lab(policy=policy)), tmp_path / "state")
    run, study = secrets.token_hex(16), plan()
    records = {lab: [40, 20] for lab in LABS}
    model = np.zeros(3, np.float32)
    assert (
        service.handle(Request(action="prepare", fields={"run": run, "plan": study.to_bytes().decode()})).error is None
    )
    worker = service._active(run).worker

    def train(number: int, steps: int):
        fields = {"run": run, "round": number, "records": records, "steps": dict.fromkeys(LABS, steps)}
        return service.handle(Request(action="train", fields=fields, vector=model)).vector

    for number, steps in ((1, 4), (2, 10)):
        told = worker.learner.local_update(
            model, epochs=2, batch_size=8, learning_rate=0.5, momentum=0.0, rng=worker._shuffles(number),
            most_steps=steps,
        )  # fmt: skip
        assert np.array_equal(train(number, steps), told / np.float32(steps))
    whole = worker.learner.local_update(
        model, epochs=2, batch_size=8, learning_rate=0.5, momentum=0.0, rng=worker._shuffles(2)
    )
    assert np.array_equal(told, whole)
    assert (
        service.handle(Request(action="train", fields={"run": run, "round": 1, "records": records}, vector=model))
        .error["message"]
        .startswith("the round does not say how many steps")
    )
