"""From a run folder back to a study that can be attacked: its plan, and site files for its labs."""

from collections.abc import Sequence
from pathlib import Path

from fedsci.config.loading import read_document
from fedsci.config.plan import Plan
from fedsci.config.shipped import shipped
from fedsci.config.site import load_site
from fedsci.config.study_file import StudyOnOneMachine
from fedsci.errors import ConfigError, InputError
from fedsci.reporting.evidence import plan_of
from fedsci.reporting.run_folder import METRICS, PLAN, SUMMARY, read_run_folder

_NAME_FOLDER = "name the folder of its labs' site files: --sites"


def study_of_run(run: Path, sites: Path | None) -> StudyOnOneMachine:
    """Return the run's plan with the site files in ``sites``; by default those of the built-in labs.

    Raises:
        InputError: there is no plan that can be read, it was changed, or a lab of it has no file there.
        ConfigError: a lab's file is wrong.
        PolicyRefused: the plan's strategy is a module from elsewhere.
    """
    plan = _plan(run)
    folder = sites if sites is not None else shipped("sites")
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", hint=_NAME_FOLDER)
    return StudyOnOneMachine(plan=plan, site_files=_site_files(folder, plan.sites))


def check_no_run_file(study: Path) -> None:
    """Pass if ``study`` is not a file that lies in a run folder.

    Raises:
        InputError: it is; names the folder.
    """
    folder = study.parent
    if study.is_file() and study.name in (PLAN, SUMMARY, METRICS):
        others = {PLAN, SUMMARY, METRICS} - {study.name}
        if any((folder / name).is_file() for name in others):
            raise InputError(f"{study} is a file of a run, not a study", hint=f"give the run's folder: {folder}")


def _plan(run: Path) -> Plan:
    found = read_run_folder(run)
    try:
        plan = plan_of(found)
    except ConfigError as error:
        raise InputError(f"{run / PLAN}: {error.message}", hint=error.hint or "give a whole run folder") from None
    if found.plan.get("digest") != plan.digest:
        raise InputError(
            f"{run / PLAN}: its digest is not that of the plan in it, so it was changed after the run",
            hint="restore it, or attack the study file with --set",
        )
    return plan


def _site_files(folder: Path, wanted: Sequence[str]) -> tuple[Path, ...]:
    """Return each lab's site file; other files may lie there, too, and what is wrong with those is not looked at.

    Raises:
        ConfigError: a lab has no file that can be read, and one there is wrong.
        InputError: a lab has no file.
    """
    found: dict[str, Path] = {}
    wrong: ConfigError | None = None
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml")):
        try:
            if "site" in read_document(path, kind="site").values:
                found[load_site(path).site] = path.resolve()
        except ConfigError as error:
            wrong = wrong or error
    missing = [site for site in wanted if site not in found]
    if missing and wrong is not None:
        raise wrong
    if missing:
        raise InputError(f"{folder} has no file of {missing[0]}, a lab of the run", hint=_NAME_FOLDER)
    return tuple(found[site] for site in wanted)
