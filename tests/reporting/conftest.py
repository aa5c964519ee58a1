"""Makes this folder's helpers importable: tests are not a package."""

import importlib.util
import sys
from pathlib import Path

for part in ("pages", "logged", "chromium"):
    name = f"fedsci_test_{part}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{part}.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
