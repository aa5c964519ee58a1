"""From a run folder back to a study that can be attacked: its plan, and site files for its labs."""

import contextlib
import json
from pathlib import Path

import yaml

from fedsci.config.plan_checks import plan_from_bytes
from fedsci.config.shipped import shipped
from fedsci.config.site import load_site
from fedsci.config.study_file import StudyOnOneMachine
from fedsci.errors import ConfigError, InputError


def study_of_run(run: Path, sites: Path | None) -> StudyOnOneMachine:
    """Return the run's plan with the site files in ``sites``; by default those of the built-in labs.

    Raises:
        InputError: there is no plan that can be read, or a lab of it has no file there.
    """
    file = run / "plan.yaml"
    try:
        written = yaml.safe_load(file.read_bytes())
        if not isinstance(written, dict):
            raise ConfigError("it is no plan")
        written.pop("digest", None)
        plan = plan_from_bytes(json.dumps(written).encode())
    except (OSError, yaml.YAMLError, ValueError, TypeError, RecursionError, ConfigError) as error:
        raise InputError(f"{file}: cannot be read as a plan: {error}", hint="give a whole run folder") from None
    folder = sites if sites is not None else shipped("sites")
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.yaml")):
        with contextlib.suppress(ConfigError):  # other files may lie there, too
            found[load_site(path).site] = path.resolve()
    missing = [site for site in plan.sites if site not in found]
    if missing:
        raise InputError(
            f"{folder} has no file of {missing[0]}, a lab of the run", hint="name the folder of its site files: --sites"
        )
    return StudyOnOneMachine(plan=plan, site_files=tuple(found[site] for site in plan.sites))
