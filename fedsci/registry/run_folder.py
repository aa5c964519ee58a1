"""What a run leaves behind: a folder that can be read at any moment, also after a crash."""

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from safetensors.numpy import save

from fedsci import names
from fedsci.errors import InputError
from fedsci.vectors.layout import Layout, unflatten


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """Writes the files of one run.

    Attributes:
        path: the folder.
    """

    path: Path

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all, durably.

        Raises:
            InputError: the disk is full, or the folder cannot be written.
        """
        target, partial = self.path / name, self.path / f".{name}.partial"
        try:
            partial.unlink(missing_ok=True)  # a folder from elsewhere may hold a link of that name: it is not followed
            with partial.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise _cannot_write(target, error) from None

    def contents(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the files of these names that are there."""
        return {name: (self.path / name).read_bytes() for name in names if (self.path / name).is_file()}

    def write_audit(self, name: str, content: bytes) -> None:
        """Write a file of the audit log's folder, as :meth:`write` does."""
        try:
            (self.path / "audit").mkdir(exist_ok=True)
        except OSError as error:
            raise _cannot_write(self.path / "audit", error) from None
        RunFolder(path=self.path / "audit").write(name, content)

    def adopt(self, other: Path, name: str) -> None:
        """Move the run folder ``other`` into this one, where it is called ``name``.

        Raises:
            InputError: it cannot be moved.
        """
        try:
            other.rename(self.path / name)
        except OSError as error:
            raise _cannot_write(self.path / name, error) from None

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Write JSON; NaN and infinity are refused rather than written as invalid JSON."""
        self.write(name, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        """Write ``plan.yaml``."""
        self.write("plan.yaml", yaml.safe_dump(dict(plan), sort_keys=False, allow_unicode=True).encode())

    def append_metrics(self, values: Mapping[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``.

        Raises:
            InputError: the disk is full, or the folder cannot be written.
        """
        target = self.path / "metrics.jsonl"
        try:
            with target.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values, allow_nan=False) + "\n")
        except OSError as error:
            raise _cannot_write(target, error) from None

    def settle_metrics(self) -> set[int]:
        """Drop a last line of ``metrics.jsonl`` that a crash left half written; return the rounds that are there.

        Raises:
            InputError: a line before the last one is damaged, which no crash of ours does.
        """
        target, rounds, whole = self.path / "metrics.jsonl", set(), []
        lines = target.read_bytes().splitlines() if target.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                rounds.add(int(json.loads(line)["round"]))
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                if number == len(lines):
                    break
                raise InputError(
                    f"line {number} of {target} is damaged", hint="restore the run's folder from a backup"
                ) from None
            whole.append(line + b"\n")
        if rounds:
            self.write("metrics.jsonl", b"".join(whole))
        return rounds

    def write_model(self, vector: NDArray[np.float32], layout: Layout, about: Mapping[str, Any]) -> names.Digest:
        """Write ``model.safetensors`` and ``model.json``, and return the model file's digest."""
        content = model_content(vector, layout)
        self.write("model.safetensors", content)
        model_digest = names.digest(content)
        self.write_json("model.json", {"digest": model_digest, "tensors": layout.to_json(), **about})
        return model_digest


def model_content(vector: NDArray[np.float32], layout: Layout) -> bytes:
    """Return what ``model.safetensors`` holds of a model: the same bytes whenever it is asked for."""
    return save(unflatten(vector, layout))


def create_run_folder(parent: Path, *, study: str, plan_digest: str) -> RunFolder:
    """Return a new folder ``parent/<study>-<UTC time>-<short digest>``.

    Raises:
        InputError: it cannot be made.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    name = f"{study}-{stamp}-{plan_digest.removeprefix('sha256:')[:8]}"
    for suffix in ["", *(f"-{n}" for n in range(2, 1000))]:
        path = parent / (name + suffix)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if path.is_dir():
                continue
            raise InputError(f"{parent} is a file, not a folder", hint="choose another --out") from None
        except OSError as error:
            raise _cannot_write(path, error) from None
        return RunFolder(path=path)
    raise InputError(f"{parent} already holds a thousand runs of this second")


def _cannot_write(path: Path, error: OSError) -> InputError:
    if isinstance(error, NotADirectoryError):
        file = next((parent for parent in path.parents if parent.is_file()), path)
        return InputError(f"{file} is a file, not a folder", hint="choose another folder with --out")
    return InputError(
        f"cannot write {path}: {error.strerror or error}",
        hint="free some space or choose another folder with --out; what was spent of privacy budgets stays spent",
    )
