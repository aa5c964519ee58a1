"""Write the data of the grid studies: ``python -m examples.grid.make_data``, from the top of the repository.

Without arguments: eight operating regions, generated (:mod:`examples.grid.operating_points`), a few seconds.
With ``--stability FOLDER``: also four labs from the UCI grid stability data in that folder.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from examples.csv_file import write_csv
from examples.grid.operating_points import REGIONS, sample

HERE = Path(__file__).parent
STABILITY = "Data_for_UCI_named.csv"
QUARTILES = 4


def write_regions(out: Path, *, records: int | None = None, seed: int = 0) -> None:
    """Write ``region-1.csv`` to ``region-8.csv``."""
    for region in REGIONS:
        table, failed = sample(region, records=records, seed=seed)
        write_csv(out / f"{region.name}.csv", table)
        violated = np.mean(np.array(table["voltage_violation"], dtype=np.float64))
        print(
            f"{region.name}: {len(table['wind_mw'])} operating points, median loading "
            f"{np.median(np.array(table['loading_percent'], dtype=np.float64)):.0f} %, voltage violated in "
            f"{100 * violated:.0f} %; {failed} without a solution drawn again"
        )


def write_stability(source: Path, out: Path) -> None:
    """Write ``quartile-1.csv`` to ``quartile-4.csv``: labs by the mean reaction time tau1 to tau4 of their grids.

    ``stab_milli`` is 1000 x stab, ``unstable`` is stab above 0. ``p1`` is left out: it is minus the sum of the others.

    Raises:
        SystemExit: the file is not there.
    """
    path = source / STABILITY
    if not path.is_file():
        raise SystemExit(f"{path}: there is no such file; get it from the UCI repository (see README.md)")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    features = [name for name in rows[0] if name not in ("p1", "stab", "stabf")]
    reaction = np.array([[float(row[f"tau{node}"]) for node in range(1, 5)] for row in rows]).mean(axis=1)
    limits = np.quantile(reaction, [0.25, 0.5, 0.75])
    quartile = np.searchsorted(limits, reaction)
    for number in range(QUARTILES):
        own = [row for row, place in zip(rows, quartile, strict=True) if place == number]
        table: dict[str, list[object]] = {name: [row[name] for row in own] for name in features}
        table["stab_milli"] = [1000 * float(row["stab"]) for row in own]
        table["unstable"] = [int(float(row["stab"]) > 0) for row in own]
        write_csv(out / f"quartile-{number + 1}.csv", table)
        print(f"quartile-{number + 1}: {len(own)} grids")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.grid.make_data", description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "data", help="folder to write to (default: %(default)s)")
    parser.add_argument("--records", type=int, help="operating points of each region, in place of its own number")
    parser.add_argument("--seed", type=int, default=0, help="another draw of everything")
    parser.add_argument("--stability", type=Path, metavar="FOLDER", help=f"folder that holds {STABILITY}")
    arguments = parser.parse_args()
    write_regions(arguments.out, records=arguments.records, seed=arguments.seed)
    if arguments.stability:
        write_stability(arguments.stability, arguments.out)


if __name__ == "__main__":
    main()
