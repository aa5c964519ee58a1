"""A lab of the built-in digits study sends what it likes: which of its sums alarm, and is it found.

Usage: python benches/bench_liars.py [--rounds 30] [--epsilon 3] [--seeds 1] [--set KEY=VALUE]

Whole simulated runs, masks and noise included; only the last lab's upload is changed, from round ``--from`` on. ``x5``
sends five times what it should, noise and all; ``x-1`` turns it round; ``most`` sends what is most for its records, all
their gradients alike and at the clipping norm; ``quiet`` sends zeros. Shown are the largest norm of a sum over its
bound, rounds with alarms and with warnings, what was found, rounds applied, and the accuracy, each for every seed.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fedsci.cli.progress import SilentDisplay
from fedsci.config.masking import grid_for
from fedsci.config.shipped import shipped
from fedsci.config.study_file import load_study
from fedsci.simulation.run import SimulatedRun
from fedsci.site.charging import cost_for
from fedsci.site.service import SiteService

ATTACKS = ("none", "x-1", "x2", "x5", "x-5", "x20", "x50", "x100", "x1000", "most", "most x5", "most x20", "quiet")


def lying(attack: str, liar: str, first: int) -> Any:
    """Return the service of labs of which one lies from round ``first`` on."""

    class Service(SiteService):
        def _send(self, upload: Any, contribution: Any, metrics: Any, fields: Any) -> Any:
            request = upload.request
            if self.site.site == liar and request.action == "train" and request.fields["round"] >= first:
                contribution = self._spoilt(self._active(request.fields["run"]), contribution)
            return super()._send(upload, contribution, metrics, fields)

        def _spoilt(self, active: Any, contribution: Any) -> Any:
            cost, data = cost_for(active.plan), active.data
            step = cost.share.gamma if cost is not None and cost.share is not None else 1.0
            changed = contribution.astype(np.float64)
            kind, *factor = attack.split(" x")
            if kind.startswith("x"):
                changed *= float(kind[1:])
            elif kind == "most":
                norm = data.train_count * active.plan.study.privacy.clipping_norm / step
                changed = np.full(changed.shape, norm / np.sqrt(changed.size)) * float((factor or ["1"])[0])
            elif kind == "quiet":
                changed[:] = 0
            if contribution.dtype.kind == "i":
                bound = grid_for(active.plan).site_bound
                changed = np.rint(np.clip(changed, -bound, bound))
            return changed.astype(contribution.dtype)

    return Service


def run(attack: str, settings: list[str], *, seed: int, first: int) -> dict[str, Any]:
    """Return the summary of one run, with the lines of its rounds."""
    study = load_study(shipped("examples") / "digits" / "study.yaml", overrides=settings, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        simulated = SimulatedRun(
            study=study,
            engine="local",
            state=None,
            out=Path(folder),
            display=SilentDisplay(),
            service=lying(attack, str(study.plan.sites[-1]), first),
        )
        try:
            summary = simulated.run()
        except Exception as error:  # a bench shows how it ended
            return {"error": f"{type(error).__name__}: {error}"}
        path = simulated.folder.path if simulated.folder is not None else Path(folder)
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return {"summary": summary, "lines": lines}


def main() -> None:
    """Print a row an attack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--epsilon", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--from", type=int, default=1, dest="first")
    parser.add_argument("--set", action="append", default=[], dest="more")
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS))
    arguments = parser.parse_args()
    settings = [f"training.rounds={arguments.rounds}", f"privacy.epsilon={arguments.epsilon}"]
    settings += ["evaluation.baselines=[]", *arguments.more]
    for attack in arguments.attacks:
        for seed in range(1, arguments.seeds + 1):
            print(f"{attack:<10}{row(run(attack, settings, seed=seed, first=arguments.first))}", flush=True)


def row(found: dict[str, Any]) -> str:
    """Return a run's line."""
    if "error" in found:
        return found["error"]
    summary, norms = found["summary"], [line["norm"] for line in found["lines"] if line["norm"]]
    bounded = [one for one in norms if one["bound"]]
    ratio = max((one["sum"] / one["bound"] for one in bounded), default=float("nan"))
    alarms = sum(one["alarm"] is not None for one in norms)
    warnings = sum(one["warning"] is not None for one in norms)
    blame = summary["blame"]
    named = ",".join(blame["named"]) or "not found" if blame else "-"
    accuracy = summary["metrics"]["federated"]
    value = accuracy["accuracy"] if accuracy else float("nan")
    applied = summary["rounds_completed"]
    return f"{ratio:8.3f} {alarms:4d} alarms {warnings:4d} warnings  {named:<10} {applied:3d} applied  {value:.3f}"


if __name__ == "__main__":
    main()
