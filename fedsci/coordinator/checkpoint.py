"""What is known of a study that was cut short, so that it can be ended properly: public facts, no model, no sums."""

import json
from dataclasses import asdict
from pathlib import Path

from fedsci.coordinator.admission import Admission
from fedsci.coordinator.study import Progress
from fedsci.identity.files import replace_private
from fedsci.names import SiteId

_NAME = "progress.json"


def save(folder: Path, progress: Progress) -> None:
    """Write down, durably, which run it is, who let it in, and how far it came."""
    values = {
        "run": progress.run,
        "sites": {site: asdict(said) | {"advert": ""} for site, said in progress.sites.items()},
        "privacy": {site: dict(said) for site, said in progress.privacy.items()},
        "rounds_allowed": progress.rounds_allowed,
        "rounds_completed": progress.rounds_completed,
        "measurements": progress.measurements,
        "dropped": [list(one) for one in progress.dropped],
        "seconds": progress.seconds,
    }
    replace_private(folder / _NAME, json.dumps(values).encode())


def restore(folder: Path) -> Progress | None:
    """Return what :func:`save` wrote, or None if it wrote nothing; without the model."""
    try:
        values = json.loads((folder / _NAME).read_bytes())
    except FileNotFoundError:
        return None
    return Progress(
        run=values["run"],
        sites={SiteId(site): Admission(**said) for site, said in values["sites"].items()},
        privacy={SiteId(site): said for site, said in values["privacy"].items()},
        rounds_allowed=values["rounds_allowed"],
        rounds_completed=values["rounds_completed"],
        measurements=values["measurements"],
        dropped=[(SiteId(site), number) for site, number in values["dropped"]],
        seconds=values["seconds"],
    )
