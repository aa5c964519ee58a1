"""The weather file: what simulated labs' machines and lines are like. Nothing of it enters a plan or reaches a site."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from pydantic import Field

from fedsci.config.loading import parse, read_document
from fedsci.config.shipped import shipped
from fedsci.config.strict import Strict
from fedsci.errors import ConfigError
from fedsci.names import SiteId

#: Stands for the shipped weather of lab-01 to lab-17.
UNEVEN = "uneven"


class LabWeather(Strict):
    """One lab's machine and line; what is left out holds nobody up.

    Attributes:
        records_per_s: records that go through a local step in a virtual second; a record in two steps counts twice.
        availability: probability of being there in a round.
        down_bytes_per_s, up_bytes_per_s: of the line, to and from the lab.
    """

    records_per_s: float | None = Field(default=None, gt=0)
    availability: float | None = Field(default=None, ge=0, le=1)
    down_bytes_per_s: float | None = Field(default=None, gt=0)
    up_bytes_per_s: float | None = Field(default=None, gt=0)


class Weather(Strict):
    """A weather file as written.

    Attributes:
        seed: public; decides who is away when. The study's if left out.
        every_lab: holds where a lab's own section says nothing.
        labs: by name.
    """

    seed: int | None = Field(default=None, ge=0, lt=2**63)
    every_lab: LabWeather = LabWeather()
    labs: dict[str, LabWeather] = Field(default_factory=dict)

    def of(self, site: SiteId) -> LabWeather:
        """Return a lab's weather, filled up from ``every_lab``."""
        own = self.labs.get(site, LabWeather())
        return LabWeather(**(self.every_lab.model_dump() | own.model_dump(exclude_none=True)))


def load_weather(path: Path, *, sites: Sequence[SiteId], seed: int) -> Weather:
    """Return the weather of ``sites`` in the file at ``path``; ``uneven`` is the shipped one.

    Args:
        path: the file.
        sites: the study's.
        seed: the study's, which holds where the file names none.

    Raises:
        ConfigError: names file, line, what was found and what would be right.
    """
    if str(path) == UNEVEN and not path.exists():
        path = shipped("examples") / "digits" / "weather.yaml"
    document = read_document(path, kind="weather")
    weather = parse(Weather, document)
    for name in weather.labs:
        if name not in sites:
            near = get_close_matches(name, sites, n=1)
            raise ConfigError(
                f"{path} line {document.line_of(['labs', name])}: {name} is no lab of the study",
                hint=f"did you mean {near[0]!r}?" if near else f"its labs are {', '.join(sites)}",
            )
    return weather if weather.seed is not None else weather.model_copy(update={"seed": seed})
