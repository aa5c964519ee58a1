"""The strategy file: a recipe that names an algorithm and its defaults."""

from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pydantic import Field

from fedsci.config.loading import parse, read_document
from fedsci.config.shipped import shipped
from fedsci.config.strict import Strict
from fedsci.config.training import Training
from fedsci.errors import ConfigError
from fedsci.strategies import BUILDERS, is_module
from fedsci.strategies.server_optimiser import Kind, ServerOptimiser


class ServerOptimiserSpec(Strict):
    """The coordinator's optimiser; empty values are taken from the strategy's own rule."""

    kind: Kind = "sgd"
    learning_rate: float | None = Field(default=None, gt=0)
    momentum: float | None = Field(default=None, ge=0, lt=1)
    beta_1: float = Field(default=0.9, ge=0, lt=1)
    beta_2: float = Field(default=0.99, ge=0, lt=1)
    tau: float = Field(default=1e-3, gt=0)

    def optimiser(self, *, learning_rate: float = 1.0, momentum: float = 0.0) -> ServerOptimiser:
        """Return the optimiser; the arguments stand in for what the recipe leaves empty."""
        return ServerOptimiser(
            kind=self.kind,
            learning_rate=learning_rate if self.learning_rate is None else self.learning_rate,
            momentum=momentum if self.momentum is None else self.momentum,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            tau=self.tau,
        )


class PrivateLearningRate(Strict):
    """The learning rate under differential privacy: in proportion to epsilon, because the noise falls as it grows.

    Attributes:
        per_epsilon: learning rate at epsilon 1.
        most: however large epsilon is.
    """

    per_epsilon: float = Field(gt=0)
    most: float = Field(gt=0)

    def at(self, epsilon: float) -> float:
        """Return the learning rate of a study with this epsilon."""
        return min(self.most, self.per_epsilon * epsilon)


class StrategyRecipe(Strict):
    """A strategy file as written.

    Attributes:
        name: of the algorithm: one of fedsci's, or a module's path (``mylab.rules``).
        sees: ``sum`` or ``each``; must be what the algorithm says.
        paper, when: where it comes from, and what it is for.
        server_optimiser: of the coordinator.
        options: the algorithm's own numbers, by name.
        training: defaults for studies that say nothing.
        private_learning_rate: takes the place of ``training.learning_rate`` where training is private.
    """

    name: str
    sees: Literal["sum", "each"] = "sum"
    paper: str = ""
    when: str = ""
    server_optimiser: ServerOptimiserSpec = ServerOptimiserSpec()
    options: dict[str, float] = Field(default_factory=dict)
    training: Training = Training()
    private_learning_rate: PrivateLearningRate | None = None


def recipe_names() -> list[str]:
    """Return the names of the recipes fedsci ships."""
    return sorted(path.stem for path in shipped("strategies").glob("*.yaml"))


def recipe_path(name_or_path: str, *, folder: Path) -> Path:
    """Return where the recipe called ``name_or_path`` lies, or that file itself (relative to ``folder``)."""
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        return folder / name_or_path
    return shipped("strategies") / f"{name_or_path}.yaml"


def load_recipe(name_or_path: str, *, folder: Path, where: str) -> StrategyRecipe:
    """Return the recipe called ``name_or_path``, or the one in that file (relative to ``folder``).

    Raises:
        ConfigError: no such recipe or file, or it names an algorithm that does not exist.
    """
    path = recipe_path(name_or_path, folder=folder)
    if path.parent == shipped("strategies") and not path.is_file():
        near = get_close_matches(name_or_path, recipe_names(), n=1)
        known = f"known: {', '.join(recipe_names())}; or give the path of a YAML file"
        raise ConfigError(
            f"{where}: strategy {name_or_path!r} does not exist",
            hint=f"did you mean {near[0]!r}? {known}" if near else known,
        )
    document = read_document(path, kind="strategy")
    recipe = parse(StrategyRecipe, document)
    if recipe.name not in BUILDERS and not is_module(recipe.name):
        raise ConfigError(
            f"{path} line {document.line_of(['name'])}: no algorithm is called {recipe.name!r}",
            hint=f"known: {', '.join(sorted(BUILDERS))}; or the path of an installed module, as in mylab.rules",
        )
    return recipe
