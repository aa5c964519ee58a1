"""The weather file: filled up from ``every_lab``, refused where it names nobody or promises the impossible."""

from pathlib import Path

import pytest
import yaml

from fedsci.config.shipped import shipped
from fedsci.config.study_file import load_study
from fedsci.config.weather import load_weather
from fedsci.errors import ConfigError

SITES = ("lab-1", "lab-2")


def weather(tmp_path, values, *, seed=7):
    file = tmp_path / "weather.yaml"
    file.write_text(yaml.safe_dump(values))
    return load_weather(file, sites=SITES, seed=seed)


def test_a_labs_own_section_wins_over_what_holds_for_every_lab(tmp_path):
    found = weather(
        tmp_path,
        {"every_lab": {"records_per_s": 5, "availability": 0.9}, "labs": {"lab-1": {"records_per_s": 2}}},
    )
    assert (found.of("lab-1").records_per_s, found.of("lab-1").availability) == (2, 0.9)
    assert (found.of("lab-2").records_per_s, found.of("lab-2").down_bytes_per_s) == (5, None)


def test_the_studys_seed_holds_where_the_file_names_none(tmp_path):
    assert weather(tmp_path, {}, seed=3).seed == 3
    assert weather(tmp_path, {"seed": 0}, seed=3).seed == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"labs": {"lab-3": {}}}, "line 2: lab-3 is no lab of the study"),
        ({"labs": {"lab-1": {"availability": 1.5}}}, "availability is 1.5"),
        ({"labs": {"lab-1": {"records_per_s": 0}}}, "records_per_s is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"every_lab": {"speed": 3}}, "unknown key 'speed'"),
        ({"epsilon": 3}, "unknown key 'epsilon'"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, values, message):
    with pytest.raises(ConfigError) as refused:
        weather(tmp_path, values)
    assert message in refused.value.message
    assert refused.value.hint


def test_the_shipped_weather_is_read_by_its_name_and_is_for_the_shipped_labs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = load_study(shipped("examples") / "digits" / "study.yaml").plan
    found = load_weather(Path("uneven"), sites=plan.sites, seed=1)
    assert len({str(found.of(site)) for site in plan.sites}) > 3
    machines = load_weather(shipped("examples") / "digits" / "machines.yaml", sites=plan.sites, seed=1)
    assert len({machines.of(site).records_per_s for site in plan.sites}) > 3
    assert len({machines.of(site).up_bytes_per_s for site in plan.sites}) == 1
    (tmp_path / "uneven").write_text("seed: 4")  # a file of that name is meant before it
    assert load_weather(Path("uneven"), sites=plan.sites, seed=1).seed == 4
