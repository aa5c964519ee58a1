"""Faults of the kind that real code had, planted where they would be made."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedsci.privacy.poisson import poisson_sample
from fedsci.privacy.randomness import KeyStream
from fedsci.privacy.rounding_noise import round_and_noise
from fedsci.site.round import Contributor, contributor
from fedsci.site.service import SiteService
from fedsci.site.upload import ActiveRun
from fedsci.training import accountant
from fedsci.training.per_record import ClippedGradients
from fedsci.training.private import PrivateLearner

Plant = Callable[[pytest.MonkeyPatch], None]


def noise_halved(patch: pytest.MonkeyPatch) -> None:
    def halved(values: Any, *, deviation: float, **rest: Any) -> Any:
        return round_and_noise(values, deviation=deviation / 2, **rest)

    patch.setattr("fedsci.training.noise_share.round_and_noise", halved)


def noise_omitted(patch: pytest.MonkeyPatch) -> None:
    def rounded(values: Any, *, gamma: float, **_: Any) -> Any:
        return np.rint(values / gamma).astype(np.int64)

    patch.setattr("fedsci.training.noise_share.round_and_noise", rounded)


def noise_omitted_in_one_coordinate(patch: pytest.MonkeyPatch) -> None:
    def nearly(values: Any, *, gamma: float, **rest: Any) -> Any:
        noised = round_and_noise(values, gamma=gamma, **rest)
        noised[-1] = round(values[-1] / gamma)
        return noised

    patch.setattr("fedsci.training.noise_share.round_and_noise", nearly)


def clipping_omitted(patch: pytest.MonkeyPatch) -> None:
    def untouched(norms: Any, clipping_norm: float) -> Any:
        return np.ones_like(norms)

    patch.setattr("fedsci.training.per_record.clipped.clip_factors", untouched)


def share_for_too_many_sites(patch: pytest.MonkeyPatch) -> None:
    right = accountant._shared_noise
    patch.setattr(accountant, "_shared_noise", lambda *args: right(*args[:-1], args[-1] + 2))


def samples_of_one_size(patch: pytest.MonkeyPatch) -> None:
    def fixed(count: int, rate: float, keystream: KeyStream) -> Any:
        order = np.argsort(keystream.uint64(count), kind="stable")
        return np.isin(np.arange(count), order[: round(rate * count)])

    patch.setattr("fedsci.training.private.poisson_sample", fixed)


def shuffled_batches(patch: pytest.MonkeyPatch) -> None:
    at: dict[int, int] = {}

    def batch(count: int, rate: float, keystream: KeyStream) -> Any:
        turns = round(1 / rate)
        at[id(keystream)] = turn = at.get(id(keystream), -1) + 1
        return np.arange(count) % turns == turn % turns

    patch.setattr("fedsci.training.private.poisson_sample", batch)


def sampling_without_a_coin(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("fedsci.training.private.poisson_sample", lambda count, rate, keys: poisson_sample(count, 1.0, keys))


def accountant_reset_between_rounds(patch: pytest.MonkeyPatch) -> None:
    right = accountant._epsilon
    patch.setattr(accountant, "_epsilon", lambda cost, rounds, measured: right(cost, min(rounds, 1), measured))


def noise_for_one_round_only(patch: pytest.MonkeyPatch) -> None:
    right = accountant._shared_noise
    patch.setattr(accountant, "_shared_noise", lambda *args: right(*args[:3], 1, *args[4:]))
    patch.setattr("fedsci.site.charging.check_cost", lambda *args, **rest: None)
    honest = accountant._epsilon
    patch.setattr(accountant, "_epsilon", lambda cost, rounds, measured: honest(cost, min(rounds, 1), measured))


def records_counted_twice(patch: pytest.MonkeyPatch) -> None:
    right = PrivateLearner._sample
    patch.setattr(PrivateLearner, "_sample", lambda self: np.concatenate([right(self), right(self)]))


def privacy_dropped_under_masks(patch: pytest.MonkeyPatch) -> None:
    """The site forgets its price once the study is masked: it trains in the clear, and masks that."""

    def forgetful(plan: Any, *args: Any, cost: Any, **rest: Any) -> Any:
        return contributor(plan, *args, cost=None if plan.study.secure_aggregation.enabled else cost, **rest)

    patch.setattr("fedsci.site.service.contributor", forgetful)


def noise_dropped_under_masks(patch: pytest.MonkeyPatch) -> None:
    right = Contributor.contribution

    def bare(self: Any, received: Any, number: int, **rest: Any) -> Any:
        noised = right(self, received, number, **rest)
        if self.share is None:
            return noised
        exact = -self.private.clipped_sum(np.arange(self.private.learner.units))
        return np.rint(exact / self.share.gamma).astype(np.int64)

    patch.setattr(Contributor, "contribution", bare)


def one_seed_for_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("fedsci.training.private.KeyStream", lambda random_bytes: KeyStream(lambda count: bytes(count)))


def one_seed_a_round(patch: pytest.MonkeyPatch) -> None:
    """Every site draws from a key of its own, and starts over with it each time."""

    def again(self: PrivateLearner) -> KeyStream:
        own = math.floor(float(self.learner.table.features.sum()) * 1000).to_bytes(32, "big", signed=True)
        return KeyStream(lambda count: own)

    patch.setattr(PrivateLearner, "_keystream", property(again))


def batch_clipped_as_one(patch: pytest.MonkeyPatch) -> None:
    """What a loop over batches does that clips the mean gradient and not each record's."""
    right = ClippedGradients.sum_of

    def of_batch(self: ClippedGradients, features: Any, targets: Any, rows: Any) -> Any:
        if len(rows) <= 1:
            return right(self, features, targets, rows)
        unbounded = ClippedGradients(module=self.module, losses=self.losses, clipping_norm=1e20, expected=self.expected)
        loud = right(unbounded, features, targets, rows)
        mean = loud / len(rows)
        return len(rows) * mean * min(1.0, self.clipping_norm / max(float(np.linalg.norm(mean)), 1e-30))

    patch.setattr(ClippedGradients, "sum_of", of_batch)


