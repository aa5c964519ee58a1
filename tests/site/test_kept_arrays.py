"""What a site keeps of a study in work, damaged: refused by its file, never read as something else."""

import numpy as np
import pytest
from safetensors.numpy import save

from fedsci.errors import InputError
from fedsci.site.memory import StrategyMemory
from fedsci.site.waiting import Waiting

NO_SUCH_KIND = b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
DAMAGE = [b"", bytes(5), b"\xff" * 64, len(NO_SUCH_KIND).to_bytes(8, "little") + NO_SUCH_KIND + bytes(2)]


@pytest.mark.parametrize(("kind", "name"), [(StrategyMemory, "memory"), (Waiting, "waiting")])
@pytest.mark.parametrize("content", DAMAGE)
def test_a_damaged_file_is_refused_by_its_name(tmp_path, kind, name, content):
    (tmp_path / f"{name}.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}\.safetensors is damaged") as refused:
        kind(tmp_path)
    assert "backup" in refused.value.hint


@pytest.mark.parametrize(
    "values",
    [
        {"version": np.zeros(0, np.int64)},
        {"version": np.array([np.inf])},
        {"sent": np.frombuffer(b"[1]", np.uint8)},
        {"sent": np.frombuffer(b"{", np.uint8)},
        {"sent": np.frombuffer(b"[1, 2]", np.uint8)},
        {"contribution": np.zeros(1), "model": np.array([255], np.uint8), "version": np.array([1])},
    ],
)
def test_what_waits_is_whole_or_refused(tmp_path, values):
    (tmp_path / "waiting.safetensors").write_bytes(save(values))
    with pytest.raises(InputError, match="is damaged"):
        Waiting(tmp_path)
