"""Says in words whether joining paid, from the numbers and nothing else.

Three ways to a model are compared for the same labs, each on its own test records: together, alone with
the same privacy, and alone without privacy. The last is a fair rival only for a model that stays inside
the lab, since a model trained without privacy must never be released; the words say so each time.
"""

import math
from dataclasses import dataclass
from enum import Enum

AS_WELL_ABSOLUTE = 0.01
"""Scores (accuracy, AUROC, ...) this close count as equal."""
AS_WELL_RELATIVE = 0.02
"""Errors (RMSE, log loss, ...) this close, as a share of the error alone, count as equal."""
_ROUNDING = 1e-9

_LABELS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "f1": "F1 score",
    "r2": "R²",
    "rmse": "RMSE",
    "mae": "mean absolute error",
    "mse": "mean squared error",
    "log_loss": "log loss",
    "loss": "loss",
    "brier": "Brier score",
}
_ERRORS = frozenset({"rmse", "mae", "mse", "log_loss", "loss", "brier"})


class Worth(Enum):
    """Whether the joint model beats a rival."""

    YES = "yes"
    AS_WELL = "as well"
    NO = "no"
    UNKNOWN = "not known"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """The metric that decides, and which way it is good."""

    name: str
    higher_is_better: bool

    @property
    def label(self) -> str:
        """The metric's name in words."""
        return _LABELS.get(self.name, self.name)

    def compare(self, joint: float | None, rival: float | None) -> Worth:
        """Return whether ``joint`` beats ``rival``; close counts as equal, NaN and infinity as not known.

        >>> accuracy = Measure(name="accuracy", higher_is_better=True)
        >>> accuracy.compare(0.91, 0.80), accuracy.compare(0.91, 0.90), accuracy.compare(0.80, 0.91)
        (<Worth.YES: 'yes'>, <Worth.AS_WELL: 'as well'>, <Worth.NO: 'no'>)
        >>> rmse = Measure(name="rmse", higher_is_better=False)
        >>> rmse.compare(9.0, 10.0), rmse.compare(10.2, 10.0), rmse.compare(11.0, 10.0)
        (<Worth.YES: 'yes'>, <Worth.AS_WELL: 'as well'>, <Worth.NO: 'no'>)
        """
        if joint is None or rival is None or not (math.isfinite(joint) and math.isfinite(rival)):
            return Worth.UNKNOWN
        gain = joint - rival if self.higher_is_better else rival - joint
        tolerance = AS_WELL_ABSOLUTE if self.higher_is_better else AS_WELL_RELATIVE * abs(rival)
        if abs(gain) <= tolerance * (1 + _ROUNDING) + _ROUNDING * tolerance:
            return Worth.AS_WELL
        return Worth.YES if gain > 0 else Worth.NO

    def format(self, value: float) -> str:
        """Return ``value`` with the digits a reader can use.

        >>> accuracy = Measure(name="accuracy", higher_is_better=True)
        >>> [accuracy.format(value) for value in (0.9, 0.00123, 12.3456, 12345.6)]
        ['0.900', '0.00123', '12.35', '12,346']
        """
        size = abs(value)
        if size >= 1e9 or 0 < size < 1e-4:
            return f"{value:.2e}"
        if size >= 1000:
            return f"{value:,.0f}"
        if size > 1:
            return f"{value:#.4g}"
        return f"{value:.3g}" if 0 < size < 0.01 else f"{value:.3f}"

    def gap(self, joint: float, rival: float) -> str:
        """Return how far apart the two are, in words.

        >>> Measure(name="rmse", higher_is_better=False).gap(9.0, 10.0)
        '10 % less error'
        >>> Measure(name="accuracy", higher_is_better=True).gap(0.80, 0.91)
        '0.110 lower'
        """
        if self.higher_is_better:
            return f"{self.format(abs(joint - rival))} {'higher' if joint > rival else 'lower'}"
        way = "less" if joint < rival else "more"
        if rival == 0:
            return f"{way} error"
        share = abs(joint - rival) / abs(rival)
        return f"{share:.0%} {way} error".replace("%", " %")


def measure_named(name: str, higher_is_better: bool | None = None) -> Measure:
    """Return the measure of that name; where nothing says which way is good, its name does.

    >>> measure_named("rmse").higher_is_better, measure_named("auroc").higher_is_better
    (False, True)
    """
    return Measure(name=name, higher_is_better=name not in _ERRORS if higher_is_better is None else higher_is_better)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One metric for the three ways to a model; None where it was not measured or may not be shown."""

    joint: float | None
    alone: float | None
    alone_no_dp: float | None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer to "Should a lab join?".

    Attributes:
        worth: the answer in one word.
        headline: the answer in a few words.
        sentences: why, in plain sentences.
    """

    worth: Worth
    headline: str
    sentences: tuple[str, ...]


