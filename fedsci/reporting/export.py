"""Packs a run folder for outsiders: a zip file that is an RO-Crate, with the evidence and nothing private."""

import os
import re
import stat
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedsci.coordinator.summary import SCALING
from fedsci.errors import InputError
from fedsci.reporting.crate import CRATE, crate_metadata
from fedsci.reporting.run_folder import SUMMARY

#: What is packed; whatever else lies in a run folder (ledgers, keys, logs of labs) stays there.
PACKED = (
    r"plan\.yaml",
    r"summary\.json",
    r"metrics\.jsonl",
    r"model\.safetensors",
    r"model\.json",
    r"model_card\.md",
    r"model_card\.sig\.json",
    r"bom\.cdx\.json",
    r"privacy_statement\.md",
    r"report\.html",
    r"audit/entries\.jsonl",
    r"audit/checkpoint",
    r"audit/keys\.json",
    r"audit/manifest\.json",
    r"audit/statements/[0-9a-f]{64}\.json",
    r"audit/checkpoints/[0-9]{1,16}\.note",
)
_PACKED = re.compile(f"(?:{SCALING}/)?(?:{'|'.join(PACKED)})")
_KEY = re.compile(rb"PRIVATE KEY-----|openssh-key-v1")
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip file can say; the same for everybody


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What was written.

    Attributes:
        path: the zip file.
        files: what is in it, by name.
        left_out: what lies in the run folder and is not, files and whole folders.
    """

    path: Path
    files: tuple[str, ...]
    left_out: tuple[str, ...]


def export_run(folder: Path, out: Path | None = None, *, verify: Callable[[Path], object]) -> Packed:
    """Pack the run in ``folder`` and return what was packed; the same files give the same bytes.

    What is checked is a copy that holds the packed files only, so an outsider can check the same.

    Args:
        folder: the run folder.
        out: the file to write, which must not exist yet; ``<run>.zip`` here if left out.
        verify: raises if the run does not check out; then nothing is written.

    Raises:
        InputError: no run folder, a link or a private key among what would be packed, or the file cannot be written.
        VerificationFailed: from ``verify``.
    """
    if not (folder / SUMMARY).is_file():
        raise InputError(f"{folder} holds no {SUMMARY}", hint="give the folder of a run that is over")
    target = Path(f"{folder.resolve().name}.zip") if out is None else out
    if target.exists():
        raise InputError(f"{target} is there already", hint="give another name with --out")
    names, left_out = _chosen(folder)
    contents = {name: _read(folder, name) for name in names}
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / folder.resolve().name
        for name, content in contents.items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(content)
        verify(copy)
        contents[CRATE] = crate_metadata(copy, contents)
    try:
        _write(target, contents)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror}", hint="choose another file with --out") from None
    return Packed(path=target, files=tuple(sorted(contents)), left_out=left_out)


def _chosen(folder: Path) -> tuple[list[str], tuple[str, ...]]:
    """Return what is packed, and what is not: a folder in which nothing is packed counts as one."""
    chosen: list[str] = []
    rest: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=False):
        inside = Path(place).relative_to(folder)
        for name in [*files, *(each for each in folders if (Path(place) / each).is_symlink())]:
            path = (inside / name).as_posix()
            if _PACKED.fullmatch(path):
                chosen.append(path)
            else:
                rest.add(path)
    tops = {name.split("/")[0] for name in chosen}
    return sorted(chosen), tuple(sorted({name if name.split("/")[0] in tops else _top(name) for name in rest}))


def _top(name: str) -> str:
    first, slash, _ = name.partition("/")
    return first + slash


def _read(folder: Path, name: str) -> bytes:
    """Return a file's content; no link is followed, of the file or of a folder above it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        *above, last = name.split("/")
        for part in above:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
            os.close(handle)
            handle = inner
        file = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=handle)
        with os.fdopen(file, "rb") as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise InputError(f"{folder / name} is no plain file", hint="a run writes plain files only")
            content = opened.read()
    except OSError as error:
        raise InputError(
            f"{folder / name} cannot be packed: {error.strerror}", hint="a run writes plain files, and no links"
        ) from None
    finally:
        os.close(handle)
    if _KEY.search(content):
        raise InputError(f"{folder / name} holds a private key", hint="take it out, and make a new key")
    return content


def _write(target: Path, contents: dict[str, bytes]) -> None:
    handle, draft = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            for name in sorted(contents):
                # stored, not compressed: compressors of different machines give different bytes
                entry = zipfile.ZipInfo(name, date_time=_DATE)
                entry.create_system, entry.external_attr = 3, 0o644 << 16
                archive.writestr(entry, contents[name])
        Path(draft).chmod(0o644)
        Path(draft).replace(target)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