def masks_left_out(patch: pytest.MonkeyPatch) -> None:
    for module in ("site_steps", "coordinator_steps"):
        patch.setattr(f"fedsci.secagg.{module}.add_masks", lambda vector, *args, **rest: vector)


def update_beside_the_upload(patch: pytest.MonkeyPatch) -> None:
    right = SiteService._send

    def generous(self: SiteService, upload: Any, contribution: Any, metrics: Any, fields: Any) -> Any:
        more = {} if contribution is None else {"own": contribution[:2].tolist()}
        return right(self, upload, contribution, metrics, fields | more)

    patch.setattr(SiteService, "_send", generous)


def uniform_noise(patch: pytest.MonkeyPatch) -> None:
    def uniform(values: Any, *, gamma: float, deviation: float, **_: Any) -> Any:
        width = deviation * math.sqrt(12)
        drawn = np.random.default_rng().uniform(-width / 2, width / 2, len(values))
        return np.rint(values / gamma + drawn).astype(np.int64)

    patch.setattr("fedsci.training.noise_share.round_and_noise", uniform)


def noise_twice_in_one_release(patch: pytest.MonkeyPatch) -> None:
    def halves(values: Any, *, gamma: float, **rest: Any) -> Any:
        noised = round_and_noise(values, gamma=gamma, **rest)
        half = len(values) // 2
        exact = np.rint(values / gamma).astype(np.int64)
        noised[half : 2 * half] = exact[half : 2 * half] + noised[:half] - exact[:half]
        return noised

    patch.setattr("fedsci.training.noise_share.round_and_noise", halves)


def one_lab_without_noise(patch: pytest.MonkeyPatch) -> None:
    right = Contributor.contribution

    def silent(self: Any, received: Any, number: int, **rest: Any) -> Any:
        if self.name != "lab-02":
            return right(self, received, number, **rest)
        with pytest.MonkeyPatch.context() as inside:
            noise_omitted(inside)
            return right(self, received, number, **rest)

    patch.setattr(Contributor, "contribution", silent)


def first_record_always_in(patch: pytest.MonkeyPatch) -> None:
    def favourite(count: int, rate: float, keystream: KeyStream) -> Any:
        chosen = poisson_sample(count, rate, keystream)
        chosen[:1] = True
        return chosen

    patch.setattr("fedsci.training.private.poisson_sample", favourite)


def more_steps_than_are_charged(patch: pytest.MonkeyPatch) -> None:
    right = PrivateLearner.private_update
    patch.setattr(
        PrivateLearner,
        "private_update",
        lambda self, vector, *, steps, **rest: right(self, vector, steps=steps + 1, **rest),
    )


def exact_metrics_for_noised_ones(patch: pytest.MonkeyPatch) -> None:
    right = ActiveRun.measure
    open_hand = {"exact_evaluation": True}

    def exact(self: ActiveRun, model: Any, *, resample: bool = True) -> Any:
        generous = self.policy.model_copy(update=open_hand)
        return right(replace(self, policy=generous), model, resample=resample)

    patch.setattr(ActiveRun, "measure", exact)
