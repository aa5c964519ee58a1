"""Generated data is the same every time, and is what its documentation says."""

import hashlib

import numpy as np
import pytest

from examples.biosecurity.hospitals import HOSPITALS, PAIN, admit
from examples.biosecurity.make_data import write_hospitals
from examples.csv_file import write_csv
from examples.draws import Draws
from examples.grid.make_data import write_regions, write_stability
from examples.grid.operating_points import OUTAGES, REGIONS, sample, wind_factor
from examples.materials import plates
from examples.materials.make_data import write_generated, write_measured

WRITERS = {
    "grid": lambda out, seed: write_regions(out, records=5, seed=seed),
    "materials": lambda out, seed: write_generated(out, records=50, seed=seed),
    "biosecurity": lambda out, seed: write_hospitals(out, seed=seed),
}


def digest(folder):
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.rglob("*.csv")))).hexdigest()


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_seed_writes_the_same_files_and_another_one_others(name, tmp_path):
    for folder, seed in (("one", 3), ("two", 3), ("other", 4)):
        WRITERS[name](tmp_path / folder, seed)
    assert digest(tmp_path / "one") == digest(tmp_path / "two") != digest(tmp_path / "other")
    assert not list(tmp_path.rglob(".*"))


def test_draws_follow_their_distributions_and_depend_on_name_and_seed():
    draws = Draws("test", 1)
    uniform, normal, weibull = draws.uniform(40_000), draws.normal(40_000), draws.weibull(2, 8, 40_000)
    assert 0 < uniform.min() < 0.001 < 0.999 < uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.006
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.015
    assert abs(weibull.mean() - 8 * np.sqrt(np.pi) / 2) < 0.08
    first = Draws("test", 1).uniform(5)
    assert np.array_equal(first, Draws("test", 1).uniform(5))
    assert not np.array_equal(first, Draws("test", 2).uniform(5))
    assert not np.array_equal(first, Draws("tests", 1).uniform(5))
    chosen = Draws("test", 1).choices({"a": 0.2, "b": 0.8}, 10_000)
    assert abs(chosen.count("a") / 10_000 - 0.2) < 0.016
    with pytest.raises(ValueError, match=r"add up to 0\.9"):
        draws.choices({"a": 0.2, "b": 0.7}, 1)


def test_a_table_has_six_significant_digits(tmp_path):
    write_csv(tmp_path / "new" / "table.csv", {"x": [1 / 3, 0.0], "y": [1, "a"]})
    assert (tmp_path / "new" / "table.csv").read_text() == "x,y\n0.333333,1\n0,a\n"


@pytest.mark.slow
def test_operating_points_have_the_documented_loads_wind_and_outages():
    region = REGIONS[1]
    table, failed = sample(region, records=220)
    assert failed == 0
    load = sum(np.array(table[name]) for name in ("load_132kv_mw", "load_hancock_mw", "load_roanoke_mw"))
    deviation = 283.4 * region.load_level * np.hypot(0.12 / np.sqrt(2), 0.06)
    assert load.mean() == pytest.approx(283.4 * region.load_level, abs=4 * deviation / np.sqrt(220))
    assert load.std() == pytest.approx(deviation, rel=0.15)
    ratio = np.array(table["load_mvar"]) / load
    assert ratio.mean() == pytest.approx(region.reactive_factor * 126.2 / 283.4, rel=0.02)
    speeds = Draws("speeds", 0).weibull(2, region.wind_speed_m_s, 100_000)
    expected = wind_factor(speeds)
    assert np.mean(table["wind_mw"]) == pytest.approx(
        region.wind_mw * expected.mean(), abs=4 * region.wind_mw * expected.std() / np.sqrt(220)
    )
    sun = 0.65 / np.pi  # the mean of max(0, sin) over a day, by the mean clearness
    assert np.mean(table["solar_mw"]) == pytest.approx(
        region.solar_mw * sun, abs=4 * region.solar_mw * 0.26 / np.sqrt(220)
    )
    for outage, probability in region.outages.items():
        slack = 4 * np.sqrt(probability * (1 - probability) / 220)
        assert table["branch_out"].count(outage) / 220 == pytest.approx(probability, abs=slack)
    assert set(table["branch_out"]) <= set(OUTAGES)


def test_fewer_operating_points_are_the_first_ones_and_regions_differ():
    few, _ = sample(REGIONS[0], records=3)
    more, _ = sample(REGIONS[0], records=6)
    assert few == {name: column[:3] for name, column in more.items()}
    assert few != sample(REGIONS[1], records=3)[0]


def test_every_outage_leaves_a_grid_that_can_be_solved():
    assert {outage for region in REGIONS for outage in region.outages} | {"none"} == set(OUTAGES)


def test_the_turbine_starts_fills_and_stops_where_it_should():
    assert wind_factor(np.array([0, 3, 12, 24.9, 25.1])).tolist() == [0, 0, 1, 1, 0]
    assert wind_factor(np.array([7.5]))[0] == pytest.approx((7.5**3 - 27) / (12**3 - 27))


