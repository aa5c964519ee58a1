"""Strategies with more than a mean, through whole masked studies."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedsci.config.study_shape import shape_of
from fedsci.data.table import concatenate
from fedsci.errors import InputError
from fedsci.site.memory import OWN_MODEL, StrategyMemory
from fedsci.site.upload import ActiveRun
from fedsci.strategies import BUILDERS
from fedsci.strategies.feature_statistics import read_statistics
from fedsci.strategies.one_exchange import Records
from fedsci.vectors.layout import Layout, flatten

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


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fedprox", "fednova", "scaffold", "fedadam", "fedyogi", "fedadagrad", "fedavgm"])
def test_a_masked_study_is_the_one_in_the_clear(conduct, strategy):
    training = {"rounds": 4, "batch_size": 4}
    plain = conduct(strategy=strategy, policy=POLICY, masked=False, training=training)
    masked = conduct(strategy=strategy, policy=POLICY, training=training)
    assert masked.error is None
    assert plain.error is None
    assert masked.progress.model == pytest.approx(plain.progress.model, abs=1e-4)


@pytest.mark.slow
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


@pytest.mark.slow
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


class TestFedBN:
    """Labs whose normalisation layers stay with them, through whole studies."""

    OPTIONS: ClassVar = {
        "model": {"name": "mlp", "hidden": [4], "normalisation": "batch"},
        "policy": POLICY | {"models": ["mlp"]},
        "training": {"rounds": 3, "batch_size": 4},
    }

    def watched(self, conduct, monkeypatch, **changes):
        """What a study led to, what each lab measured, round by round, and each lab's layers, as they were kept."""
        measured, kept = {}, {}
        measure = ActiveRun.measure

        def see(active, model, **options):
            measured.setdefault(active.worker.name, []).append(model)
            return measure(active, model, **options)

        def keep(service, request, reply):
            if request.action == "train":
                memory = StrategyMemory(service.state / "runs" / request.fields["run"])
                kept.setdefault(service.site.site, []).append(memory["normalisation"])
            return reply

        with monkeypatch.context() as patch:
            patch.setattr(ActiveRun, "measure", see)
            return conduct(strategy="fedbn", **self.OPTIONS | {"after": keep} | changes), measured, kept

    def test_a_masked_study_is_the_one_in_the_clear(self, conduct):
        plain = conduct(strategy="fedbn", masked=False, **self.OPTIONS)
        masked = conduct(strategy="fedbn", **self.OPTIONS)
        assert plain.error is None
        assert masked.error is None
        assert masked.progress.model == pytest.approx(plain.progress.model, abs=1e-4)
        assert masked.progress.model[-16:].tolist() == [1.0] * 4 + [0.0] * 8 + [1.0] * 4, "as all labs began"
        assert masked.progress.federated.pooled() == pytest.approx(plain.progress.federated.pooled(), abs=1e-3)
        assert {reply.vector.size for reply in plain.said("train").values()} == {masked.progress.model.size - 16}

    @pytest.mark.slow
    @pytest.mark.parametrize("strategy", ["fedavg", "fedprox"])
    def test_running_statistics_are_averaged_by_others(self, conduct, strategy):
        plain = conduct(strategy=strategy, masked=False, **self.OPTIONS)
        masked = conduct(strategy=strategy, **self.OPTIONS)
        assert masked.progress.model == pytest.approx(plain.progress.model, abs=1e-4)
        assert (masked.progress.model[-4:] > 0).all()
        assert np.abs(masked.progress.model[-8:-4]).max() > 1e-3

    @pytest.mark.slow
    @pytest.mark.parametrize("masked", [True, False])
    def test_a_lab_measures_the_shared_model_with_its_own_layers(self, conduct, monkeypatch, masked):
        result, measured, kept = self.watched(conduct, monkeypatch, masked=masked)
        assert result.error is None
        for lab, models in measured.items():
            # after rounds 1 and 2 on the way, after round 3 at the end
            assert [model[-16:].tolist() for model in models] == [each.tolist() for each in kept[lab]]
            assert models[-1][:-16].tolist() == result.progress.model[:-16].tolist()
        assert len({models[-1].tobytes() for models in measured.values()}) == 4

    @pytest.mark.slow
    def test_a_restart_loses_no_layers(self, conduct, monkeypatch):
        _, calm, _ = self.watched(conduct, monkeypatch)

        def restart(service, request):
            service._runs.clear()  # as another process that finds what is on disk
            return request

        result, measured, _ = self.watched(conduct, monkeypatch, before=restart)
        assert result.error is None
        for lab, models in measured.items():
            assert [model.tobytes() for model in models] == [model.tobytes() for model in calm[lab]]

    def test_a_lab_that_never_finished_a_round_uses_the_shared_layers(self, conduct, monkeypatch, tmp_path):
        def die(service, request):
            if service.site.site == "lab-2" and request.action == "train":
                raise Dead
            return request

        shape = {"secure_aggregation": {"enabled": False, "min_survivors": 3}, "training": {"rounds": 1}}
        result, measured, _ = self.watched(conduct, monkeypatch, before=die, after=lambda *_: _[-1], **shape)
        assert result.error is None
        assert measured["lab-2"][-1].tolist() == result.progress.model.tolist()
        assert not list(tmp_path.glob(f"*/lab-2/runs/*/{OWN_MODEL}"))

    def test_a_lab_keeps_the_model_that_it_uses(self, conduct, monkeypatch, tmp_path):
        result, measured, _ = self.watched(conduct, monkeypatch)
        assert result.error is None
        for lab, models in measured.items():
            (file,) = tmp_path.glob(f"*/{lab}/runs/*/{OWN_MODEL}")
            assert file.stat().st_mode & 0o777 == 0o600
            about = json.loads(file.with_suffix(".json").read_text())
            layout = Layout(entries=tuple((each["name"], tuple(each["shape"])) for each in about["tensors"]))
            assert flatten(load_file(file), layout).tobytes() == models[-1].tobytes()
            assert about["strategy"] == "fedbn"
            assert not file.with_name("memory.safetensors").exists()

    def test_a_lab_adapts_the_model_that_it_uses(self, conduct, monkeypatch):
        started = []

        def look(plan, name, table, shared, *, device):
            started.append((name, shared))
            return shared

        monkeypatch.setattr("fedsci.site.own_models.personal_model", look)
        result, measured, _ = self.watched(conduct, monkeypatch, personalise="fine_tune")
        assert result.error is None
        assert len(started) == 4
        for lab, model in started:
            assert model.tobytes() == measured[lab][-1].tobytes()

    def test_what_is_sent_does_not_depend_on_the_layers_kept(self, make_plan):
        """With the local training fixed, whatever a lab keeps, the same bytes leave."""
        plan = make_plan(strategy="fedbn", model=self.OPTIONS["model"], privacy={"mechanism": "none"})
        strategy, size = plan.strategy, 33
        rng, update = np.random.default_rng(1), np.ones(size, np.float32)
        work = SimpleNamespace(received=np.zeros(size, np.float32), size=size, update=lambda model: update)
        sent = set()
        for _ in range(3):
            work.memory = {"normalisation": rng.normal(size=16).astype(np.float32)}
            sent.add(strategy.contribute(work).tobytes())
        assert sent == {update[: size - 16].tobytes()}
