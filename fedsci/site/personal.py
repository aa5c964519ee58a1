"""The shared model adapted to one lab's records, or with layers of the lab's own: models which stay at the lab."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from fedsci import names
from fedsci.config.plan import Plan
from fedsci.data.table import Table
from fedsci.identity.files import replace_private
from fedsci.site.memory import OWN_MODEL, PERSONAL_MODEL
from fedsci.strategies.base import finite
from fedsci.training.device import Device
from fedsci.training.learner import Learner, Pull, module_for
from fedsci.training.models import layout_of
from fedsci.training.schema import schema_of
from fedsci.vectors.layout import unflatten

_PROXIMAL = 0.1  # lambda of Ditto where the study gives none


def personal_model(
    plan: Plan, name: str, table: Table, shared: NDArray[np.float32], *, device: Device
) -> NDArray[np.float32]:
    """Return the shared model adapted to a lab's records as ``study.personalise`` says, float32 ``(d,)``.

    No privacy: it is for use inside the lab. The same for the same plan, lab and shared model, bit for bit. Ditto
    (Li et al. 2021) is solved after the federation and from the shared model on, not beside it round by round.

    Args:
        plan: the study's.
        name: the lab's; separates the shuffles of labs.
        table: its training records.
        shared: the model after the last round, float32 ``(d,)``.
        device: where tensors live.

    Raises:
        RoundAborted: training diverged.
        InputError: ``shared`` does not fit the plan's model.
    """
    plan, shared = plan.without_privacy(), np.array(shared)  # what came in a message cannot be written to
    wanted, training = plan.study.personalise, plan.training
    pull = None
    if wanted.method == "ditto":
        pull = Pull(start=shared, proximal=_PROXIMAL if wanted.proximal is None else wanted.proximal)
    text = f"fedsci personal|{plan.study.seed}|{name}"
    update = Learner(plan=plan, table=table, device=device).local_update(
        shared,
        epochs=wanted.epochs,
        batch_size=training.batch_size,
        learning_rate=wanted.learning_rate or training.learning_rate,
        momentum=training.momentum,
        rng=np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(text.encode()).digest(), "big"))),
        pull=pull,
        intercept_only=wanted.method == "local_intercept",
    )
    with np.errstate(over="ignore", invalid="ignore"):
        return finite(shared + update)


def keep_personal_model(
    folder: Path, plan: Plan, *, run: str, shared: NDArray[np.float32], personal: NDArray[np.float32]
) -> Path:
    """Write a lab's personal model, and beside it what it is, for its operator only; return the model's file.

    Args:
        folder: the run's, at the site.
        plan: the study's.
        run: its id.
        shared: what was adapted.
        personal: the personal model.
    """
    about = {
        "personalise": plan.study.personalise.model_dump(mode="json"),
        "privacy": "none: trained on this lab's records without noise, for use inside the lab only",
    }
    return _keep(folder / PERSONAL_MODEL, plan, run=run, shared=shared, model=personal, about=about)


def keep_own_model(
    folder: Path, plan: Plan, *, run: str, shared: NDArray[np.float32], own: NDArray[np.float32]
) -> Path:
    """Write the model that a lab uses where the strategy lets it keep layers of its own; return its file.

    Args:
        folder: the run's, at the site.
        plan: the study's.
        run: its id.
        shared: what came from the coordinator.
        own: the same with the lab's own layers.
    """
    about = {
        "strategy": plan.recipe.name,
        "privacy": "none: this lab's own layers were trained without noise, for use inside the lab only",
    }
    return _keep(folder / OWN_MODEL, plan, run=run, shared=shared, model=own, about=about)


def _keep(
    file: Path,
    plan: Plan,
    *,
    run: str,
    shared: NDArray[np.float32],
    model: NDArray[np.float32],
    about: dict[str, Any],
) -> Path:
    schema = schema_of(plan.study)
    layout = layout_of(module_for(plan, inputs=schema.width))
    content = save(unflatten(model, layout))
    about = {
        "digest": names.digest(content),
        "tensors": layout.to_json(),
        "study": plan.study.study,
        "plan_digest": plan.digest,
        "run": run,
        "model": plan.study.model.model_dump(mode="json"),
        "inputs": list(schema.encoded_names),
        "shared_digest": names.digest(save(unflatten(shared, layout))),
        **about,
    }
    replace_private(file, content)
    replace_private(file.with_suffix(".json"), (json.dumps(about, indent=2) + "\n").encode())
    return file
