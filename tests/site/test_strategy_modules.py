"""A strategy of someone else's: its module is imported at a site only if the policy names that very module."""

import json
import secrets
import sys

import pytest

from fedsci.config.plan import Plan
from fedsci.config.plan_checks import plan_from_bytes
from fedsci.config.site import load_site
from fedsci.config.strategy import StrategyRecipe
from fedsci.errors import ConfigError, PolicyRefused
from fedsci.site.service import SiteService
from fedsci.strategies import BUILDERS
from fedsci.transport.messages import Request

RULES = """
from dataclasses import dataclass, field
from pathlib import Path

from fedsci.strategies.base import MeanStrategy

Path(__file__).with_suffix(".imported").touch()


@dataclass(frozen=True, kw_only=True)
class Half(MeanStrategy):
    share: float = 0.5
    name: str = field(default="mylab.rules", init=False)

    def contribute(self, work):
        return work.update(work.received) * self.share


def build(*, optimiser, share=0.5):
    return Half(optimiser=optimiser, share=share)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The sentinel that says that ``mylab.rules`` was imported."""
    folder = tmp_path / "modules" / "mylab"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('rules.imported').touch()\n"
    )
    (folder / "rules.py").write_text(RULES)
    monkeypatch.syspath_prepend(str(folder.parent))
    yield folder / "rules.imported"
    for name in ("mylab", "mylab.rules"):
        sys.modules.pop(name, None)


def proposal(make_plan, name: str) -> str:
    """A plan as a coordinator sends it, made without looking at the strategy."""
    plan = make_plan(secure_aggregation={"enabled": False})
    return Plan(study=plan.study, recipe=StrategyRecipe(name=name), sites=plan.sites).to_bytes().decode()


def ask(site, state, action: str, plan: str):
    fields = {"run": secrets.token_hex(16), "plan": plan}
    return SiteService(site, state).handle(Request(action=action, fields=fields, vector=None))


@pytest.mark.parametrize("action", ["propose", "prepare"])
@pytest.mark.parametrize("allowed", [["fedavg"], ["mylab"], ["mylab.rules2"], ["mylab.*"], [], None])
def test_a_module_that_the_policy_does_not_name_is_never_imported(
    make_plan, make_lab, tmp_path, module, action, allowed
):
    site = load_site(make_lab(policy={"strategies": allowed}))
    reply = ask(site, tmp_path / "state", action, proposal(make_plan, "mylab.rules"))
    assert reply.error["code"] == "policy"
    assert "'mylab.rules' is not listed" in reply.error["message"]
    assert not module.exists()
    assert "mylab" not in sys.modules


def test_without_a_policy_none_is_imported(make_plan, make_lab, tmp_path, module):
    site = load_site(make_lab()).model_copy(update={"policy": None})
    assert ask(site, tmp_path / "state", "propose", proposal(make_plan, "mylab.rules")).error["code"] == "policy"
    assert not module.exists()


def test_a_module_that_it_names_is(make_plan, make_lab, tmp_path, module):
    site = load_site(make_lab(policy={"strategies": ["mylab.rules"]}))
    assert ask(site, tmp_path / "state", "propose", proposal(make_plan, "mylab.rules")).error is None
    assert module.exists()


def test_a_module_that_it_names_and_does_not_have_is_said_to_be_missing(make_plan, make_lab, tmp_path):
    site = load_site(make_lab(policy={"strategies": ["no_such_lab.rules"]}))
    assert ask(site, tmp_path / "state", "propose", proposal(make_plan, "no_such_lab.rules")).error["code"] == "config"


def test_bytes_from_anyone_import_nothing(make_plan, module):
    with pytest.raises(PolicyRefused, match="not listed"):
        plan_from_bytes(proposal(make_plan, "mylab.rules").encode())
    assert not module.exists()


@pytest.mark.parametrize("name", ["mylab/rules", "mylab.rules:build", "..mylab.rules", "mylab.rules ", "mylab.rülés"])
def test_what_only_looks_like_a_module_is_an_unknown_strategy(make_plan, module, name):
    with pytest.raises(ConfigError, match="does not exist"):
        plan_from_bytes(proposal(make_plan, name).encode(), modules=[name])
    assert not module.exists()
    assert name not in BUILDERS


def test_a_run_folders_plan_imports_nothing(make_plan, module):
    content = json.loads(proposal(make_plan, "mylab.rules"))
    assert content["strategy"]["name"] == "mylab.rules"
    with pytest.raises(PolicyRefused):
        plan_from_bytes(json.dumps(content).encode())
    assert not module.exists()
