"""What strategies are listed, and a strategy of one's own from recipe to result."""

import sys

import pytest
import yaml

from fedsci.config.strategy import recipe_names
from fedsci.strategies import BUILDERS

RULES = """
from dataclasses import dataclass, field

from fedsci.strategies.base import MeanStrategy


@dataclass(frozen=True, kw_only=True)
class Still(MeanStrategy):
    share: float
    name: str = field(default="ourlab.rules", init=False)

    def contribute(self, work):
        return work.update(work.received) * self.share


def build(*, optimiser, share=0.5):
    return Still(optimiser=optimiser, share=share)
"""


def test_every_recipe_is_listed_with_what_it_costs(fedsci, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    out = fedsci("strategies").out
    lines = {cells[1].strip(): cells for line in out.splitlines() if len(cells := line.split("│")) == 9}
    assert set(recipe_names()) <= set(lines)
    costs = {name: [cell.strip() for cell in lines[name][2:7]] for name in recipe_names()}
    assert costs["fedavg"] == ["sum", "30", "2", "1x / 1x", "0x / 0x"]
    assert costs["fedadam"] == ["sum", "30", "2", "1x / 1x", "0x / 2x"]
    assert costs["scaffold"] == ["sum", "30", "2", "2x / 2x", "1x / 1x"]
    assert costs["fedbuff"][2:] == ["3", "1x / 1x", "1x / 0x"]
    assert costs["krum"] == ["each", "60", "1", "1x / 1x", "0x / 0x"]
    assert costs["krum_groups"] == ["sum", "60", "2", "1x / 5x", "0x / 0x"]
    assert costs["one_shot_ridge"] == ["sum", "only 1", "2", "1x / sums", "0x / 0x"]


@pytest.mark.parametrize("name", ["scaffold", "krum_groups"])
def test_a_recipe_is_shown_with_its_comments(fedsci, name):
    out = fedsci("strategy", "show", name).out
    assert out.startswith("# ")
    assert yaml.safe_load(out)["name"] in BUILDERS


@pytest.mark.slow
def test_a_strategy_of_ones_own_runs_where_the_labs_name_it(fedsci, study, tmp_path, monkeypatch):
    (tmp_path / "lib" / "ourlab").mkdir(parents=True)
    (tmp_path / "lib" / "ourlab" / "__init__.py").touch()
    (tmp_path / "lib" / "ourlab" / "rules.py").write_text(RULES)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    (study.folder / "ours.yaml").write_text("name: ourlab.rules\nsees: sum\noptions: {share: 0.25}\n")
    try:
        refused = fedsci("run", study.path, "--set", "strategy=ours.yaml")
        assert refused.code == 4
        assert "the strategy's module 'ourlab.rules' is not listed" in refused.err
        for values in study.sites.values():
            values["policy"]["strategies"].append("ourlab.rules")
        study.write()
        assert fedsci("run", study.path, "--set", "strategy=ours.yaml").code == 0
    finally:
        for name in ("ourlab", "ourlab.rules"):
            sys.modules.pop(name, None)
