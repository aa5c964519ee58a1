"""Makes ``runs.py`` importable: tests are not a package."""

import importlib.util
import sys
from pathlib import Path

NAME = "fedsci_test_runs"
if NAME not in sys.modules:
    spec = importlib.util.spec_from_file_location(NAME, Path(__file__).with_name("runs.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
