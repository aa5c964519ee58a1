"""Imports point one way, the core is pure, and nothing dangerous is called; read from the source itself."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fedsci

ROOT = Path(fedsci.__file__).parent
TIERS = [
    {"errors"},
    {"names"},
    {"vectors", "privacy", "secagg"},
    {"strategies"},
    {"config", "data", "identity"},
    {"training", "audit", "registry", "transport"},
    {"site", "coordinator"},
    {"simulation", "reporting"},
    {"redteam"},
    {"cli"},
]
TIER = {part: number for number, parts in enumerate(TIERS) for part in parts}
PURE = {"errors", "names", "vectors", "privacy", "secagg", "strategies"}
IMPURE = {"torch", "flwr", "pydantic", "logging", "os", "time", "random", "socket", "datetime", "pathlib"}
ONLY_IN = {"torch": "training", "opacus": "training", "flwr": "transport"}
NEVER = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
DANGEROUS_CALLS = {
    "eval",
    "exec",
    "yaml.load",
    "yaml.load_all",
    "yaml.unsafe_load",
    "yaml.full_load",
    "torch.load",
    "os.system",
}
MODULES = sorted(ROOT.rglob("*.py"))


def part_of(path: Path) -> str:
    inside = path.relative_to(ROOT).parts
    return inside[0].removesuffix(".py")


def imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that this test can read them"
            module = node.module or ""
            found |= {f"{module}.{alias.name}" for alias in node.names} if module == "fedsci" else {module}
    return found


def faults(part: str, source: str) -> list[str]:
    """What is wrong with the imports of one module of ``part``."""
    found = []
    for name in imports(ast.parse(source)):
        top, _, rest = name.partition(".")
        if top == "fedsci" and rest and rest != "__version__":
            other = rest.split(".")[0]
            if other != part and TIER[other] >= TIER[part]:
                found.append(f"{part} imports {name}")
        if part in PURE and top in IMPURE:
            found.append(f"{part} is pure and imports {name}")
        if top in ONLY_IN and part != ONLY_IN[top]:
            found.append(f"{top} belongs to {ONLY_IN[top]}, {part} imports it")
        if top in NEVER:
            found.append(f"{part} imports {name}")
    return found


def dangers(source: str) -> list[str]:
    """Calls that run or unpickle what a file says."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            found.append(f"line {node.lineno}: assert is not a check, python -O drops it")
        if not isinstance(node, ast.Call):
            continue
        name, keywords = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        if name in DANGEROUS_CALLS:
            found.append(f"line {node.lineno}: {name}")
        if name in ("np.load", "numpy.load") and keywords.get("allow_pickle") != "False":
            found.append(f"line {node.lineno}: {name} without allow_pickle=False")
        if keywords.get("shell") == "True":
            found.append(f"line {node.lineno}: a shell")
    return found


def names_of(path: Path) -> str:
    return str(path.relative_to(ROOT.parent))


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent != ROOT or p.stem in TIER], ids=names_of)
def test_imports_point_one_way(path):
    assert part_of(path) in TIER, "a new package needs a place in DESIGN section 3"
    assert faults(part_of(path), path.read_text()) == []


@pytest.mark.parametrize("path", MODULES, ids=names_of)
def test_nothing_read_from_a_file_is_run(path):
    assert dangers(path.read_text()) == []


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("vectors", "import torch"),
        ("vectors", "from fedsci.privacy import clipping"),
        ("config", "from fedsci.data.table import Table"),
        ("strategies", "from fedsci.config.plan import Plan"),
        ("site", "from fedsci.coordinator.round import run_round"),
        ("site", "def late():\n    import torch.nn"),
        ("site", "from flwr.app import Message"),
        ("coordinator", "from fedsci import simulation"),
        ("errors", "from fedsci import names"),
        ("data", "import pickle"),
    ],
)
def test_a_wrong_import_is_noticed(part, source):
    assert faults(part, source)


@pytest.mark.parametrize(
    "source",
    ["yaml.load(x, Loader=yaml.Loader)", "eval(x)", "np.load(x)", "np.load(x, allow_pickle=True)", "assert x"],
)
def test_a_dangerous_call_is_noticed(source):
    assert dangers(source)


def test_every_yaml_loader_is_a_safe_one():
    loaders = [
        ast.unparse(base)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if "Loader" in ast.unparse(base)
    ]
    assert set(loaders) <= {"yaml.SafeLoader"}


def test_the_core_runs_without_torch_and_flower():
    code = (
        "import sys, fedsci.strategies, fedsci.vectors.layout, fedsci.privacy.local_noise\n"
        "print(sorted({'torch', 'flwr', 'pydantic', 'opacus'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
