"""What a strategy keeps at a site from round to round: vectors that follow from the site's data and never leave it."""

from collections.abc import Iterator, MutableMapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from fedsci.identity.files import replace_private
from fedsci.site.kept_arrays import read_kept

#: The shared model adapted to the site's records, in the run's folder; it stays when the study is over.
PERSONAL_MODEL = "personal_model.safetensors"
#: The shared model with the layers that the strategy lets the site keep; likewise.
OWN_MODEL = "own_model.safetensors"


class StrategyMemory(MutableMapping[str, NDArray[np.float32]]):
    """Vectors by name in one file of a run's folder, readable by its owner only.

    Args:
        folder: the run's, at the site.

    Raises:
        InputError: the file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "memory.safetensors"
        self._kept: dict[str, NDArray[np.float32]] = read_kept(self._file)
        self._changed = False

    def store(self) -> None:
        """Write changes down, durably; on return a crash cannot lose them."""
        if self._changed:
            replace_private(self._file, save(self._kept))
            self._changed = False

    def erase(self) -> None:
        """Forget everything: the study is over."""
        self._kept, self._changed = {}, False
        self._file.unlink(missing_ok=True)

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return self._kept[name]

    def __setitem__(self, name: str, vector: NDArray[np.float32]) -> None:
        self._kept[name] = np.ascontiguousarray(vector, np.float32)
        self._changed = True

    def __delitem__(self, name: str) -> None:
        del self._kept[name]
        self._changed = True

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)
