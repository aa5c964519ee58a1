"""Write the corpus's valid seeds anew, made by the code that they are for: ``python -m tests.fuzz.make_seeds``."""

from tests.fuzz.engine import CORPUS
from tests.fuzz.targets import TARGETS


def main() -> None:
    """Write ``seed-*`` of every target whose seeds are kept; inputs that fuzzing found stay."""
    for target in TARGETS.values():
        if target.fresh:
            continue
        folder = CORPUS / target.name
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("seed-*"):
            path.unlink()
        for name, content in target.seeds().items():
            (folder / f"seed-{name}").write_bytes(content)


if __name__ == "__main__":
    main()
