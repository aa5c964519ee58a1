"""docs/officer.md: its figures are computed, its file is one, its commands exist."""

import math
import re
import shlex
from pathlib import Path

import pytest
import yaml

import fedsci
from fedsci.config.shipped import shipped
from fedsci.config.site import Site
from fedsci.config.study_file import load_study
from fedsci.privacy.budget import budget_policy, charge_cost
from fedsci.privacy.meaning import meaning_of, percent, right_guess
from fedsci.training.accountant import cost_of

TEXT = (Path(fedsci.__file__).parents[1] / "docs" / "officer.md").read_text(encoding="utf-8")
DIMENSION = 650


@pytest.fixture(scope="module")
def demo():
    def cost(epsilon):
        study = load_study(shipped("examples") / "digits" / "study.yaml", overrides=[f"privacy.epsilon={epsilon}"])
        return cost_of(study.plan, dimension=DIMENSION)

    return cost


def test_the_table_of_right_guesses_is_computed():
    rows = re.findall(r"^\| ([\d.]+) \| ([\d.]+) % \| ([\d.,]+) \|$", TEXT, flags=re.MULTILINE)
    assert len(rows) == 5
    for epsilon, right, factor in rows:
        exact = right_guess(epsilon=float(epsilon), delta=1e-5) * 100
        assert 0 <= float(right) - exact < 0.1
        assert float(factor.replace(",", "")) == pytest.approx(math.exp(float(epsilon)), rel=0.03)


def test_the_figures_in_the_text_are_computed(demo):
    cost = demo(2)
    meaning = meaning_of(epsilon=cost.epsilon(30), delta=1e-5, profile=lambda at: cost.delta_at(30, epsilon=at))
    assert f"right at most {percent(meaning.best_guess)}" in TEXT
    assert f"finds at most {percent(meaning.detected)}" in TEXT
    assert f"three rows cost about {demo(1).epsilon_of_rows(30, 3):.1f}" in TEXT
    budget = budget_policy(epsilon=8, delta=1e-5)
    assert "A budget of 8 fits four studies of epsilon 3" in TEXT
    assert 4 <= budget.rdp_capacity / charge_cost(demo(3).events(30), budget) < 5


def test_the_site_file_is_one():
    block = re.search(r"    datasets:\n(?:    .*\n)+", TEXT)
    assert block is not None
    Site.model_validate({"site": "lab"} | yaml.safe_load(block[0]))


def test_every_plan_and_statement_parses():
    import typer.main

    from fedsci.cli import privacy_plan, privacy_statement

    app = typer.Typer()
    privacy_plan.register(app)
    privacy_statement.register(app)
    group = typer.main.get_command(app)
    lines = re.findall(r"^    fedsci privacy (plan|statement) (.+)$", TEXT, flags=re.MULTILINE)
    assert len(lines) >= 5
    for name, rest in lines:
        group.commands[name].make_context(name, shlex.split(rest.partition("#")[0]))
