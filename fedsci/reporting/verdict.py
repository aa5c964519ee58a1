"""Says in words whether joining paid, from the numbers and nothing else.

Ways to a model are compared for the same labs, each on its own test records: together, alone with the same
privacy, alone without privacy, and together with each lab adapting the joint model to its own records. Those without
privacy are for models that stay inside the lab: such a model must never be released; the words say so each time.

A gap counts as none where it is small, or where chance in the choice of test records may explain it: where it is
within 1.96 standard errors of the difference, taken as of independent results. The models are tested on the same
records, so their errors go together and the true standard error is smaller: a tie may be called too often, a
difference is not.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

AS_WELL_ABSOLUTE = 0.01
"""Scores (accuracy, AUROC, ...) this close count as equal."""
AS_WELL_RELATIVE = 0.02
"""Errors (RMSE, log loss, ...) this close, as a share of the error alone, count as equal."""
CHANCE = 1.96
"""Standard errors on each side of a 95 % interval."""
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
    "calibration_error": "calibration error",
    "loss": "loss",
    "brier": "Brier score",
}
_ERRORS = frozenset({"rmse", "mae", "mse", "log_loss", "loss", "brier", "calibration_error"})


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

    def compare(self, joint: float | None, rival: float | None, *, error: float = 0.0) -> Worth:
        """Return whether ``joint`` beats ``rival``; close counts as equal, NaN and infinity as not known.

        ``error`` is the standard error of their difference, 0 where it is not known.

        >>> accuracy = Measure(name="accuracy", higher_is_better=True)
        >>> accuracy.compare(0.91, 0.80), accuracy.compare(0.91, 0.90), accuracy.compare(0.80, 0.91)
        (<Worth.YES: 'yes'>, <Worth.AS_WELL: 'as well'>, <Worth.NO: 'no'>)
        >>> rmse = Measure(name="rmse", higher_is_better=False)
        >>> rmse.compare(9.0, 10.0), rmse.compare(10.2, 10.0), rmse.compare(11.0, 10.0)
        (<Worth.YES: 'yes'>, <Worth.AS_WELL: 'as well'>, <Worth.NO: 'no'>)
        >>> accuracy.compare(0.91, 0.80, error=0.05), accuracy.compare(0.91, 0.80, error=0.06)
        (<Worth.YES: 'yes'>, <Worth.AS_WELL: 'as well'>)
        """
        if joint is None or rival is None or not (math.isfinite(joint) and math.isfinite(rival)):
            return Worth.UNKNOWN
        gain = joint - rival if self.higher_is_better else rival - joint
        tolerance = max(self.tolerance(rival), CHANCE * error)
        if abs(gain) <= tolerance * (1 + _ROUNDING) + _ROUNDING * tolerance:
            return Worth.AS_WELL
        return Worth.YES if gain > 0 else Worth.NO

    def tolerance(self, rival: float) -> float:
        """Return the gap up to which results count as equal, whatever chance may do."""
        return AS_WELL_ABSOLUTE if self.higher_is_better else AS_WELL_RELATIVE * abs(rival)

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
    """One metric for the ways to a model; None where it was not measured or may not be shown.

    Attributes:
        joint: the shared model.
        alone, alone_no_dp: a lab by itself.
        personalised: the shared model adapted to each lab's own records, without privacy.
        errors: standard errors by the names above, as far as known.
    """

    joint: float | None
    alone: float | None
    alone_no_dp: float | None
    personalised: float | None = None
    errors: Mapping[str, float] = field(default_factory=dict)

    def error(self, one: str, other: str) -> float:
        """Return the standard error of a difference of two of them, 0 where it is not known."""
        known = one in self.errors and other in self.errors
        return math.hypot(self.errors[one], self.errors[other]) if known else 0.0

    def compare(self, measure: "Measure", one: str, other: str) -> Worth:
        """Return whether the first of two of them beats the second."""
        return measure.compare(getattr(self, one), getattr(self, other), error=self.error(one, other))

    def words(self, measure: "Measure", one: str) -> str:
        """Return one of them with its interval, where there is one."""
        value = getattr(self, one)
        around = f" ± {measure.format(CHANCE * self.errors[one])}" if one in self.errors else ""
        return f"{measure.format(value)}{around}"


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
    return _with_personal(measure, scores, _judge_joint(measure, scores, private=private), private=private)


def _judge_joint(measure: Measure, scores: Scores, *, private: bool) -> Verdict:
    if not private:
        rival = "alone_no_dp" if scores.alone_no_dp is not None else "alone"
        return _judge_one(measure, scores, rival, "a lab alone", "No privacy was used on either side.")
    if scores.alone_no_dp is None:
        return _judge_one(measure, scores, "alone", "a lab alone with the same privacy", "")
    if scores.alone is None:
        return _judge_one(measure, scores, "alone_no_dp", "a lab alone without privacy", _KEEPS_ITS_MODEL)
    return _judge_both(measure, scores)


def _with_personal(measure: Measure, scores: Scores, verdict: Verdict, *, private: bool) -> Verdict:
    """Return the verdict with what each lab's own adaptation of the joint model changes in it."""
    if scores.personalised is None or not math.isfinite(scores.personalised):
        return verdict
    found = f"Adapted by each lab to its own records, the joint model reaches {scores.words(measure, 'personalised')}"
    rival = _inside(scores, private=private)
    if rival is None:
        words = f"{found}; what a lab reaches alone without privacy, as this was adapted, is not known here."
        return Verdict(worth=verdict.worth, headline=verdict.headline, sentences=(*verdict.sentences, words))
    personal = scores.compare(measure, "personalised", rival)
    if personal is Worth.UNKNOWN:
        return verdict
    who = "a lab alone without privacy" if private else "a lab alone"
    gap = f"compared with {who}: {measure.gap(scores.personalised, getattr(scores, rival))}"
    said = {
        Worth.YES: f"{found}: better than {who} ({gap}).",
        Worth.AS_WELL: f"{found}: as well as {who}{_why_equal(measure, scores, 'personalised', rival)}.",
        Worth.NO: f"{found}: alone is better still ({gap}).",
    }[personal]
    inside = ("An adapted model is trained without privacy: it stays inside its lab.",) if private else ()
    worth, headline = verdict.worth, verdict.headline
    if personal is Worth.YES and worth in (Worth.NO, Worth.AS_WELL):
        worth, headline = Worth.YES, "Yes, if each lab adapts the joint model to its own records."
    elif personal is Worth.AS_WELL and worth is Worth.NO:
        worth, headline = Worth.AS_WELL, "No as it is; adapted by each lab it does as well as staying alone."
    return Verdict(worth=worth, headline=headline, sentences=(*verdict.sentences, said, *inside))


