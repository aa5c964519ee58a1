"""Everything that ships as YAML is parsed; a strategy has one name everywhere."""

import importlib
from functools import partial
from pathlib import Path

import pytest
import yaml

import fedsci
import fedsci.errors
from fedsci.config.loading import read_document
from fedsci.config.shipped import shipped
from fedsci.config.site import load_site
from fedsci.config.strategy import load_recipe, recipe_names
from fedsci.config.study_file import load_study
from fedsci.config.weather import load_weather
from fedsci.site.gate import check_policy
from fedsci.strategies import BUILDERS, ServerOptimiser, build_strategy
from fedsci.training.schema import schema_of

ROOT = Path(fedsci.__file__).parent.parent
RECIPES = sorted(shipped("strategies").glob("*.yaml"))
SITES = sorted(shipped("sites").glob("*.yaml"))
EXAMPLES = sorted(p for p in shipped("examples").rglob("*.y*ml") if "runs" not in p.parts)


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_is_something_to_test():
    assert RECIPES
    assert len(SITES) == 17
    assert EXAMPLES


@pytest.mark.parametrize("path", RECIPES, ids=short)
def test_a_recipe_is_named_after_its_module_and_its_file(path):
    recipe = load_recipe(path.stem, folder=path.parent, where="test")
    assert path.stem in (recipe.name, f"{recipe.name}_groups")
    module = importlib.import_module(f"fedsci.strategies.{recipe.name}")
    assert BUILDERS[recipe.name] is module.build
    assert recipe.paper
    assert recipe.when
    strategy = build_strategy(recipe.name, optimiser=recipe.server_optimiser.optimiser(), options=recipe.options)
    assert strategy.sees == recipe.sees
    assert strategy.optimiser.kind == recipe.server_optimiser.kind


@pytest.mark.parametrize("path", RECIPES, ids=short)
def test_a_recipe_runs_in_the_example_of_seventeen_labs(path):
    recipe = load_recipe(path.stem, folder=path.parent, where="test")
    gradients = recipe.name == "dp_fedsgd"
    settings = [f"strategy={path.stem}"] if gradients else [f"strategy={path.stem}", "privacy.mechanism=none"]
    settings += [f"secure_aggregation={{enabled: {'false' if recipe.sees == 'each' else 'true'}, min_survivors: 17}}"]
    settings += [f"training.rounds={recipe.training.rounds}"]  # the example's own are not for strategies of one round
    if recipe.name == "fedbn":
        settings += ["model={name: mlp, hidden: [8], normalisation: batch}"]
    plan = load_study(shipped("examples") / "digits" / "study.yaml", overrides=settings).plan
    for file in SITES:
        check_policy(plan, load_site(file))


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_a_strategy_has_a_module_a_recipe_and_a_test(name):
    assert (ROOT / "fedsci" / "strategies" / f"{name}.py").is_file()
    assert name in recipe_names()
    assert (ROOT / "tests" / "strategies" / f"test_{name}.py").is_file()
    assert build_strategy(name, optimiser=ServerOptimiser()).name == name


@pytest.mark.parametrize("path", SITES, ids=short)
def test_a_simulated_lab_is_named_after_its_file_and_can_run(path):
    site = load_site(path)
    assert site.site == path.stem
    assert site.policy is not None
    assert site.policy.approval == "auto"
    assert set(site.policy.strategies) <= set(BUILDERS)


def test_the_simulated_labs_share_each_data_set_without_overlap():
    sites = [load_site(path) for path in SITES]
    for name in sites[0].datasets:
        parts = [site.datasets[name].builtin for site in sites]
        assert [part.shard for part in parts if part] == list(range(1, 18))
        assert len({(part.name, part.of, part.skew, part.uneven) for part in parts if part}) == 1


@pytest.mark.parametrize("path", EXAMPLES, ids=short)
def test_an_example_file_is_what_it_says(path):
    values = read_document(path, kind="study").values
    if "study" in values:
        study = load_study(path)
        assert study.plan.study.study == values["study"]
        schema_of(study.plan.study)
    elif "site" in values:
        assert load_site(path).site == values["site"]
    elif "every_lab" in values:
        assert set(load_weather(path, sites=[site.stem for site in SITES], seed=1).labs) == set(values["labs"])
    else:
        assert load_recipe(str(path), folder=path.parent, where="test").name == values["name"]


@pytest.mark.parametrize("path", [*RECIPES, *SITES, *EXAMPLES], ids=short)
def test_an_unknown_key_in_it_would_be_noticed(path, tmp_path):
    damaged = tmp_path / path.name
    values = yaml.safe_load(path.read_text()) | {"nonsense": 1}
    damaged.write_text(yaml.safe_dump(values))
    load = load_study if "study" in values else load_site if "site" in values else None
    if "every_lab" in values:
        load = partial(load_weather, sites=[site.stem for site in SITES], seed=1)
    with pytest.raises(fedsci.errors.ConfigError, match="unknown key 'nonsense'"):
        load(damaged) if load else load_recipe(damaged.name, folder=tmp_path, where="test")
