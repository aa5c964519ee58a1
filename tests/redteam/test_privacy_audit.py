"""A correct build is never accused; a planted fault always is."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from fedsci.errors import InputError
from fedsci.redteam.audit_rows import _masks
from fedsci.redteam.privacy_audit import PrivacyAudit, audit_privacy
from tests.redteam import planted_faults as faults

SAMPLED = "training={rounds: 8, sample_rate: 0.2, momentum: 0.9}"
LOCAL = "privacy.mechanism=local"


def broken(audit: PrivacyAudit) -> set[str]:
    return {finding.key.removeprefix("audit-") for finding in audit.findings if finding.verdict == "broken"}


@pytest.mark.slow
def test_a_correct_build_is_not_accused_and_its_bound_stays_below_the_claim(small_digits):
    audit = audit_privacy(small_digits(), seed=1)
    assert audit.holds, broken(audit)
    assert audit.lower_bound is not None
    assert 1.0 < audit.lower_bound < audit.epsilon <= 5.0
    assert {finding.verdict for finding in audit.findings} == {"holds"}
    json.dumps(audit.to_json(), allow_nan=False)


def test_halved_noise_is_caught_by_canaries_and_in_the_noise_itself(small_digits, monkeypatch):
    faults.noise_halved(monkeypatch)
    audit = audit_privacy(small_digits(), seed=1)
    assert {"epsilon", "noise"} <= broken(audit)
    assert audit.lower_bound is not None
    assert audit.lower_bound > audit.epsilon


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "changes", "seen_in"),
    [
        (faults.noise_omitted, (), {"epsilon", "noise"}),
        (faults.noise_omitted_in_one_coordinate, ("training.rounds=8",), {"noise"}),
        (faults.clipping_omitted, (), {"clipping"}),
        (faults.share_for_too_many_sites, (), {"noise"}),
        (faults.samples_of_one_size, (SAMPLED,), {"sampling"}),
        (faults.shuffled_batches, (SAMPLED,), {"sampling"}),
        (faults.sampling_without_a_coin, (SAMPLED,), {"sampling", "epsilon"}),
        (faults.accountant_reset_between_rounds, (), {"noise", "epsilon"}),
        (faults.noise_for_one_round_only, (), {"noise", "epsilon"}),
        (faults.records_counted_twice, (), {"sampling", "epsilon"}),
        (faults.privacy_dropped_under_masks, (LOCAL,), {"pipeline", "noise"}),
        (faults.noise_dropped_under_masks, (), {"pipeline"}),
        (faults.one_seed_for_all, (), {"fresh-noise"}),
        (faults.one_seed_a_round, (), {"fresh-noise"}),
        (faults.batch_clipped_as_one, (), {"clipping"}),
        (faults.masks_left_out, (), {"masks"}),
        (faults.update_beside_the_upload, (), {"pipeline"}),
        (faults.uniform_noise, (), {"labs-noise"}),
        (faults.noise_twice_in_one_release, (), {"fresh-noise"}),
        (faults.one_lab_without_noise, (), {"labs-noise"}),
        (faults.first_record_always_in, (SAMPLED,), {"sampling"}),
        (faults.more_steps_than_are_charged, (LOCAL, "strategy=fedavg"), {"pipeline"}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_planted_fault_is_caught(small_digits, monkeypatch, fault, changes, seen_in):
    fault(monkeypatch)
    audit = audit_privacy(small_digits(*changes), seed=1)
    assert seen_in <= broken(audit), audit.to_json()


@pytest.mark.slow
@pytest.mark.parametrize("changes", [(), (SAMPLED,)], ids=["whole batch", "sampled"])
def test_a_correct_build_is_accused_once_in_twenty_at_most(small_digits, changes):
    accused = [broken(audit_privacy(small_digits(*changes), seed=seed)) for seed in range(20)]
    assert sum(bool(rows) for rows in accused) <= 1, accused


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        (LOCAL,),
        (LOCAL, "strategy=scaffold"),
        (LOCAL, "strategy=fedprox", "secure_aggregation={enabled: false}"),
        ("strategy=one_shot_ridge", "training={rounds: 1}"),
        ("privacy.unit=site", "strategy=fedavg"),
    ],
    ids=["local", "local steps with memory", "unmasked", "statistics", "whole labs"],
)
def test_every_mechanism_can_be_audited(small_digits, changes):
    audit = audit_privacy(small_digits(*changes, unit="site" if "privacy.unit=site" in changes else "record"), seed=2)
    assert audit.holds, audit.to_json()


@pytest.mark.slow
def test_noised_metrics_are_audited_and_exact_ones_in_their_place_are_seen(small_digits, monkeypatch):
    audit = audit_privacy(small_digits("evaluation.every=1", exact=False), seed=3)
    assert audit.holds, audit.to_json()
    assert "audit-metrics" in {finding.key for finding in audit.findings}
    faults.exact_metrics_for_noised_ones(monkeypatch)
    assert "pipeline" in broken(audit_privacy(small_digits("evaluation.every=1", exact=False), seed=3))


def test_a_study_without_privacy_has_nothing_to_audit(small_digits):
    study = small_digits("privacy.mechanism=none", "privacy.epsilon=null")
    with pytest.raises(InputError, match="promises no epsilon"):
        audit_privacy(study, seed=1)


@pytest.mark.slow
def test_too_few_canaries_are_no_pass_and_one_round_has_no_restart(small_study, monkeypatch):
    study = small_study(model={"name": "mlp", "hidden": [4]}, training={"rounds": 1, "sample_rate": 1.0})
    audit = audit_privacy(study, seed=1)
    rows = {finding.key: finding for finding in audit.findings}
    assert audit.verdict == "incomplete"
    assert rows["audit-epsilon"].verdict == "not measured"
    assert "canaries show at least epsilon" in rows["audit-epsilon"].result
    assert "Too few to tell" in rows["audit-epsilon"].result
    assert rows["audit-epsilon"].measured["visible_effect"] > 2
    assert "no restart" in rows["audit-fresh-noise"].attack
    assert "restart" not in rows["audit-fresh-noise"].claim


@pytest.mark.slow
def test_where_rounds_come_after_half_way_there_is_a_restart_and_enough_canaries_say_what_would_show(small_digits):
    rows = {finding.key: finding for finding in audit_privacy(small_digits(rounds=2), seed=1).findings}
    assert "a restart half-way" in rows["audit-fresh-noise"].attack
    assert rows["audit-epsilon"].verdict == "holds"
    assert 1 < rows["audit-epsilon"].measured["visible_effect"] < 2


def test_a_study_that_asks_for_masks_and_sees_none_is_broken_and_says_that():
    row = _masks(SimpleNamespace(masked=[]))
    assert row.verdict == "broken"
    assert "not one upload was masked" in row.result
    assert _masks(SimpleNamespace(masked=[np.zeros(12, np.uint8)])).verdict == "not measured"
