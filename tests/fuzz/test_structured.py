"""JSON of any shape where JSON is read: what hypothesis makes has little to do with what is expected, and shrinks."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsci.transport.messages import Reply, Request
from tests.fuzz.engine import hold
from tests.fuzz.targets import TARGETS
from tests.fuzz.world import recorded

_KEYS = st.text(st.characters(blacklist_categories=()), max_size=6)
#: Keys that readers look for, so that what is under them is looked at, too.
_KNOWN = st.sampled_from(
    [
        *("study", "features", "sites", "plan_version", "strategy", "feature_order", "version", "signers", "nonce"),
        *("records", "train", "holdout", "inputs", "parameters", "privacy", "schema", "rounds_allowed", "advert"),
        *("code", "message", "exit_code", "size", "payload", "payloadType", "signatures", "keyid", "sig"),
        *("events", "held_out", "neighbouring", "kind", "count", "point", "metrics", "delta", "action", "fields"),
    ]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _KEYS | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KNOWN | _KEYS, inner, max_size=6),
    max_leaves=12,
)
_READ_JSON = (
    *("plan", "permit", "decision-body", "decision", "decision-request", "statement", "log-entry", "merkle-proof"),
    *(
        "admission",
        "site-error",
        "privacy-events",
        "record",
        "codec-request",
        "codec-reply",
        "enrolment-answer",
        "yaml",
    ),
)


@pytest.mark.parametrize("name", _READ_JSON)
@settings(deadline=None, derandomize=True, max_examples=10, suppress_health_check=list(HealthCheck))
@given(_VALUES)
def test_json_of_any_shape_is_read_or_refused(name, values):
    hold(TARGETS[name], json.dumps(values).encode())


@pytest.mark.slow
@pytest.mark.parametrize("cohort", [None, "lab-1", [["lab-1"]], ["lab-1"] * 3, ["lab-2", "lab-3"], ["lab-1", {}]])
def test_a_round_that_nobody_can_mask_for_costs_nothing_and_the_right_one_is_still_answered(cohort):
    world = recorded("masked")
    service, due = world.restore("train-0"), json.loads(json.dumps(world.moments["train-0"].body))

    def ask(**changes: object) -> Reply:
        vector = _vector(due["vector"])
        return service.handle(Request(action="train", fields=due["fields"] | changes, vector=vector))

    before = [entry.hash for entry in service.ledger.entries()]
    refused = ask(cohort=cohort)
    assert refused.error is not None
    assert refused.error["code"] == "protocol"
    assert [entry.hash for entry in service.ledger.entries()] == before
    assert ask().error is None


def _vector(said):
    from base64 import b64decode

    import numpy as np

    return np.frombuffer(b64decode(said["data"]), said["dtype"]).reshape(said["shape"])
