"""Strategies with more than a mean, through whole masked studies."""

from dataclasses import replace

import numpy as np
import pytest

from fedsci.config.study_shape import shape_of
from fedsci.data.table import concatenate
from fedsci.errors import InputError
from fedsci.site.memory import StrategyMemory
from fedsci.strategies import BUILDERS
from fedsci.strategies.feature_statistics import read_statistics
from fedsci.strategies.one_exchange import Records

POLICY = {"strategies": sorted(BUILDERS)}


class Dead(RuntimeError):
    """The lab's process is gone."""


def losing(lab: str, round_number: int, seen=lambda service, request: None):
    """The lab computes its contribution to a round, and the answer does not arrive."""

    def after(service, request, reply):
        seen(service, request)
        if service.site.site == lab and request.action == "train" and request.fields["round"] == round_number:
            raise Dead
        return reply

    return {"after": after}


def recipe(tmp_path, text: str) -> str:
    (tmp_path / "mine.yaml").write_text(text)
    return "mine.yaml"


@pytest.mark.parametrize("strategy", ["fedprox", "fednova", "scaffold", "fedadam", "fedyogi", "fedadagrad", "fedavgm"])
def test_a_masked_study_is_the_one_in_the_clear(conduct, strategy):
    training = {"rounds": 4, "batch_size": 4}
    plain = conduct(strategy=strategy, policy=POLICY, masked=False, training=training)
    masked = conduct(strategy=strategy, policy=POLICY, training=training)
    assert masked.error is None
    assert plain.error is None
    assert masked.progress.model == pytest.approx(plain.progress.model, abs=1e-4)


def test_a_masked_scaffold_study_forgets_a_lost_upload(conduct):
    controls: dict[int, dict[str, np.ndarray]] = {}
    records: dict[str, int] = {}

    def look(service, request):
        if request.action == "train":
            records.update({site: train for site, (train, _) in request.fields["records"].items()})
            memory = StrategyMemory(service.state / "runs" / request.fields["run"])
            controls.setdefault(request.fields["round"], {})[service.site.site] = memory["control"]

    training = {"rounds": 5, "batch_size": 4}
    result = conduct(strategy="scaffold", policy=POLICY, training=training, **losing("lab-2", 3, seen=look))
    assert result.error is None
    assert result.progress.rounds_completed == 5
    assert result.progress.dropped == [("lab-2", 3)]
    assert sorted(controls[5]) == sorted(records) == ["lab-1", "lab-2", "lab-3", "lab-4"]
    weights = [records[lab] for lab in controls[5]]
    kept = result.progress.state.memory["control"]
    assert kept == pytest.approx(np.average(list(controls[5].values()), axis=0, weights=weights), abs=1e-4)
    assert any(np.abs(control - kept).max() > 1e-3 for control in controls[5].values())


@pytest.mark.parametrize("rule", ["coordinate_median", "trimmed_mean"])
def test_over_groups_a_masked_study_is_the_one_in_the_clear(conduct, tmp_path, rule):
    text = f"name: {rule}\nsees: sum\noptions: {{groups: 3, group_seed: 1}}\n"
    shape = {"strategy": recipe(tmp_path, text), "policy": POLICY, "labs": 6, "training": {"rounds": 3}}
    result = conduct(**shape, secure_aggregation={"enabled": True, "min_survivors": 6})
    assert result.error is None
    assert result.progress.rounds_completed == 3
    plain = conduct(**shape, secure_aggregation={"enabled": False, "min_survivors": 6})
    assert result.progress.model == pytest.approx(plain.progress.model, abs=1e-4)


def test_a_group_that_loses_a_member_is_not_opened(conduct, tmp_path):
    text = "name: coordinate_median\nsees: sum\noptions: {groups: 3}\n"
    masked = {"enabled": True, "min_survivors": 6}
    result = conduct(
        strategy=recipe(tmp_path, text), policy=POLICY, labs=6, secure_aggregation=masked, **losing("lab-2", 1)
    )
    assert result.error is not None
    assert "only 5 of 6 sites finished" in result.error.message
    assert "unmask" not in result.exchanges


