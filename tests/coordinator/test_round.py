"""One round at the coordinator: who counts, what the sum is, and when it is called off; in the clear and masked."""

import os
from types import SimpleNamespace

import numpy as np
import pytest

from fedsci import secagg
from fedsci.config.masking import grid_for
from fedsci.coordinator.aggregation import PlainAggregation
from fedsci.coordinator.masked import MaskedAggregation
from fedsci.coordinator.round import run_round
from fedsci.errors import FedsciError, PolicyRefused, RoundAborted
from fedsci.site.keystore import Keystore
from fedsci.site.masking import SiteMasking
from fedsci.site.upload import Upload
from fedsci.strategies.base import StrategyState
from fedsci.training.metrics import METRICS, names_of
from fedsci.training.sums import exact_table
from fedsci.transport.in_memory import LocalGrid
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Reply, Request
from fedsci.transport.site_app import build_site_app

MODEL = np.array([1.0, -1.0], np.float32)
SITES = ("lab-1", "lab-2", "lab-3", "lab-4")
UPDATES = {site: np.array([n, -n], np.float32) for n, site in enumerate(SITES, start=1)}
RECORDS = {"lab-1": [10, 1], "lab-2": [20, 2], "lab-3": [30, 3], "lab-4": [40, 4]}
WEIGHTS = {site: train / 100 for site, (train, _) in RECORDS.items()}
RUN = "a" * 32


class Lab:
    """One site of the round: an answer to ``train`` that a test chose, sent plain or masked."""

    def __init__(self, site, plan, keystore, answer) -> None:
        self.site, self.plan, self.keystore, self.answer = site, plan, keystore, answer
        self.asked: list[str] = []
        self.active = None

    def enrol(self, roster: secagg.Roster | None, signed: bytes) -> str:
        """Become a site that let the study in; return its advert."""
        masking = SiteMasking(self.keystore, self.plan, self.site, RUN, signed) if roster is not None else None
        train, holdout = RECORDS[self.site]
        self.active = SimpleNamespace(
            plan=self.plan,
            masking=masking,
            worker=SimpleNamespace(name=self.site),
            data=SimpleNamespace(train_count=train, holdout_count=holdout),
            cost=None,
        )
        if masking is None:
            return ""
        return masking.join_setup(Request(action="prepare", fields={"setup_batch": 0}))["advert"]

    def handle(self, request: Request) -> Reply:
        self.asked.append(request.action)
        try:
            if request.action == "hello":
                return Reply(fields={"site": self.site, "key": self.keystore.signing_key().public.hex()})
            if request.action == "train":
                return self.train(request)
            masking = self.active.masking
            steps = {"share": masking.join_setup, "unmask": masking.unmask, "votes": masking.votes}
            return Reply(fields=steps[request.action](request))
        except FedsciError as error:
            return Reply(error=error.public())

    def train(self, request: Request) -> Reply:
        answer = self.answer
        if isinstance(answer, BaseException):
            raise answer
        upload = Upload(self.active, request, slot=0, dimension=MODEL.size)
        if isinstance(answer, Reply):
            return answer
        if self.active.masking is not None and answer.shape != MODEL.shape:
            return Reply(fields=upload.seal(MODEL, [None])[0].fields, vector=answer)
        return upload.seal(answer, [None])[0]


@pytest.fixture(params=["plain", "masked"])
def way(request):
    return request.param


@pytest.fixture
def play(make_plan, tmp_path, way):
    """Run one round of four sites; ``answers`` replaces what single sites answer."""
    grids = []

    def run(*, survivors: int = 3, **answers) -> SimpleNamespace:
        masked = way == "masked"
        plan = make_plan(sites=4, strategy="fedavg", secure_aggregation={"enabled": masked, "min_survivors": survivors})
        labs = [
            Lab(site, plan, Keystore(tmp_path / site), answers.get(site.replace("-", "_"), UPDATES[site]))
            for site in SITES
        ]
        run.labs = labs
        grid = LocalGrid(build_site_app(lambda number: labs[number].handle), 4)
        grids.append(grid)
        link = SiteLink(grid=grid, timeout_s=10)
        keys = link.discover(plan.sites)
        if masked:
            signer = secagg.SigningKey(secagg.Seed(os.urandom(32)))
            members = tuple(
                secagg.RosterSite(index=number, name=site, verification_key=keys[site])
                for number, site in enumerate(SITES, start=1)
            )
            roster = secagg.Roster(serial=1, sites=members, terms=secagg.default_terms(4), ring_bits=32)
            signed = secagg.sign_roster(roster, signer)
            for lab in labs:
                lab.keystore.pin_consortium(signer.public)
            aggregation = MaskedAggregation(link=link, plan=plan, run=RUN, roster=roster, weights=WEIGHTS, slots=4)
            aggregation.begin({lab.site: lab.enrol(roster, signed) for lab in labs})
        else:
            aggregation = PlainAggregation(link=link, plan=plan, weights=WEIGHTS)
            for lab in labs:
                lab.enrol(None, b"")
        fields = {"run": RUN, "records": RECORDS, "evaluate": "exact"}
        tables = [exact_table("binary", grid_for(plan), holdout=4)]
        return run_round(aggregation, plan, 1, plan.strategy.start(MODEL), fields=fields, tables=tables)

    yield run
    for lab in getattr(run, "labs", []):
        lab.keystore.forget(RUN)
    for grid in grids:
        grid.close()