def test_a_plate_holds_all_mixtures_of_at_most_four_metals():
    found = plates.mixtures(6)
    assert found.shape == (2121, 6)
    assert len(np.unique(found, axis=0)) == 2121
    assert np.allclose(found.sum(axis=1), 1)
    assert (found > 0).sum(axis=1).max() == 4


def test_activity_is_a_volcano():
    descriptor = np.array(list(plates.DESCRIPTOR_EV.values()))
    pure = plates.material_mv(np.eye(11), iron=0.0) + plates.TAFEL_MV * np.array(list(plates.LOG_AREA.values()))
    order = np.argsort(np.abs(descriptor - 1.6))
    assert (np.diff(pure[order]) > -1e-9).all()
    far = descriptor.argmax()
    assert pure[far] == pytest.approx(365 + 1000 * plates.BEP * (descriptor[far] - 1.6), abs=1.0)


def test_an_instrument_adds_its_offset_drift_and_noise_and_iron_more_than_that():
    for plate in plates.PLATES:
        table = plates.measure(plate)
        fractions = np.array([table[name] for name in plates.ELEMENTS]).T
        added = np.array(table["overpotential_mv"]) - plates.material_mv(fractions, iron=plate.iron)
        offset = plate.offset_mv + plates.CURRENT_MA * plate.resistance_ohm_cm2
        assert added.mean() == pytest.approx(offset, abs=4 * plate.noise_mv / np.sqrt(2121))
        place = np.linspace(-0.5, 0.5, 2121)
        assert np.polyfit(place, added, 1)[0] == pytest.approx(
            plate.drift_mv, abs=4 * plate.noise_mv * np.sqrt(12 / 2121)
        )
        assert (added - offset - plate.drift_mv * place).std() == pytest.approx(plate.noise_mv, rel=0.07)
        changed = plates.material_mv(fractions, iron=plate.iron) - plates.material_mv(fractions, iron=0.0)
        assert (changed.std() > 0.5) == (plate.iron > 0)


def test_patients_have_the_documented_shares(tmp_path):
    for hospital in HOSPITALS:
        n = 4000
        table = admit(hospital, records=n)
        ill = np.array(table["disease"])
        assert ill.mean() == pytest.approx(hospital.prevalence, abs=4 * np.sqrt(0.25 / n))
        for name, frequency in hospital.gaps.items():
            assert table[name].count("") / n == pytest.approx(frequency, abs=4 * np.sqrt(0.25 / n))
        pain = np.array(table["pain"])
        for sick, shares in PAIN.items():
            group = pain[ill == sick]
            for kind, share in shares.items():
                assert (group == kind).mean() == pytest.approx(share, abs=4 * np.sqrt(0.25 / len(group)))


def test_real_plates_get_the_same_columns(tmp_path):
    for plate in plates.PLATES:
        folder = tmp_path / "given" / plate.name.removeprefix("plate-")
        folder.mkdir(parents=True)
        parameters = ", ".join(f'{{"name": "{element}_load"}}' for element in plate.elements)
        (folder / "config.json").write_text(f'{{"parameters": [{parameters}]}}')
        (folder / "data.csv").write_text("0.1,0.2,0.7,0,0,0,0.4012\n0,0,0,0,0,1,0.6\n")
    write_measured(tmp_path / "given", tmp_path / "out")
    lines = (tmp_path / "out" / "measured" / "plate-4098.csv").read_text().splitlines()
    assert lines[0] == "ni,fe,co,mn,ce,la,ta,cu,sn,sb,ca,overpotential_mv,active"
    assert lines[1:] == ["0,0,0.7,0,0,0,0,0,0.1,0.2,0,401.2,1", "0,0,0,1,0,0,0,0,0,0,0,600,0"]
    (folder / "data.csv").unlink()
    with pytest.raises(SystemExit, match=r"data\.csv: there is no such file"):
        write_measured(tmp_path / "given", tmp_path / "out")


def test_stability_data_is_split_by_reaction_time(tmp_path):
    names = "tau1;tau2;tau3;tau4;p1;p2;p3;p4;g1;g2;g3;g4;stab"
    rows = [
        ";".join(str(value) for value in (t, t, t, t, 3, -1, -1, -1, 0.5, 0.5, 0.5, 0.5, (t - 4) / 1000))
        for t in range(1, 9)
    ]
    (tmp_path / "Data_for_UCI_named.csv").write_text("\n".join([names, *rows]) + "\n")
    write_stability(tmp_path, tmp_path / "out")
    slowest = (tmp_path / "out" / "quartile-4.csv").read_text().splitlines()
    assert slowest[0] == "tau1,tau2,tau3,tau4,p2,p3,p4,g1,g2,g3,g4,stab_milli,unstable"
    assert [line.split(",")[0] for line in slowest[1:]] == ["7", "8"]
    assert [line.split(",")[-2:] for line in slowest[1:]] == [["3", "1"], ["4", "1"]]
    with pytest.raises(SystemExit, match="there is no such file"):
        write_stability(tmp_path / "out", tmp_path / "out")