def test_groups_that_could_be_one_lab_never_start(conduct, tmp_path):
    text = "name: coordinate_median\nsees: sum\noptions: {groups: 3}\n"
    with pytest.raises(InputError, match="one site's update, or none"):
        conduct(strategy=recipe(tmp_path, text), policy=POLICY, labs=6, secure_aggregation={"min_survivors": 5})


@pytest.mark.parametrize("rule", ["coordinate_median", "trimmed_mean"])
def test_rules_that_see_each_run_where_every_lab_shows_its_update(conduct, rule):
    result = conduct(strategy=rule, policy=POLICY, masked=False, training={"rounds": 3})
    assert result.error is None
    assert result.progress.rounds_completed == 3


ONCE = {"policy": POLICY, "training": {"rounds": 1}}
LABS = 4


class TestOneExchange:
    """Sums of statistics, through whole studies."""

    def seen(self, conduct, **changes):
        """What a study led to, and every lab's training records as its own service encoded them."""
        tables = {}

        def look(service, request, reply):
            if request.action == "train":
                active = service._active(request.fields["run"])
                tables[service.site.site] = active.worker.learner.table
            return reply

        result = conduct(labs=LABS, after=look, **ONCE | changes)
        assert result.error is None
        return result, concatenate([tables[site] for site in sorted(tables)])

    def statistics(self, plan, table):
        missing = np.zeros((table.rows, 2), np.bool_)
        return plan.strategy.statistics(Records(features=table.features, target=table.target, missing=missing))

    @pytest.mark.parametrize("masked", [False, True])
    def test_the_sums_are_those_of_all_records_together(self, conduct, make_plan, masked):
        result, table = self.seen(conduct, strategy="feature_statistics", masked=masked)
        plan = make_plan(strategy="feature_statistics", sites=LABS)
        mean = self.statistics(plan, table).mean(axis=0)
        # a lab's mean is rounded to float32; under masks also to the grid, of step 2^-24 or so
        assert result.progress.model == pytest.approx(mean, abs=1e-6 if masked else 1e-7)
        found = read_statistics(result.progress.model, records=table.rows, study=shape_of(plan.study))
        assert found.numeric["a"].mean[0] == pytest.approx((table.features[:, 0].mean() + 1) / 2, abs=1e-5)
        assert found.target == pytest.approx(np.bincount(table.target), abs=1e-3)

    def test_it_makes_no_model_and_measures_nothing(self, conduct):
        result, _ = self.seen(conduct, strategy="feature_statistics", evaluation={"baselines": ["local"]})
        assert result.progress.federated is None
        assert result.progress.alone == {}
        assert set(result.exchanges) == {"prepare", "share", "train", "unmask", "finish"}
        assert result.exchanges["train"] == 1

    def test_the_ridge_solution_is_that_of_all_records_together(self, conduct, make_plan):
        result, table = self.seen(conduct, strategy="one_shot_ridge")
        plan = make_plan(strategy="one_shot_ridge", sites=LABS)
        strategy = plan.strategy
        mean = self.statistics(plan, table).mean(axis=0).astype(np.float32)
        together = strategy.finish(strategy.start(np.zeros(3, np.float32)), mean, noise=0.0)
        assert result.progress.model == pytest.approx(together, rel=1e-3)
        assert result.progress.federated.pooled()["accuracy"] > 0.8

    def test_a_lab_that_is_lost_is_missing_from_the_mean(self, conduct):
        result = conduct(labs=4, **ONCE, strategy="feature_statistics", **losing("lab-2", 1))
        assert result.error is None
        assert result.progress.dropped == [("lab-2", 1)]
        assert np.isfinite(result.progress.model).all()

    @pytest.mark.parametrize("wanted", ["exact", "noised"])
    def test_a_lab_measures_no_statistics(self, conduct, wanted):
        def ask(service, request):
            if request.action == "train":
                return replace(request, fields={**request.fields, "evaluate": wanted})
            return request

        result = conduct(labs=4, **ONCE, strategy="feature_statistics", before=ask)
        assert result.error is not None
        assert "makes no model" in result.error.message
