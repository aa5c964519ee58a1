import json
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.errors import InputError
from fedsci.privacy.events import (
    Composition,
    GaussianEvent,
    LaplaceEvent,
    Plan,
    PoissonGaussianEvent,
    from_json,
    gaussian_precision,
    one_after_another,
    to_json,
)

noise = st.floats(0, 1e6)
events = st.one_of(
    st.builds(GaussianEvent, noise_multiplier=noise),
    st.builds(LaplaceEvent, noise_multiplier=noise),
    st.builds(PoissonGaussianEvent, noise_multiplier=noise, sample_rate=st.floats(0, 1, exclude_min=True)),
)
plans = st.builds(
    Plan,
    events=st.lists(st.builds(Composition, event=events, count=st.integers(1, 10**9)), max_size=4).map(tuple),
    held_out=st.lists(st.builds(Composition, event=events, count=st.integers(1, 10**9)), max_size=2).map(tuple),
)

GOOD = (
    '{"events":[{"count":3,"kind":"poisson_gaussian","noise_multiplier":1.5,"sample_rate":0.1}],'
    '"held_out":[{"count":1,"kind":"gaussian","noise_multiplier":7.0}],'
    '"neighbouring":"add_or_remove_one_record","version":2}'
)
FIRST_VERSION = (
    '{"events":[{"count":3,"kind":"poisson_gaussian","noise_multiplier":1.5,"sample_rate":0.1}],'
    '"neighbouring":"add_or_remove_one_record","version":1}'
)
TRAINING = (Composition(event=PoissonGaussianEvent(sample_rate=0.1, noise_multiplier=1.5), count=3),)
HELD_OUT = (Composition(event=GaussianEvent(noise_multiplier=7.0), count=1),)


@given(plans)
def test_a_plan_survives_json(plan):
    assert from_json(to_json(plan)) == plan


def test_the_text_is_fixed():
    assert to_json(Plan(events=TRAINING, held_out=HELD_OUT)) == GOOD
    assert Plan(events=()).neighbouring.value == "add_or_remove_one_record"


def test_charges_written_before_metrics_were_noised_are_still_read():
    assert from_json(FIRST_VERSION) == Plan(events=TRAINING)
    assert to_json(from_json(FIRST_VERSION)) == FIRST_VERSION.replace('"neigh', '"held_out":[],"neigh').replace(
        ":1}", ":2}"
    )


def _changed(**changes):
    document = json.loads(GOOD)
    for key, value in changes.items():
        target = document if key in document else document["events"][0]
        target[key] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        _changed(version=3),
        _changed(version=0),
        _changed(version=1),
        GOOD.replace('"version":2', '"version":2.0'),
        FIRST_VERSION.replace('"version":1', '"version":2'),
        _changed(held_out={}),
        _changed(held_out=None),
        _changed(held_out=[3]),
        GOOD.replace('"kind":"gaussian"', '"kind":"zcdp"'),
        GOOD.replace('"noise_multiplier":7.0', '"noise_multiplier":-7.0'),
        _changed(version=True),
        _changed(version="1"),
        _changed(neighbouring="replace_one_record"),
        _changed(events={}),
        _changed(events=[3]),
        _changed(kind="zcdp"),
        _changed(kind=None),
        _changed(kind=["gaussian"]),
        _changed(kind="gaussian"),
        _changed(extra=1),
        _changed(count=0),
        _changed(count=1.0),
        _changed(count=True),
        _changed(noise_multiplier="1"),
        _changed(noise_multiplier=True),
        _changed(noise_multiplier=-1),
        _changed(noise_multiplier=10**400),
        _changed(noise_multiplier=float("nan")),
        _changed(noise_multiplier=float("inf")),
        _changed(sample_rate=0),
        _changed(sample_rate=1.5),
        GOOD.replace('"count":3', '"count":3,"count":1'),
        GOOD.replace('"count":3,', ""),
        GOOD + "x",
        "[" * 100_000,
    ],
)
def test_what_is_not_understood_is_refused(text):
    with pytest.raises(InputError):
        from_json(text)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [GaussianEvent, LaplaceEvent])
def test_impossible_noise_is_refused(kind, value):
    with pytest.raises(InputError):
        kind(noise_multiplier=value)


def test_an_event_without_a_price_is_refused():
    @dataclass(frozen=True)
    class Shuffled:
        noise_multiplier: float

    with pytest.raises(InputError, match="Shuffled"):
        Composition(event=Shuffled(1.0), count=1)
    with pytest.raises(InputError):
        replace(Composition(event=GaussianEvent(noise_multiplier=1), count=1), count=0)


def gaussians(*parts):
    return tuple(Composition(event=GaussianEvent(noise_multiplier=noise), count=count) for noise, count in parts)


def test_studies_of_plain_gaussians_cost_the_side_with_less_noise():
    train, held_out = gaussians((4.0, 30)), gaussians((0.8, 1))  # 30 / 16 = 1.875 against 1 / 0.64 = 1.5625
    study = Plan(events=train, held_out=held_out)
    assert one_after_another([study, study, study]) == Plan(events=train * 3)
    turned = Plan(events=held_out, held_out=train)
    assert one_after_another([turned, study]) == Plan(events=train * 2)
    assert one_after_another([Plan(events=train[:0], held_out=held_out), study]) == Plan(events=held_out + train)


def test_studies_that_sample_cost_both_sides():
    study = Plan(events=TRAINING, held_out=HELD_OUT)
    assert one_after_another([study, study]) == Plan(events=(TRAINING + HELD_OUT) * 2)


def test_one_study_costs_what_it_costs_and_none_nothing():
    study = Plan(events=TRAINING, held_out=HELD_OUT)
    assert one_after_another([study]) == study
    assert one_after_another([]) == Plan(events=())


def test_no_noise_is_never_dominated():
    assert gaussian_precision(gaussians((0.0, 1))) == float("inf")
    study = Plan(events=gaussians((4.0, 30)), held_out=gaussians((0.0, 1)))
    assert one_after_another([study, study]) == Plan(events=study.held_out * 2)
    assert gaussian_precision(TRAINING) is None
    assert gaussian_precision(()) == 0
