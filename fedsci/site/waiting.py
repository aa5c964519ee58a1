"""What a site has made of a model and not yet sent, in studies whose rounds are buffers."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from fedsci.config.plan import Plan
from fedsci.errors import PolicyRefused
from fedsci.identity.files import replace_private
from fedsci.names import Digest, digest
from fedsci.site.kept_arrays import damaged, read_kept
from fedsci.strategies.base import BufferedStrategy
from fedsci.transport.messages import Request

_ALL = ("contribution", "model", "version")


class Waiting:
    """At most one contribution, in one file of a run's folder, readable by its owner only.

    Args:
        folder: the run's, at the site.

    Attributes:
        version: of the model that this site trained on last: rounds applied to it; None before the first.
        model: that model's digest; None where the contribution was sent, or given up.
        sent: the last sum that this site masked something for: its slot, and the model that each site of a buffer
            trained on; nobody's where it was a measurement.

    Raises:
        InputError: the file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "waiting.safetensors"
        kept = read_kept(self._file)
        whole = all(name in kept for name in _ALL)
        self._contribution: NDArray[np.float32] | None = kept["contribution"] if whole else None
        self.sent: tuple[int, dict[str, int]] | None = None
        try:
            self.version: int | None = int(kept["version"][0]) if "version" in kept else None
            self.model: Digest | None = Digest(bytes(kept["model"]).decode("ascii")) if whole else None
            if "sent" in kept:
                slot, trained = json.loads(bytes(kept["sent"]))
                self.sent = slot, dict(trained)
        except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
            raise damaged(self._file) from None

    def require_newer(self, version: int) -> None:
        """Pass if this site has not trained on this model, or a later one.

        Raises:
            PolicyRefused: it has.
        """
        if self.version is not None and version <= self.version:
            raise _unfit(f"the model after round {version} came already, or one after it: each is trained on once")

    def keep(self, version: int, model: NDArray[np.float32], contribution: NDArray[np.float32]) -> None:
        """Keep what was made of a model, durably; an earlier contribution that nobody asked for is given up."""
        self.version, self.model = version, digest(model.tobytes())
        self._contribution = np.ascontiguousarray(contribution, np.float32)
        self._store()

    def take(self, slot: int, trained: Mapping[str, int]) -> NDArray[np.float32]:
        """Return the contribution, and forget it, durably: it is masked once, whatever happens to the answer.

        Args:
            slot: that it is for.
            trained: the model that each of its sites trained on; kept for :meth:`require_together`.

        Raises:
            PolicyRefused: none waits.
        """
        contribution = self._contribution
        if contribution is None:
            raise _unfit("nothing waits here to be sent")
        self.model = self._contribution = None
        self.sent = slot, dict(trained)
        self._store()
        return contribution

    def measured(self, slot: int) -> None:
        """Write down, durably, that what this site is about to mask in a slot was made of no model."""
        self.sent = slot, {}
        self._store()

    def require_together(self, plan: Plan, slot: int, survivors: Collection[str]) -> None:
        """Pass if no model's sites are so few among a slot's survivors that their sum could be told apart.

        Raises:
            PolicyRefused: they are, or the slot is not the last one that this site masked something for.
        """
        if self.sent is None or self.sent[0] != slot:
            raise _unfit(f"this site sent nothing in slot {slot}, or has moved on")
        _require_classes(plan, [version for site, version in self.sent[1].items() if site in survivors])

    def erase(self) -> None:
        """Forget everything: the study is over."""
        self.version = self.model = self._contribution = self.sent = None
        self._file.unlink(missing_ok=True)

    def staleness(self, plan: Plan, site: str, request: Request) -> int:
        """Return how many models have come since the one that the waiting contribution was trained on.

        Every site of a buffer is told which model each of them trained on, and each model's digest; what it is told is
        bound into its masks. This site checks what is said of itself, so that two sites whose models differ under one
        number never cancel each other's masks; and that no model is that of too few.

        Raises:
            PolicyRefused: what the request says is not what this site holds.
        """
        current = request.integer("round") - 1
        trained, models = request.fields.get("trained"), request.fields.get("models")
        if not isinstance(trained, dict) or not isinstance(models, dict) or not set(trained) <= set(plan.sites):
            raise _unfit("a buffer says which model each of its sites trained on")
        if not all(type(version) is int and 0 <= version <= current for version in trained.values()):
            raise _unfit(f"models trained on are of rounds 0 to {current}")
        if set(models) != {str(version) for version in (*trained.values(), current)}:
            raise _unfit("a buffer gives one digest for each model trained on, and for the current one")
        if self.version is None or self.model is None:
            raise _unfit("nothing waits here to be sent")
        if trained.get(site) != self.version or models[str(self.version)] != self.model:
            raise _unfit("what the buffer says of the model that this site trained on is not so")
        _require_classes(plan, trained.values())
        if request.vector is not None and models[str(current)] != digest(request.vector.tobytes()):
            raise _unfit("the model that came is not the one that the buffer names")
        return current - self.version

    def _store(self) -> None:
        kept: dict[str, NDArray[np.float32] | NDArray[np.int64] | NDArray[np.uint8]] = {}
        if self.version is not None:
            kept["version"] = np.array([self.version], np.int64)
        if self._contribution is not None and self.model is not None:
            kept |= {
                "contribution": self._contribution,
                "model": np.frombuffer(self.model.encode("ascii"), np.uint8),
            }
        if self.sent is not None:
            kept["sent"] = np.frombuffer(json.dumps(self.sent).encode("ascii"), np.uint8)
        replace_private(self._file, save(kept))


def _require_classes(plan: Plan, versions: Iterable[int]) -> None:
    strategy, sizes = plan.strategy, Counter(versions)
    least = strategy.together if isinstance(strategy, BufferedStrategy) else 1
    for version, count in sizes.items():
        if count < least:
            raise _unfit(f"only {count} of the buffer's sites trained on the model after round {version}, not {least}")


def _unfit(message: str) -> PolicyRefused:
    return PolicyRefused(message, public=message)
