"""The models that a lab has for itself: trained on its records alone, or the shared one adapted to them."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsci.errors import PolicyRefused
from fedsci.site.alone import alone_with
from fedsci.site.charging import cost_for
from fedsci.site.log import SiteLog
from fedsci.site.personal import keep_personal_model, personal_model
from fedsci.site.round import contributor, train_alone
from fedsci.site.upload import ActiveRun


class OwnModels:
    """Those of one run.

    Args:
        site: the site's name.
        run: 32 hexadecimal digits.
        folder: the run's, in the site's state folder.
        log: the site's.
    """

    def __init__(self, site: str, run: str, folder: Path, log: SiteLog) -> None:
        self._site, self._run, self._folder, self._log = site, run, folder, log

    def train(self, active: ActiveRun, *, private: bool) -> tuple[NDArray[np.float32], ActiveRun]:
        """Return a model of this lab's own, and the study as it was run for it; the records may be scaled otherwise."""
        plan, data = alone_with(active.plan, active.data, private=private)
        worker = contributor(
            plan,
            self._site,
            data.train,
            public_records=data.train_count,
            cost=cost_for(plan, alone=True) if private else None,
            device=active.worker.learner.device,
            random_bytes=os.urandom,
        )
        return train_alone(worker), replace(active, plan=plan, data=data)

    def personalise(self, active: ActiveRun, shared: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the shared model adapted to this lab's records, kept in the run's folder for its operator."""
        device = active.worker.learner.device
        model = personal_model(active.plan, self._site, active.data.train, shared, device=device)
        file = keep_personal_model(self._folder, active.plan, run=self._run, shared=shared, personal=model)
        self._log.write("personalised", run=self._run, file=str(file))
        return model

    def only_once(self, what: str) -> None:
        """Pass once in a run, whichever process asks; what is computed without a charge is not computed again."""
        try:
            with (self._folder / what).open("x") as mark:
                os.fsync(mark.fileno())
        except FileExistsError:
            message = f"{what} was already answered in this run"
            raise PolicyRefused(message, public=message) from None