@pytest.fixture
def moved_to(make_plan, way):
    """Check the model after the round: exact but for float32, and for the grid where the sum is masked."""

    def check(state: StrategyState, expected: np.ndarray, *, share: float) -> None:
        assert state.round == 1
        plan = make_plan(sites=4)
        slack = 4 * grid_for(plan).error_bound / share if way == "masked" else 0.0
        assert state.model == pytest.approx(expected, rel=1e-6, abs=slack)

    return check


def mean_of(*sites: str) -> np.ndarray:
    total = sum(WEIGHTS[site] * UPDATES[site].astype(np.float64) for site in sites)
    return MODEL + total / share_of(*sites)


def share_of(*sites: str) -> float:
    return sum(WEIGHTS[site] for site in sites)


def test_all_sites_are_weighted_by_their_records(play, moved_to):
    outcome = play()
    assert outcome.collected.dropped == {}
    assert outcome.collected.weight == pytest.approx(1.0)
    moved_to(outcome.state, mean_of(*SITES), share=1.0)


BAD = {
    "an error": PolicyRefused("no"),
    "a crash": ValueError("row 7"),
    "no vector": Reply(),
    "a header that is none": Reply(fields={"header": "AAAA"}, vector=np.zeros(2, np.uint32)),
    "a header that is no text": Reply(fields={"header": 7}, vector=np.zeros(2, np.uint32)),
    "metrics that are none": Reply(fields={"metrics": 7}),
    "float64": Reply(vector=np.zeros(2)),
    "integers": Reply(vector=np.zeros(2, np.int64)),
    "too short": np.zeros(1, np.float32),
    "empty": np.zeros(0, np.float32),
    "too long": np.zeros(3, np.float32),
    "a matrix": np.zeros((2, 1), np.float32),
    "NaN": np.array([np.nan, 0], np.float32),
    "infinity": np.array([0, np.inf], np.float32),
    "two infinities": np.array([np.inf, -np.inf], np.float32),
}


@pytest.mark.parametrize("name", BAD)
def test_a_failing_site_is_dropped_and_the_sum_is_over_the_others(play, moved_to, name):
    outcome = play(lab_2=BAD[name])
    assert list(outcome.collected.dropped) == ["lab-2"]
    moved_to(outcome.state, mean_of("lab-1", "lab-3", "lab-4"), share=0.8)


@pytest.mark.parametrize("way", ["masked"], indirect=True)
def test_an_update_too_large_for_the_ring_is_clipped_and_wraps_no_sum(play, make_plan):
    outcome = play(lab_2=np.array([3e38, -3e38], np.float32))
    assert outcome.collected.dropped == {}
    bound = make_plan().study.secure_aggregation.bound
    others = sum(WEIGHTS[site] * UPDATES[site] for site in ("lab-1", "lab-3", "lab-4"))
    assert outcome.state.model == pytest.approx(MODEL + others + [bound, -bound], abs=1e-6)


@pytest.mark.parametrize("way", ["plain"], indirect=True)
def test_exactly_enough_survivors_are_enough(play, moved_to):
    outcome = play(survivors=2, lab_1=BAD["NaN"], lab_4=BAD["an error"])
    assert list(outcome.collected.dropped) == ["lab-1", "lab-4"]
    moved_to(outcome.state, mean_of("lab-2", "lab-3"), share=0.5)


def test_too_few_survivors_abort_the_round_and_say_why(play):
    with pytest.raises(RoundAborted) as aborted:
        play(survivors=3, lab_1=BAD["NaN"], lab_4=PolicyRefused("secret", public="not today"))
    message = aborted.value.message
    assert "round 1: only 2 of 4 sites finished, 3 are needed" in message
    assert "lab-1: its update holds NaN or infinity" in message
    assert "lab-4: not today" in message
    assert "secret" not in message
    assert "lower training.learning_rate" in aborted.value.hint
    assert aborted.value.exit_code == 5


@pytest.mark.parametrize("way", ["masked"], indirect=True)
def test_a_round_that_is_called_off_asks_for_no_share(play):
    with pytest.raises(RoundAborted):
        play(survivors=3, lab_1=BAD["NaN"], lab_4=BAD["a crash"])
    asked = {action for lab in play.labs for action in lab.asked}
    assert asked == {"hello", "share", "train"}


@pytest.mark.parametrize("way", ["plain"], indirect=True)
def test_the_largest_updates_do_not_overflow_together(play):
    large = np.array([3e38, -3e38], np.float32)
    outcome = play(lab_1=large, lab_2=large, lab_3=large, lab_4=large)
    assert outcome.collected.dropped == {}
    assert outcome.state.model == pytest.approx(large, rel=1e-6)


@pytest.mark.parametrize("way", ["plain"], indirect=True)
@pytest.mark.parametrize("values", [7, "x", {}, [7], ["x"], [[1.0]], [["a"]], [{}], [None], [[None]], [], [10**400]])
def test_metrics_that_make_no_sense_are_metrics_not_shown(play, values):
    zeros = [0.0] * len(names_of("binary"))
    outcome = play(lab_2=Reply(fields={"metrics": values}, vector=UPDATES["lab-2"]))
    assert outcome.collected.dropped == {}
    assert outcome.collected.metrics[0].tolist() == zeros
    assert len(zeros) == 5 + 2 * 256 + 16 + 3 * len(METRICS["binary"])