def _inside(scores: Scores, *, private: bool) -> str | None:
    """Return the fair rival of a model that is adapted without privacy and stays inside the lab."""
    if scores.alone_no_dp is not None:
        return "alone_no_dp"
    return "alone" if not private and scores.alone is not None else None


def judge_lab(measure: Measure, scores: Scores, *, private: bool) -> tuple[Worth, str]:
    """Return whether joining paid for one lab, and a remark (may be empty).

    The rival is the lab alone with the same privacy, because only such a model may be released; a lab
    that does better alone without privacy is told so. So is one that does better only with the joint model adapted
    to its own records.
    """
    worth, remark = _judge_lab(measure, scores, private=private)
    rival = _inside(scores, private=private)
    personal = Worth.UNKNOWN if rival is None else scores.compare(measure, "personalised", rival)
    if personal is Worth.YES and (worth is not Worth.YES or remark):
        return Worth.YES, ADAPTED
    if personal is Worth.AS_WELL and worth is Worth.NO:
        return Worth.AS_WELL, ADAPTED
    return worth, remark


def _judge_lab(measure: Measure, scores: Scores, *, private: bool) -> tuple[Worth, str]:
    fair, other = ("alone", "alone_no_dp") if private else ("alone_no_dp", "alone")
    if getattr(scores, fair) is None:
        worth = scores.compare(measure, "joint", other)
        judged = private and worth is not Worth.UNKNOWN
        return worth, "compared with alone without privacy" if judged else ""
    worth = scores.compare(measure, "joint", fair)
    if private and worth is not Worth.NO and scores.compare(measure, "joint", other) is Worth.NO:
        return worth, "better alone without privacy"
    return worth, ""


ADAPTED = "with the joint model adapted to its own records"
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


def _judge_one(measure: Measure, scores: Scores, rival: str, who: str, remark: str) -> Verdict:
    worth = scores.compare(measure, "joint", rival)
    if worth is Worth.UNKNOWN:
        return _unknown(f"the joint model was not compared with {who}")
    sentences = (_opening(measure, scores), _clause(measure, scores, rival, worth, who), remark)
    return Verdict(worth=worth, headline=_HEADLINES[worth], sentences=tuple(filter(None, sentences)))


def _judge_both(measure: Measure, scores: Scores) -> Verdict:
    with_dp, without_dp = (scores.compare(measure, "joint", rival) for rival in ("alone", "alone_no_dp"))
    if Worth.UNKNOWN in (with_dp, without_dp):
        return _unknown("a result is no finite number")
    worth, headline = _weigh(with_dp, without_dp)
    sentences = (
        _opening(measure, scores),
        _clause(measure, scores, "alone", with_dp, "a lab alone with the same privacy"),
        _clause(measure, scores, "alone_no_dp", without_dp, "a lab alone without privacy"),
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


def _opening(measure: Measure, scores: Scores) -> str:
    return (
        f"Averaged over the labs, the joint (federated) model reaches {measure.label} {scores.words(measure, 'joint')}"
        f" ({'higher' if measure.higher_is_better else 'lower'} is better)."
    )


def _clause(measure: Measure, scores: Scores, rival: str, worth: Worth, who: str) -> str:
    found = f"{who[0].upper()}{who[1:]} reaches {scores.words(measure, rival)}"
    if worth is Worth.AS_WELL:
        return f"{found}: as well{_why_equal(measure, scores, 'joint', rival)}."
    side = "the joint model is better" if worth is Worth.YES else "alone is better"
    return f"{found}: {side} (joint: {measure.gap(scores.joint or 0.0, getattr(scores, rival))})."


def _why_equal(measure: Measure, scores: Scores, one: str, other: str) -> str:
    gap, rival = abs(getattr(scores, one) - getattr(scores, other)), getattr(scores, other)
    if gap > measure.tolerance(rival) * (1 + 2 * _ROUNDING):
        return ", within what chance may do on so many test records"
    return ", within what counts as equal here"
