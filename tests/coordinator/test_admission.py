"""What a site says of itself is read with care: one that lies may be refused, and ends nobody else's study."""

from dataclasses import replace

import pytest

from fedsci.coordinator.admission import PRIVACY_FACTS, read_admission, read_privacy
from fedsci.errors import InputError

SAID = {
    "records": {"train": 10, "holdout": 5},
    "inputs": 3,
    "parameters": 4,
    "schema": "sha256:00",
    "exact_evaluation": False,
    "privacy": {"study": 1.5, "total": "inf", "rounds_charged": 3},
    "rounds_allowed": 3,
    "measurements_allowed": 0,
}


def test_what_a_site_says_is_read_with_nothing_added():
    said = read_admission("lab-1", SAID)
    assert (said.train, said.holdout, said.inputs, said.parameters) == (10, 5, 3, 4)
    assert said.privacy == dict.fromkeys(PRIVACY_FACTS) | SAID["privacy"]


@pytest.mark.parametrize("value", [-1, 10**400, -(10**400), float("nan"), float("inf"), True, "1", [1], {}])
def test_a_figure_that_is_no_number_of_at_least_zero_is_refused(value):
    with pytest.raises(ValueError, match="total"):
        read_privacy({"total": value})
    with pytest.raises(ValueError, match="privacy"):
        read_privacy(value if not isinstance(value, dict) else None)
    with pytest.raises(InputError, match="lab-1 answered with facts that make no sense"):
        read_admission("lab-1", SAID | {"privacy": {"total": value}})


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("value", [None, 0.5, -1, 10**400, "x", [], {}])
def test_whatever_a_site_says_only_a_refusal_comes_out(name, value):
    try:
        read_admission("lab-1", SAID | {name: value})
    except InputError:
        return
    assert name in ("schema", "exact_evaluation", "privacy")  # any text, anything but true is no, {} says nothing


@pytest.mark.parametrize(("kind", "most"), [("permit", 16 * 1024), ("record", 1 << 20)])
def test_what_a_site_signed_is_a_text_of_bounded_size(kind, most):
    assert read_admission("lab-1", SAID).statements == {}
    assert read_admission("lab-1", SAID | {kind: "{}"}).statements == {kind: "{}"}
    for content in (7, None, ["{}"], "x" * (most + 1)):
        with pytest.raises(InputError):
            read_admission("lab-1", SAID | {kind: content})


@pytest.mark.parametrize("name", ["key", "late_key", "second_key"])
def test_a_key_is_hexadecimal(name):
    for text in ("0", "g0", "00 ", "AA", 7, None, "00" * 2049):
        with pytest.raises(InputError):
            read_admission("lab-1", SAID | {name: text})


@pytest.mark.parametrize("name", ["schema", "advert", "permit", "record"])
def test_half_a_character_in_what_a_site_says_is_refused(name):
    with pytest.raises(InputError, match="lab-1"):
        read_admission("lab-1", SAID | {name: "\ud800"})


@pytest.mark.parametrize("changes", [{"inputs": 10**9}, {"parameters": 10**9}, {"schema": "sha256:00"}])
def test_a_shape_that_all_sites_make_up_is_refused_before_a_model_is_made(conduct, changes):
    def lie(service, request, reply):
        return replace(reply, fields=dict(reply.fields) | changes) if request.action == "prepare" else reply

    result = conduct(labs=2, masked=False, after=lie)
    assert isinstance(result.error, InputError)
    assert "differently than the coordinator" in result.error.message


@pytest.mark.parametrize("number", [1e31, -1e308, 1e308])
def test_metrics_that_could_overflow_the_studys_figures_are_not_counted(conduct, number):
    def lie(service, request, reply):
        if service.site.site != "lab-1" or request.action not in ("train", "evaluate"):
            return reply
        fields = dict(reply.fields)
        fields["metrics"] = [[number] * len(sums) for sums in fields["metrics"]]
        return replace(reply, fields=fields)

    result = conduct(labs=2, masked=False, after=lie)
    assert result.error is None
    records = result.progress.federated.total.records
    assert 0 < records < 20  # of the lab that does not lie
