"""The fixtures of ``tests/cli/program.py``, here too."""

import importlib.util
import sys
from pathlib import Path

NAME = "fedsci_test_program"
if NAME not in sys.modules:
    spec = importlib.util.spec_from_file_location(NAME, Path(__file__).parents[1] / "cli" / "program.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[NAME])

fedsci = sys.modules[NAME].fedsci
study = sys.modules[NAME].study
