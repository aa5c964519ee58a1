"""The examples as a package of the checkout, and the fixtures of ``tests/cli/program.py``."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

NAME = "fedsci_test_program"
if NAME not in sys.modules:
    spec = importlib.util.spec_from_file_location(NAME, ROOT / "tests" / "cli" / "program.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[NAME])

fedsci = sys.modules[NAME].fedsci