def judge(measure: Measure, scores: Scores, *, private: bool, noised: bool = False) -> Verdict:
    """Return whether a lab should join, judged by the mean over the labs.

    ``private`` says whether the joint model was trained with differential privacy. If it was not, there
    is only one way to be alone, and the number without privacy is the fair one. ``noised`` says that the joint
    model's metrics carry privacy noise, since a lab did not let exact ones leave: then no lab has told what it
    reaches alone, and nothing is claimed.

    >>> accuracy = measure_named("accuracy")
    >>> judge(accuracy, Scores(joint=0.9, alone=0.7, alone_no_dp=0.8), private=True).headline
    'Yes, joining pays.'
    >>> judge(accuracy, Scores(joint=0.7, alone=0.7, alone_no_dp=0.8), private=True).headline
    'No, a lab alone does better if its model stays inside.'
    """
    if noised:
        return Verdict(worth=Worth.UNKNOWN, headline="The numbers cannot say.", sentences=_NOISED)
    if scores.joint is None:
        return _unknown("this run has no result of the joint model, averaged over the labs")
    if not private:
        rival = scores.alone_no_dp if scores.alone_no_dp is not None else scores.alone
        return _judge_one(measure, scores.joint, rival, "a lab alone", "No privacy was used on either side.")
    if scores.alone_no_dp is None:
        return _judge_one(measure, scores.joint, scores.alone, "a lab alone with the same privacy", "")
    if scores.alone is None:
        return _judge_one(measure, scores.joint, scores.alone_no_dp, "a lab alone without privacy", _KEEPS_ITS_MODEL)
    return _judge_both(measure, scores.joint, scores.alone, scores.alone_no_dp)


def judge_lab(measure: Measure, scores: Scores, *, private: bool) -> tuple[Worth, str]:
    """Return whether joining paid for one lab, and a remark (may be empty).

    The rival is the lab alone with the same privacy, because only such a model may be released; a lab
    that does better alone without privacy is told so.
    """
    fair = scores.alone if private else scores.alone_no_dp
    other = scores.alone_no_dp if private else scores.alone
    if fair is None:
        worth = measure.compare(scores.joint, other)
        judged = private and worth is not Worth.UNKNOWN
        return worth, "compared with alone without privacy" if judged else ""
    worth = measure.compare(scores.joint, fair)
    if private and worth is not Worth.NO and measure.compare(scores.joint, other) is Worth.NO:
        return worth, "better alone without privacy"
    return worth, ""


_KEEPS_ITS_MODEL = "A lab that trains alone without privacy can use its model inside but never releases it."

_NOISED = (
    "Not every lab lets exact metrics leave, so the joint model was measured with privacy noise, and not every "
    "lab told what it reaches alone.",
    "Whether joining pays cannot be answered from this run.",
    "Each lab can answer it for itself, by testing the joint model on its own records; this page can where all labs "
    "set exact_evaluation: true.",
)

_HEADLINES = {
    Worth.YES: "Yes, joining pays.",
    Worth.AS_WELL: "It makes little difference.",
    Worth.NO: "No, a lab alone does better.",
}


def _unknown(reason: str) -> Verdict:
    return Verdict(
        worth=Worth.UNKNOWN,
        headline="The numbers cannot say.",
        sentences=(f"No comparison is possible: {reason}.",),
    )


def _judge_one(measure: Measure, joint: float, rival: float | None, who: str, remark: str) -> Verdict:
    worth = measure.compare(joint, rival)
    if rival is None or worth is Worth.UNKNOWN:
        return _unknown(f"the joint model was not compared with {who}")
    sentences = (_opening(measure, joint), _clause(measure, joint, rival, worth, who), remark)
    return Verdict(worth=worth, headline=_HEADLINES[worth], sentences=tuple(filter(None, sentences)))


def _judge_both(measure: Measure, joint: float, alone: float, alone_no_dp: float) -> Verdict:
    with_dp = measure.compare(joint, alone)
    without_dp = measure.compare(joint, alone_no_dp)
    if Worth.UNKNOWN in (with_dp, without_dp):
        return _unknown("a result is no finite number")
    worth, headline = _weigh(with_dp, without_dp)
    sentences = (
        _opening(measure, joint),
        _clause(measure, joint, alone, with_dp, "a lab alone with the same privacy"),
        _clause(measure, joint, alone_no_dp, without_dp, "a lab alone without privacy"),
        _KEEPS_ITS_MODEL,
    )
    return Verdict(worth=worth, headline=headline, sentences=sentences)


def _weigh(with_dp: Worth, without_dp: Worth) -> tuple[Worth, str]:
    if with_dp is Worth.NO:
        return Worth.NO, _HEADLINES[Worth.NO]
    if with_dp is Worth.YES and without_dp is Worth.NO:
        return Worth.AS_WELL, "Yes if the model is to leave the lab, no if it stays inside."
    if with_dp is Worth.YES and without_dp is Worth.AS_WELL:
        return Worth.YES, "Yes if the model is to leave the lab; inside, it makes little difference."
    if without_dp is Worth.NO:
        return Worth.NO, "No, a lab alone does better if its model stays inside."
    if with_dp is Worth.AS_WELL:
        return Worth.AS_WELL, _HEADLINES[Worth.AS_WELL]
    return Worth.YES, _HEADLINES[Worth.YES]


def _opening(measure: Measure, joint: float) -> str:
    return (
        f"Averaged over the labs, the joint (federated) model reaches {measure.label} {measure.format(joint)}"
        f" ({'higher' if measure.higher_is_better else 'lower'} is better)."
    )


def _clause(measure: Measure, joint: float, rival: float, worth: Worth, who: str) -> str:
    found = f"{who[0].upper()}{who[1:]} reaches {measure.format(rival)}"
    if worth is Worth.AS_WELL:
        return f"{found}: as well, within what counts as equal here."
    side = "the joint model is better" if worth is Worth.YES else "alone is better"
    return f"{found}: {side} (joint: {measure.gap(joint, rival)})."
