"""Write the data of the hospitals study: ``python -m examples.biosecurity.make_data``, from the repository's top.

The patients are generated (:mod:`examples.biosecurity.hospitals`). The imaging study needs no files.
"""

import argparse
from pathlib import Path

from examples.biosecurity.hospitals import HOSPITALS, admit
from examples.csv_file import write_csv

HERE = Path(__file__).parent


def write_hospitals(out: Path, *, records: int | None = None, seed: int = 0) -> None:
    """Write ``hospital-1.csv`` to ``hospital-4.csv``."""
    for hospital in HOSPITALS:
        columns = admit(hospital, records=records, seed=seed)
        write_csv(out / f"{hospital.name}.csv", columns)
        ill = columns["disease"].count(1)
        print(f"{hospital.name}: {len(columns['disease'])} patients, {ill} with the disease")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.biosecurity.make_data", description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "data", help="folder to write to (default: %(default)s)")
    parser.add_argument("--records", type=int, help="patients of each hospital, in place of its own number")
    parser.add_argument("--seed", type=int, default=0, help="another draw of everything")
    arguments = parser.parse_args()
    write_hospitals(arguments.out, records=arguments.records, seed=arguments.seed)


if __name__ == "__main__":
    main()
