"""From a study file and command-line overrides to a plan and the site files it names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fedsci.config.loading import NOT_YAML, Document, Key, parse, parse_value, read_document
from fedsci.config.masking import terms_for
from fedsci.config.plan import Plan
from fedsci.config.plan_checks import check_plan
from fedsci.config.site import Site, load_site
from fedsci.config.strategy import StrategyRecipe, load_recipe
from fedsci.config.study import Study
from fedsci.errors import ConfigError
from fedsci.names import SiteId, is_unicode


@dataclass(frozen=True, kw_only=True)
class StudyOnOneMachine:
    """A plan and the site files of the labs that are simulated here.

    Attributes:
        plan: what is asked of every site.
        site_files: absolute paths, in the order of ``plan.sites``.
    """

    plan: Plan
    site_files: tuple[Path, ...]


def load_study(path: Path, *, overrides: list[str] | None = None, seed: int | None = None) -> StudyOnOneMachine:
    """Return the plan of the study file at ``path`` and its site files.

    Args:
        path: the study file.
        overrides: ``key.sub=value`` texts; values are read as YAML.
        seed: replaces the study's seed.

    Raises:
        ConfigError: names file, line or override, what was found and what would be right.
    """
    document, study, recipe = _read(path, overrides, seed)
    files = _site_files(document, study)
    sites = [(load_site(file), file.resolve()) for file in files]
    _refuse_twins(sites)
    _refuse_absent_dataset(study, sites)
    sites.sort(key=lambda pair: pair[0].site)
    plan = _checked(path, study, recipe, [SiteId(site.site) for site, _ in sites])
    return StudyOnOneMachine(plan=plan, site_files=tuple(file for _, file in sites))


def load_deployed_study(
    path: Path,
    *,
    active: Sequence[SiteId],
    chosen: Sequence[str] | None = None,
    overrides: list[str] | None = None,
    seed: int | None = None,
) -> Plan:
    """Return the plan of the study file at ``path`` for sites elsewhere, known by their names alone.

    Args:
        path: the study file; its ``sites``, if any, are names.
        active: the consortium's members.
        chosen: names that count instead of the file's; ``["all"]`` stands for all members.
        overrides: ``key.sub=value`` texts; values are read as YAML.
        seed: replaces the study's seed.

    Raises:
        ConfigError: names file, line or override, what was found and what would be right.
    """
    document, study, recipe = _read(path, overrides, seed)
    written = [study.sites] if isinstance(study.sites, str) else study.sites
    where = "--sites" if chosen is not None else _line(document, "sites")
    names = list(chosen if chosen is not None else written) or ["all"]
    if names == ["all"]:
        names = list(active)
        if not names:
            raise ConfigError("the consortium has no active sites", hint="fedsci coordinator enrol NAME")
    listed = ", ".join(sorted(active)) or "nobody"
    for name in names:
        if name in active:
            continue
        if chosen is None and (isinstance(study.sites, str) or "/" in name or name.endswith((".yaml", ".yml"))):
            raise ConfigError(
                f"{where}: {name} is for running on one machine; sites elsewhere are known by name",
                hint=f"--sites all, or --sites with some of: {listed}",
            )
        raise ConfigError(f"{where}: {name} is not an active site", hint=f"active are: {listed}")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"{where}: {twice[0]} stands there twice", hint="name every site once")
    plan = _checked(path, study, recipe, sorted(SiteId(name) for name in names))
    if plan.needs_clock is not None:
        raise ConfigError(
            f"{path}: {plan.needs_clock}, which is for simulations with weather so far",
            hint="fedsci run STUDY --weather FILE shows what it would bring; between machines use fedavg and "
            "training.round_deadline_s",
        )
    return plan


def _read(path: Path, overrides: list[str] | None, seed: int | None) -> tuple[Document, Study, StrategyRecipe]:
    document = read_document(path, kind="study")
    origin: dict[tuple[Key, ...], str] = {}
    for text in overrides or []:
        keys = _apply_override(document.values, text)
        origin[keys] = f"--set {text}"
    if seed is not None:
        document.values["seed"] = seed
        origin["seed",] = f"--seed {seed}"
    if "scaled_by" in document.values:
        where = origin.get(("scaled_by",), _line(document, "scaled_by"))
        raise ConfigError(
            f"{where}: scaled_by is not written by people",
            hint="set features.scaling: federated to have scaling measured, or give columns a mean and a deviation",
        )
    study = parse(Study, document, origin=origin)
    where = origin.get(("strategy",), _line(document, "strategy"))
    recipe = load_recipe(study.strategy, folder=path.parent, where=where)
    return document, study, recipe


def _checked(path: Path, study: Study, recipe: StrategyRecipe, sites: Sequence[SiteId]) -> Plan:
    plan = Plan(study=study, recipe=recipe, sites=tuple(sites))
    try:
        check_plan(plan)
        if study.secure_aggregation.enabled:
            terms_for(plan)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from None
    return plan


def _line(document: Document, key: str) -> str:
    line = document.line_of([key])
    return f"{document.path} line {line}" if line else str(document.path)


def _apply_override(values: dict[str, Any], text: str) -> tuple[Key, ...]:
    dotted, equals, raw = text.partition("=")
    keys = tuple(dotted.strip().split("."))
    if not is_unicode(text):
        raise ConfigError(f"--set {text!a}: this is not UTF-8 text", hint="for example: --set training.rounds=10")
    if not equals or not all(keys):
        raise ConfigError(f"--set {text}: expected key=value", hint="for example: --set training.rounds=10")
    try:
        value = parse_value(raw)
    except (yaml.YAMLError, *NOT_YAML):
        raise ConfigError(f"--set {text}: the value is not valid YAML", hint="quote texts that hold : or #") from None
    section = values
    for key in keys[:-1]:
        inner = section.get(key)
        if inner is None:
            inner = section[key] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {text}: {key} is not a section", hint="for example: --set training.rounds=10")
        section = inner
    section[keys[-1]] = value
    return keys


def _site_files(document: Document, study: Study) -> list[Path]:
    folder = document.path.parent
    if isinstance(study.sites, str):
        where = folder / study.sites
        if not where.is_dir():
            raise ConfigError(
                f"{_line(document, 'sites')}: {where} is not a folder",
                hint="sites is a folder of site files, or a list of them",
            )
        found = sorted(p for p in where.iterdir() if p.suffix in (".yaml", ".yml"))
        files = [p for p in found if "site" in (read_document(p, kind="site").values)]
    else:
        files = [folder / name for name in study.sites]
    if not files:
        raise ConfigError(
            f"{_line(document, 'sites')}: no site files to simulate the labs from",
            hint="list them: sites: [lab-01.yaml, lab-02.yaml], or name their folder",
        )
    return files


def _refuse_twins(sites: list[tuple[Site, Path]]) -> None:
    seen: dict[str, Path] = {}
    for site, file in sites:
        if site.site in seen:
            raise ConfigError(
                f"{file} and {seen[site.site]} are both called {site.site!r}",
                hint="give every site its own name",
            )
        seen[site.site] = file


def _refuse_absent_dataset(study: Study, sites: list[tuple[Site, Path]]) -> None:
    for site, file in sites:
        if study.dataset not in site.datasets:
            raise ConfigError(
                f"{file}: {site.site} holds no data set called {study.dataset!r}",
                hint=f"it holds {', '.join(site.datasets)}; the study's dataset names one that every site has",
            )
