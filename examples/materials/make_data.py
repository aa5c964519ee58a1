"""Write the data of the materials studies: ``python -m examples.materials.make_data``, from the top of the repository.

Without arguments: four plates of a physical model (:mod:`examples.materials.plates`).
With ``--plates FOLDER``: also the four real ones, from folders ``3496``, ``3851``, ``3860`` and ``4098`` in it.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from examples.csv_file import write_csv
from examples.materials.plates import ELEMENTS, PLATES, measure, table

HERE = Path(__file__).parent


def write_generated(out: Path, *, records: int | None = None, seed: int = 0) -> None:
    """Write ``generated/plate-3496.csv`` and three more."""
    for plate in PLATES:
        columns = measure(plate, records=records, seed=seed)
        write_csv(out / "generated" / f"{plate.name}.csv", columns)
        _say("generated", plate.name, columns)


def write_measured(source: Path, out: Path) -> None:
    """Write ``measured/plate-3496.csv`` and three more: the same columns, volts as millivolts.

    Raises:
        SystemExit: a plate's folder or file is not there.
    """
    for plate in PLATES:
        folder = source / plate.name.removeprefix("plate-")
        for name in ("config.json", "data.csv"):
            if not (folder / name).is_file():
                raise SystemExit(f"{folder / name}: there is no such file; see README.md for where it comes from")
        parameters = json.loads((folder / "config.json").read_text(encoding="utf-8"))["parameters"]
        elements = [parameter["name"].removesuffix("_load") for parameter in parameters]
        with (folder / "data.csv").open(encoding="utf-8", newline="") as file:
            values = np.array([[float(cell) for cell in row] for row in csv.reader(file)])
        fractions = np.zeros((len(values), len(ELEMENTS)))
        fractions[:, [ELEMENTS.index(element) for element in elements]] = values[:, :-1]
        columns = table(fractions, 1000 * values[:, -1])
        write_csv(out / "measured" / f"{plate.name}.csv", columns)
        _say("measured", plate.name, columns)


def _say(kind: str, name: str, columns: dict[str, list[object]]) -> None:
    measured = np.array(columns["overpotential_mv"], dtype=np.float64)
    active = np.mean(np.array(columns["active"], dtype=np.float64))
    print(
        f"{kind} {name}: {len(measured)} mixtures, {measured.mean():.0f} +- {measured.std():.0f} mV, from "
        f"{measured.min():.0f} to {measured.max():.0f}; {100 * active:.0f} % active"
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.materials.make_data", description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "data", help="folder to write to (default: %(default)s)")
    parser.add_argument("--records", type=int, help="mixtures of each generated plate (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="another draw of order and noise")
    parser.add_argument("--plates", type=Path, metavar="FOLDER", help="folder that holds the real plates")
    arguments = parser.parse_args()
    write_generated(arguments.out, records=arguments.records, seed=arguments.seed)
    if arguments.plates:
        write_measured(arguments.plates, arguments.out)


if __name__ == "__main__":
    main()
