"""From a study file and command-line overrides to a plan and the site files it names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fedsci.config.loading import NOT_YAML, Document, Key, parse, parse_value, read_document
from fedsci.config.masking import terms_for
from fedsci.config.plan import Plan, check_plan
from fedsci.config.site import Site, load_site
from fedsci.config.strategy import load_recipe
from fedsci.config.study import Study
from fedsci.errors import ConfigError
from fedsci.names import SiteId


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
    document = read_document(path, kind="study")
    origin: dict[tuple[Key, ...], str] = {}
    for text in overrides or []:
        keys = _apply_override(document.values, text)
        origin[keys] = f"--set {text}"
    if seed is not None:
        document.values["seed"] = seed
        origin["seed",] = f"--seed {seed}"
    study = parse(Study, document, origin=origin)
    where = origin.get(("strategy",), _line(document, "strategy"))
    recipe = load_recipe(study.strategy, folder=path.parent, where=where)
    files = _site_files(document, study)
    sites = [(load_site(file), file.resolve()) for file in files]
    _refuse_twins(sites)
    _refuse_absent_dataset(study, sites)
    sites.sort(key=lambda pair: pair[0].site)
    plan = Plan(study=study, recipe=recipe, sites=tuple(SiteId(site.site) for site, _ in sites))
    try:
        check_plan(plan)
        if study.secure_aggregation.enabled:
            terms_for(plan)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from None
    return StudyOnOneMachine(plan=plan, site_files=tuple(file for _, file in sites))


def _line(document: Document, key: str) -> str:
    line = document.line_of([key])
    return f"{document.path} line {line}" if line else str(document.path)


def _apply_override(values: dict[str, Any], text: str) -> tuple[Key, ...]:
    dotted, equals, raw = text.partition("=")
    keys = tuple(dotted.strip().split("."))
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
