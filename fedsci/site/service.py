"""The site process: requests in, gate and ledger first, then data, then a reply. The same in every engine."""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import threading
import traceback
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsci.audit.statement import sign_statement
from fedsci.audit.witness import Witness
from fedsci.config.plan import Plan
from fedsci.config.plan_checks import plan_from_bytes
from fedsci.config.site import Policy, Site
from fedsci.errors import (
    ConfigError,
    DataError,
    FedsciError,
    InputError,
    PolicyRefused,
    RoundAborted,
)
from fedsci.identity.files import replace_private
from fedsci.names import Digest
from fedsci.site.charging import Charging, cost_for, dimension_of
from fedsci.site.dataset import content_digest, load_site_data
from fedsci.site.gate import allows_no_privacy, check_delta, check_policy
from fedsci.site.keystore import Keystore
from fedsci.site.ledger import Ledger, open_ledger
from fedsci.site.log import SiteLog
from fedsci.site.masking import SiteMasking
from fedsci.site.memory import StrategyMemory
from fedsci.site.own_models import OwnModels
from fedsci.site.pace import steps_in
from fedsci.site.permit import Permit
from fedsci.site.permit_check import check_first, check_round, second_signers
from fedsci.site.permitting import Permitting
from fedsci.site.personal import keep_own_model
from fedsci.site.record import published, site_record
from fedsci.site.round import contributor
from fedsci.site.upload import ActiveRun, Upload
from fedsci.site.waiting import Waiting
from fedsci.site.witnessing import RunWitness
from fedsci.strategies.base import BufferedStrategy
from fedsci.training.accountant import Cost
from fedsci.training.device import pick_device
from fedsci.training.metrics import MetricSums
from fedsci.training.schema import schema_of
from fedsci.transport.binding import unpack
from fedsci.transport.messages import Reply, Request

_RUN = re.compile(r"[0-9a-f]{32}")
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_NO_DISK = "the site cannot write to its disk"
_FREE = "free some space for the site's state folder; it takes part again as soon as it can write"


class SiteService:
    """Answers requests for one site.

    State on disk (``state``): the ledger, the log, and the plan of every admitted run, so that a request may be
    answered by another process than the one that admitted the run.
    """

    def __init__(self, site: Site, state: Path) -> None:
        self.site = site
        self.state = state
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.log = SiteLog(state / "site.log")
        self.keystore = Keystore(state)
        self.permitting = Permitting(site, state)
        self.charging = Charging(site, lambda: self.ledger)
        self._ledger: Ledger | None = None
        self._runs: dict[str, ActiveRun] = {}
        self._pending: set[str] = set()
        self._lock = threading.RLock()

    @property
    def ledger(self) -> Ledger:
        """The site's ledger, opened when first needed."""
        if self._ledger is None:
            self._ledger = open_ledger(self.site, self.state)
        return self._ledger

    def handle(self, request: Request) -> Reply:
        """Answer; an error becomes its public part, its details go to the site's own log."""
        actions = {
            "hello": self._hello,
            "propose": self._propose,
            "prepare": self._prepare,
            "share": self._share,
            "begin": self._begin,
            "train": self._train,
            "evaluate": self._evaluate,
            "alone": self._alone,
            "unmask": self._unmask,
            "votes": self._votes,
            "witness": self._cosign,
            "finish": self._finish,
        }
        try:
            with self._lock, self._only_process():
                return actions[request.action](request)
        except Exception as error:
            return self.failed(request, error)

    def failed(self, request: Request, error: Exception) -> Reply:
        """Return the public part of what went wrong with a request; the details go to the site's own log."""
        if isinstance(error, OSError) and error.errno in _DISK:
            error = InputError(f"{error.filename or self.state}: {error.strerror}", hint=_FREE, public=_NO_DISK)
        self.log.error(str(request.fields.get("run", "")), request.action, error)
        if isinstance(error, FedsciError):
            return Reply(error=error.public())
        self.log.write("traceback", text="".join(traceback.format_exception(error)))
        return Reply(error=FedsciError("").public())

    @contextlib.contextmanager
    def _only_process(self) -> Iterator[None]:
        """Hold the state folder: what is read, computed and stored for a request happens as one."""
        with (self.state / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _hello(self, request: Request) -> Reply:
        return Reply(fields={"site": self.site.site, "key": self.keystore.signing_key().public.hex()})

    def _propose(self, request: Request) -> Reply:
        """Say whether a plan would be let in; nothing is charged, and no data is opened.

        With ``rules_only`` whether policy and limits let it, whatever the operator will say, who is not asked.
        """
        plan = self._plan(request.text("plan").encode())
        policy = check_policy(plan, self.site, approved=True)
        if request.fields.get("rules_only") is True:  # a study like it will follow another, and be proposed itself
            self.charging.check_cost(plan, policy)
            return Reply(fields={"approval": "given"})
        if not self.permitting.needs_word(plan):
            return Reply(fields={"approval": "given"})
        answer = self.permitting.approvals.ask(plan)
        if answer == "pending" and plan.digest not in self._pending:
            self._pending.add(plan.digest)  # it is asked again every few seconds
            self.log.write("pending", plan=plan.digest, study=plan.study.study)
        return Reply(fields={"approval": answer})

    def _prepare(self, request: Request) -> Reply:
        run, written = _run_id(request), request.text("plan").encode()
        plan = self._plan(written)
        if self._run_folder(run).exists():
            raise PolicyRefused(
                f"{self.site.site}: run {run} was asked for before", public="this run was asked for before"
            )
        policy = check_policy(plan, self.site, approved=True)  # every rule but the operator's word: that is the permit
        folder = self._run_folder(run)
        folder.mkdir(parents=True)
        try:
            # written before anything is charged: a full disk shows here
            (folder / "plan.new").write_bytes(written)
            digest = cache(partial(self._content, plan))
            given = self.permitting.find(plan, ledger=self.ledger, content=digest)
            content = digest()
            (folder / "content").write_text(content, encoding="ascii")
            masked = plan.study.secure_aggregation.enabled
            (folder / "roster").write_text(str(request.fields.get("roster", "")) if masked else "", encoding="ascii")
            (folder / "permit.json").write_bytes(given.envelope)
            self.permitting.use(given, plan, run)
            cost, paid = self.charging.charge(run, plan, policy, content)
            try:
                masking, joined = self._join(request, run, plan)
                if plan.study.audit_log.enabled:
                    second = self._second_key(policy, given.permit).get("second_key", "")
                    joined |= self._witness(run, plan, masking).join(request, second=second)
                active = self._activate(plan, policy, cost, masking, content, given.permit)
                (folder / "plan.new").rename(folder / "plan.json")
            except BaseException:
                self.keystore.forget(run)
                if cost is not None:  # nothing was computed, so nothing stays charged
                    budget = self.charging.budget(plan.study.dataset)
                    self.ledger.settle(plan.study.dataset, run, policy=budget, used=cost.events)
                raise
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._runs[run] = active
        self.log.write("admitted", run=run, plan=plan.digest, permit=given.digest, report=active.data.report)
        schema = schema_of(plan.study)
        return Reply(
            fields={
                "records": {"train": active.data.train_count, "holdout": active.data.holdout_count},
                "inputs": schema.width,
                "parameters": dimension_of(plan),
                "schema": schema.digest(),
                "exact_evaluation": policy.exact_evaluation,
                "privacy": self.charging.privacy(plan, cost, (0, 0), charged=paid),
                "rounds_allowed": paid.rounds,
                "measurements_allowed": paid.measurements,
                "stops": self.charging.stops(plan.study.dataset),
                "permit": given.envelope.decode(),
            }
            | self._record(plan.study.dataset)
            | self._second_key(policy, given.permit)
            | joined
        )

    def _record(self, dataset: str) -> dict[str, str]:
        """Return the data set's record, signed; nothing where it has none."""
        record = site_record(self.site, dataset)
        if record is None:
            return {}
        body = {"site": self.site.site, "dataset": dataset, "record": published(record, self.keystore)}
        return {"record": sign_statement("record", body, [self.keystore.signing_key()]).decode()}

    def _second_key(self, policy: Policy, permit: Permit) -> dict[str, str]:
        """Return the public key of the second person who signed the permit; nothing where nobody had to."""
        second = permit.signers[1:]
        return {"second_key": second_signers(policy)[second[0]].hex()} if second else {}

    def _check_permit(self, active: ActiveRun, *, number: int | None = None) -> None:
        """Pass if the permit lets the site compute now, in this round if there is one."""
        check_round(active.permit, now=self.permitting.now, number=number)

    def _plan(self, content: bytes) -> Plan:
        """Return a plan that came; a strategy's module is imported only if the policy names it."""
        policy = self.site.policy
        try:
            return plan_from_bytes(content, modules=policy.strategies if policy is not None else ())
        except PolicyRefused as error:
            error.message = _named(self.site.site, error.message)
            raise

    def _content(self, plan: Plan) -> Digest:
        """Return the digest of what the study's data set holds now."""
        try:
            return content_digest(self.site, self.site.datasets[plan.study.dataset])
        except DataError as error:
            error.message = _named(self.site.site, error.message)
            raise

    def _join(self, request: Request, run: str, plan: Plan) -> tuple[SiteMasking | None, dict[str, str]]:
        if not plan.study.secure_aggregation.enabled:
            return None, {}
        masking = SiteMasking(self.keystore, plan, self.site.site, run, unpack(request.fields.get("roster")))
        masking.require_newest_roster()
        return masking, masking.join_setup(request)

    def _share(self, request: Request) -> Reply:
        return Reply(fields=self._masking(request).join_setup(request))

    def _begin(self, request: Request) -> Reply:
        """Train on a model and keep what comes of it until a buffer is made of it; charged now, each model once."""
        run, version = _run_id(request), request.integer("version")
        active = self._active(run)
        if active.plan.buffer is None:
            message = f"{active.plan.strategy.name} has no buffers: a round is trained and sent as one"
            raise PolicyRefused(message, public=message)
        _require_round(active.plan, version + 1)
        self._check_permit(active, number=version + 1)
        self._require_logged(active, request, after=version)
        model, waiting = _received(active, request), Waiting(self._run_folder(run))
        if version == 0:
            check_first(active.plan, model, active.permit)
        waiting.require_newer(version)
        if active.cost is not None:
            self.ledger.step(active.plan.study.dataset, run, version + 1)
        memory = StrategyMemory(self._run_folder(run))
        contribution = active.worker.contribution(model, version + 1, memory=memory)
        memory.store()
        waiting.keep(version, model, contribution.astype(np.float32, copy=False))
        return Reply()

    def _train(self, request: Request) -> Reply:
        run, number = _run_id(request), request.integer("round")
        active = self._active(run)
        _require_round(active.plan, number)
        self._check_permit(active, number=number)
        self._require_logged(active, request, after=number - 1)
        strategy, parameters = active.plan.strategy, active.worker.parameters
        if isinstance(strategy, BufferedStrategy):
            return self._train_in_buffer(active, strategy, request)
        model = _received(active, request)
        if number == 1:
            check_first(active.plan, model, active.permit)
        steps = steps_in(request, active.plan, active.worker.name, records=active.data.train_count)
        upload = Upload(active, request, slot=number - 1, dimension=strategy.width(parameters), after=number - 1)
        if upload.absent is not None:
            return upload.absent
        if active.cost is not None:
            self.ledger.step(active.plan.study.dataset, run, number)
        memory = StrategyMemory(self._run_folder(run))
        used = strategy.site_model(model[:parameters], memory)
        metrics, _ = self._measure(active, upload, used, after=number - 1)
        contribution = active.worker.contribution(model, number, memory=memory, steps=steps)
        reply = self._send(upload, contribution, metrics, {})
        memory.store()  # not of a contribution that cannot leave: one that diverged would be remembered for good
        return reply

    def _train_in_buffer(self, active: ActiveRun, strategy: BufferedStrategy, request: Request) -> Reply:
        """Send what waits here, weighted by its age; what it cost was charged when it was made."""
        run, number, parameters = _run_id(request), request.integer("round"), active.worker.parameters
        waiting = Waiting(self._run_folder(run))
        upload = Upload(active, request, slot=number - 1, dimension=strategy.width(parameters), after=number - 1)
        if upload.absent is not None:
            return upload.absent
        staleness = waiting.staleness(active.plan, active.worker.name, request)
        metrics: list[NDArray[np.float64] | NDArray[np.int64] | None] = []
        if upload.evaluate is not None:  # of the current model, which comes along only to be measured
            current = _received(active, request)
            metrics, _ = self._measure(active, upload, current[:parameters], after=number - 1)
        contribution = waiting.take(number - 1, request.fields["trained"])
        return self._send(upload, strategy.age(contribution, staleness), metrics, {})

    def _evaluate(self, request: Request) -> Reply:
        run, model = _run_id(request), request.model()
        active = self._active(run)
        self._check_permit(active)
        last = _last_round(active, request)
        self._require_logged(active, request, after=last)
        upload = Upload(active, request, slot=last, dimension=0, after=active.plan.training.rounds)
        if upload.absent is not None:
            return upload.absent
        used = self._site_model(active, run, model)
        metrics, exact = self._measure(active, upload, used, after=last, resample=True)
        if used is not model:  # the coordinator cannot give it to the lab again
            file = keep_own_model(self._run_folder(run), active.plan, run=run, shared=model, own=used)
            self.log.write("own model", run=run, file=str(file))
        return self._send(upload, None, metrics, active.own({"federated": exact}))

    def _site_model(self, active: ActiveRun, run: str, shared: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the shared model as this lab uses it; the very same array where it has nothing of its own in it."""
        return active.plan.strategy.site_model(shared, StrategyMemory(self._run_folder(run)))

    def _measure(
        self, active: ActiveRun, upload: Upload, model: NDArray[np.float32], *, after: int, resample: bool = False
    ) -> tuple[list[NDArray[np.float64] | NDArray[np.int64] | None], MetricSums | None]:
        """Return what the holdout says of a model, as asked, and exact sums where the policy lets them leave.

        Noised metrics are written down before their noise is drawn; the model after a round is measured once.
        """
        if upload.evaluate is None:
            return [], None
        if upload.evaluate == "exact":
            sums = active.measure(model, resample=resample)
            return [None if sums is None else sums.values], sums
        self.ledger.measure(active.plan.study.dataset, _run_id(upload.request), after)
        return [active.measure_noised(model, smallest=upload.smallest_holdout)], active.measure(
            model, resample=resample
        )

    def _alone(self, request: Request) -> Reply:
        """Measure what this lab has for itself: see :attr:`Plan.lab_models`. The models stay here.

        In a private study their metrics are another release about training records, and not a charged one: only labs
        that accept results without any guarantee give it. Once in a run: every model carries noise of its own, and
        the metrics of many would average it away. A personal model is kept for the operator, whether or not its
        metrics may be told.
        """
        run = _run_id(request)
        active = self._active(run)
        self._check_permit(active)
        metrics: dict[str, MetricSums | None] = dict.fromkeys(active.plan.lab_models)
        last = _last_round(active, request)
        self._require_logged(active, request, after=last)
        upload = Upload(active, request, slot=last + 1, dimension=0, tables=len(metrics))
        if upload.absent is not None:
            return upload.absent
        if upload.evaluate != "exact":
            raise PolicyRefused("what a lab reaches alone is told exactly or not at all: no noise is charged for it")
        if not metrics:
            message = "the plan compares with nothing that a lab has for itself"
            raise PolicyRefused(message, public=message)
        shared = request.model() if "personalised" in metrics else None
        if shared is not None and shared.size != active.worker.parameters:
            raise InputError(f"{shared.size} numbers came, the model has {active.worker.parameters}")
        own = OwnModels(self.site.site, run, self._run_folder(run), self.log)
        own.only_once("alone")
        tells = active.cost is None or allows_no_privacy(self.site, active.plan.study.dataset)
        for label in metrics:
            measuring = active
            told_here = tells and active.policy.exact_evaluation
            with contextlib.suppress(RoundAborted):  # it diverged: nothing to show, or to keep
                if label == "personalised" and shared is not None:
                    model = own.personalise(active, self._site_model(active, run, shared))
                elif told_here and not (label == "local" and active.worker.whole is not None):
                    model, measuring = own.train(active, private=label == "local" and active.plan.private)
                else:  # alone, a site has no others to hide among
                    continue
                metrics[label] = measuring.measure(model) if told_here else None
        told = [None if sums is None else sums.values for sums in metrics.values()]
        return self._send(upload, None, told, active.own(metrics))

    def _send(
        self,
        upload: Upload,
        contribution: NDArray[np.float32] | NDArray[np.int64] | None,
        metrics: Sequence[NDArray[np.float64] | NDArray[np.int64] | None],
        fields: dict[str, Any],
    ) -> Reply:
        active = self._active(_run_id(upload.request))
        if active.plan.buffer is not None and active.masking is not None and upload.request.action != "train":
            Waiting(self._run_folder(_run_id(upload.request))).measured(upload.request.integer("slot"))
        reply, clipped = upload.seal(contribution, metrics)
        if clipped:
            self.log.write("clipped", coordinates=clipped, action=upload.request.action)
        if upload.request.action == "train" and active.plan.study.audit_log.enabled:
            run = _run_id(upload.request)
            self._witness(run, active.plan, active.masking).sent(upload.request.integer("round"), reply)
        return Reply(fields=dict(reply.fields) | fields, vector=reply.vector)

    def _unmask(self, request: Request) -> Reply:
        masking, run = self._masking(request), _run_id(request)
        plan = self._active(run).plan
        if plan.buffer is not None:
            survivors = masking.survivors(request)
            Waiting(self._run_folder(run)).require_together(plan, request.integer("slot"), survivors)
        return Reply(fields=masking.unmask(request) | masking.join_setup(request))

    def _votes(self, request: Request) -> Reply:
        return Reply(fields=self._masking(request).votes(request))

    def _cosign(self, request: Request) -> Reply:
        """Cosign the run's log, also after the run is over; neither data nor policy is needed."""
        run = _run_id(request)
        plan, masking = self._known(run), None
        if plan.study.secure_aggregation.enabled:
            masking = SiteMasking(self.keystore, plan, self.site.site, run, self._roster(run))
        return self._witness(run, plan, masking).cosign(request)

    def _require_logged(self, active: ActiveRun, request: Request, *, after: int) -> None:
        """Pass if a log that a quorum witnesses holds all rounds up to ``after``, and what this site sent in them."""
        if active.plan.study.audit_log.enabled:
            self._witness(_run_id(request), active.plan, active.masking).require_logged(request, after=after)

    def _witness(self, run: str, plan: Plan, masking: SiteMasking | None) -> RunWitness:
        return RunWitness(
            self.keystore,
            Witness(self.state / "witness", self.state.parent / "anchors" / f"{self.site.site}-logs"),
            self._run_folder(run),
            plan,
            site=self.site.site,
            run=run,
            roster=None if masking is None else masking.roster,
        )

    def _masking(self, request: Request) -> SiteMasking:
        masking = self._active(_run_id(request)).masking
        if masking is None:
            raise PolicyRefused("this study is not masked", public="this study is not masked")
        return masking

    def _finish(self, request: Request) -> Reply:
        run = _run_id(request)
        told = self._run_folder(run) / "told.json"
        if told.exists() and not (self._run_folder(run) / "plan.json").exists():  # the answer was lost on its way
            return Reply(fields=json.loads(told.read_bytes()))
        plan = self._admitted(run)  # neither data nor policy is needed: what has changed meanwhile stops rounds only
        dataset, cost = plan.study.dataset, cost_for(plan)
        used = (0, 0)
        if cost is not None:
            used = self.ledger.settle(dataset, run, policy=self.charging.budget(dataset), used=cost.events)
        self.keystore.forget(run)
        self._runs.pop(run, None)
        StrategyMemory(self._run_folder(run)).erase()
        Waiting(self._run_folder(run)).erase()
        privacy = self.charging.privacy(plan, cost, used)
        known = {name: value for name, value in privacy.items() if value is not None}
        spend = {"run": run, "site": self.site.site, "plan": plan.digest, "dataset": dataset, "privacy": known}
        envelope = sign_statement("spend", spend, [self.keystore.signing_key()]).decode()
        fields = {"privacy": privacy, "spend": envelope}
        replace_private(told, json.dumps(fields).encode())
        with contextlib.suppress(FileNotFoundError):  # a finished run answers nothing more
            (self._run_folder(run) / "plan.json").rename(self._run_folder(run) / "finished.json")
        self.log.write("finished", run=run, rounds=used[0], measurements=used[1])
        return Reply(fields=fields)

    def _activate(
        self,
        plan: Plan,
        policy: Policy,
        cost: Cost | None,
        masking: SiteMasking | None,
        content: str,
        permit: Permit,
    ) -> ActiveRun:
        try:
            device = pick_device(self.site.device)
            data = load_site_data(plan, self.site, split_key=self.keystore.split_key())
            if self._content(plan) != content:
                raise DataError(
                    f"data set {plan.study.dataset} is not what it was when the study was let in, and charged",
                    hint="put the file back to go on, or start a new study",
                )
            if cost is not None:
                check_delta(plan, self.site, records=max(data.train_count, data.holdout_count))
        except FedsciError as error:
            error.message = _named(self.site.site, error.message)
            raise
        worker = contributor(
            plan,
            self.site.site,
            data.train,
            public_records=data.train_count,
            cost=cost,
            device=device,
            random_bytes=os.urandom,
        )
        return ActiveRun(plan=plan, policy=policy, data=data, cost=cost, worker=worker, masking=masking, permit=permit)

    def _admitted(self, run: str) -> Plan:
        """Return the plan of a run that was let in and is not over."""
        try:
            return self._plan((self._run_folder(run) / "plan.json").read_bytes())
        except FileNotFoundError:
            raise PolicyRefused(
                f"{self.site.site}: run {run} was never admitted here", public="this run was never admitted here"
            ) from None

    def _known(self, run: str) -> Plan:
        """Return the plan of a run that was let in, also when it is over."""
        finished = self._run_folder(run) / "finished.json"
        return self._plan(finished.read_bytes()) if finished.exists() else self._admitted(run)

    def _roster(self, run: str) -> bytes:
        return unpack((self._run_folder(run) / "roster").read_text(encoding="ascii"))

    def _active(self, run: str) -> ActiveRun:
        if run not in self._runs:
            plan = self._admitted(run)
            # only an admitted run has a plan: where an approval was needed, it was used for this run
            policy, masking = check_policy(plan, self.site, approved=True), None
            if plan.study.secure_aggregation.enabled:
                masking = SiteMasking(self.keystore, plan, self.site.site, run, self._roster(run))
            content = Digest((self._run_folder(run) / "content").read_text(encoding="ascii"))
            permit = self._permit(plan, run, content)
            self._runs[run] = self._activate(plan, policy, cost_for(plan), masking, content, permit)
        return self._runs[run]

    def _permit(self, plan: Plan, run: str, content: Digest) -> Permit:
        """Return the permit of a run that goes on."""
        try:
            envelope = (self._run_folder(run) / "permit.json").read_bytes()
        except FileNotFoundError:
            raise PolicyRefused(
                f"{self.site.site}: run {run} has no permit", public="this run has no permit here"
            ) from None
        return self.permitting.find_again(plan, run, envelope, ledger=self.ledger, content=content)

    def _run_folder(self, run: str) -> Path:
        return self.state / "runs" / run


def _run_id(request: Request) -> str:
    run = request.text("run")
    if not _RUN.fullmatch(run):
        raise ConfigError("a run id is 32 hexadecimal digits")
    return run


def _require_round(plan: Plan, number: int) -> None:
    if not 1 <= number <= plan.training.rounds:
        raise PolicyRefused(f"round {number} is not one of the plan's {plan.training.rounds}")


def _received(active: ActiveRun, request: Request) -> NDArray[np.float32]:
    """Return what the strategy sends to sites, of the right size."""
    received, strategy = request.model(), active.plan.strategy
    if received.size != strategy.sent(active.worker.parameters):
        sends = strategy.sent(active.worker.parameters)
        raise InputError(f"{received.size} numbers came, {strategy.name} sends {sends}")
    return received


def _last_round(active: ActiveRun, request: Request) -> int:
    """Return how many rounds the study runs: all of them, or as many as all its sites' budgets pay for."""
    planned = active.plan.training.rounds
    rounds = request.integer("rounds") if "rounds" in request.fields else planned
    if not 1 <= rounds <= planned:
        raise PolicyRefused(f"a study of {planned} rounds cannot end after {rounds}")
    return rounds


def _named(site: str, message: str) -> str:
    return message if message.startswith(site) else f"{site}: {message}"
