"""The study file: what is learned, from which columns, how, and under which guarantee."""

from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    field_validator,
    model_serializer,
    model_validator,
)

from fedsci import names
from fedsci.config.checkpoints import HumanCheckpoint, check_signers
from fedsci.config.strict import Strict
from fedsci.config.training import Training
from fedsci.errors import InputError

Category = bool | int | float | str


def _check_number(least: float, most: float, mean: float | None, deviation: float | None) -> None:
    """Pass if bounds are ordered, and mean and deviation, in the same units, can be those of numbers within them."""
    if not least < most:
        raise ValueError(f"min {least:g} is not below max {most:g} | give public bounds, min < max")
    if (mean is None) != (deviation is None):
        raise ValueError("mean and deviation go together | give both, or neither")
    if mean is not None and not least <= mean <= most:
        raise ValueError(f"mean {mean:g} is not within {least:g} to {most:g} | give a public mean within min and max")
    if deviation is not None and not 0 <= deviation <= most - least:
        raise ValueError(f"deviation {deviation:g} is not possible within {least:g} to {most:g} | give a smaller one")


class NumericColumn(Strict):
    """A number with public bounds, scaled to [-1, 1]; by a public mean and deviation where there are any."""

    min: float
    max: float
    mean: float | None = None
    deviation: float | None = None

    @model_validator(mode="after")
    def _possible(self) -> "NumericColumn":
        _check_number(self.min, self.max, self.mean, self.deviation)
        return self


class CategoryColumn(Strict):
    """One of a public list of values; others become "other", or are refused."""

    categories: list[Category] = Field(min_length=1)
    unseen: Literal["other", "refuse"] = "other"


class ArrayColumn(Strict):
    """A fixed-shape array of numbers with public bounds (an image, a spectrum)."""

    shape: list[Annotated[int, Field(ge=1)]] = Field(min_length=1, max_length=3)
    min: float
    max: float

    @model_validator(mode="after")
    def _ordered(self) -> "ArrayColumn":
        if not self.min < self.max:
            raise ValueError(f"min {self.min:g} is not below max {self.max:g} | give public bounds, min < max")
        return self


def _column_kind(value: Any) -> str:
    if isinstance(value, ArrayColumn) or (isinstance(value, dict) and "shape" in value):
        return "array"
    if isinstance(value, CategoryColumn) or (isinstance(value, dict) and ("categories" in value or "unseen" in value)):
        return "category"
    return "numeric"


Column = Annotated[
    Annotated[NumericColumn, Tag("numeric")]
    | Annotated[CategoryColumn, Tag("category")]
    | Annotated[ArrayColumn, Tag("array")],
    Discriminator(_column_kind),
]


class BinaryTask(Strict):
    """Yes or no. Without ``positive`` the column must hold 0/1, true/false or yes/no."""

    kind: Literal["binary"]
    target: str
    positive: list[Category] | None = Field(default=None, min_length=1)
    negative: list[Category] | None = Field(default=None, min_length=1)


class MulticlassTask(Strict):
    """One of a public list of classes."""

    kind: Literal["multiclass"]
    target: str
    classes: list[Category] = Field(min_length=2)


class RegressionTask(Strict):
    """A number with public bounds; learned in public deviations from a public mean where there are any."""

    kind: Literal["regression"]
    target: str
    min: float
    max: float
    mean: float | None = None
    deviation: float | None = None

    @model_validator(mode="after")
    def _possible(self) -> "RegressionTask":
        _check_number(self.min, self.max, self.mean, self.deviation)
        return self


Task = Annotated[BinaryTask | MulticlassTask | RegressionTask, Field(discriminator="kind")]


class ModelSpec(Strict):
    """A model family and its size.

    Attributes:
        name: the family.
        hidden: widths of the hidden layers.
        channels: of a cnn's convolutions.
        normalisation: ``batch``: a batch normalisation (Ioffe and Szegedy 2015) before the tanh of each hidden layer
            and convolution.
    """

    name: Literal["linear", "mlp", "cnn"]
    hidden: list[Annotated[int, Field(ge=1, le=1_000_000)]] = Field(default_factory=list, max_length=16)
    channels: list[Annotated[int, Field(ge=1, le=4096)]] = Field(default_factory=list, max_length=8)
    normalisation: Literal["none", "batch"] = "none"

    @model_validator(mode="after")
    def _fits(self) -> "ModelSpec":
        if self.name == "mlp" and not self.hidden:
            raise ValueError("an mlp needs hidden layer sizes | for example: model: {name: mlp, hidden: [32]}")
        if self.name == "linear" and (self.hidden or self.channels):
            raise ValueError("a linear model has no hidden layers | remove hidden and channels, or use name: mlp")
        if self.name == "mlp" and self.channels:
            raise ValueError("an mlp has no channels | remove channels, or use name: cnn")
        if self.name == "linear" and self.normalisation != "none":
            raise ValueError(
                "a linear model has no layer to normalise | set normalisation: none, or use name: mlp with hidden"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_ever(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a normalisation that is none: plans made before there was one keep their digests."""
        values: dict[str, Any] = handler(self)
        if self.normalisation == "none":
            values.pop("normalisation", None)
        return values

    @property
    def convolutions(self) -> list[int]:
        """The channels of a cnn's convolutions."""
        return self.channels or [16, 32]

    @property
    def normalised(self) -> int:
        """How many numbers its normalisation layers hold: for each unit a scale, a shift, a mean and a variance."""
        if self.normalisation == "none":
            return 0
        return 4 * (sum(self.hidden) + (sum(self.convolutions) if self.name == "cnn" else 0))


def check_grouping(unit: str, group_by: str | None) -> None:
    """Pass if a column is named exactly where groups are protected.

    Raises:
        ValueError: message and hint.
    """
    if unit == "group" and group_by is None:
        raise ValueError("unit: group needs group_by | name the column that groups records: group_by: patient_id")
    if unit != "group" and group_by is not None:
        raise ValueError(f"group_by goes with unit: group, not with unit: {unit} | remove it, or set unit: group")


class Privacy(Strict):
    """The guarantee for one unit, against whom, and at what cost.

    Attributes:
        unit: what is protected: each ``record``, each ``group`` of records with the same value in ``group_by``, or each
            ``site`` as a whole.
        group_by: a column of every site's file that is not a feature.
        mechanism: where noise is added.
        epsilon, delta: of the study.
        clipping_norm: what one unit may contribute to a sum; for ``unit: site``, of a site's update.
        colluding_sites: whose noise does not count under the distributed mechanism.
        scaling_share: the part of epsilon and of delta that measuring the scaling gets; training has the rest.
    """

    unit: Literal["record", "group", "site"] = "record"
    group_by: str | None = None
    mechanism: Literal["distributed", "local", "none"] = "distributed"
    epsilon: float | None = None
    delta: float = Field(default=1e-5)
    clipping_norm: float = Field(default=1.0, ge=1e-6, le=1e6)
    colluding_sites: int = Field(default=2, ge=0)
    scaling_share: float = Field(default=0.1, ge=0.01, le=0.9)

    @field_validator("epsilon")
    @classmethod
    def _positive(cls, value: float | None) -> float | None:
        if value is not None and not value > 0:
            raise ValueError(
                f"epsilon is {value:g} | epsilon must be above 0; for no privacy at all set privacy.mechanism: none"
            )
        return value

    @field_validator("delta")
    @classmethod
    def _probability(cls, value: float) -> float:
        if not 0 < value < 1:
            raise ValueError(
                f"delta is {value:g} | delta must lie between 0 and 1, well below 1 / records; usual: 1.0e-5"
            )
        return value

    @model_validator(mode="after")
    def _complete(self) -> "Privacy":
        if self.mechanism != "none" and self.epsilon is None:
            raise ValueError(
                "epsilon is missing | add privacy.epsilon, e.g. 3.0, or set privacy.mechanism: none (no privacy)"
            )
        check_grouping(self.unit, self.group_by)
        if self.unit == "site" and self.mechanism == "local":
            raise ValueError(
                "unit: site hides a site among the others, and with mechanism: local each stands alone | "
                "use mechanism: distributed"
            )
        return self


class SecureAggregation(Strict):
    """How many sites must finish a round, and how updates travel.

    Attributes:
        enabled: masked, so that the coordinator learns only sums; without it every site's policy must agree.
        min_survivors: fewest sites a sum may stand for; two thirds plus one if left out.
        ring_bits: width of the integers that are summed.
        bound: largest magnitude of one number of a weighted contribution; what lies outside is clipped.
        crypto_profile: what the consortium must be of; left out, the study runs in whichever it is of. Simulated labs
            make up a consortium of this profile, or of ``default``.
    """

    enabled: bool = True
    min_survivors: int | None = Field(default=None, ge=1)
    ring_bits: Literal[32, 64] = 32
    bound: float = Field(default=16.0, gt=0, le=1e6)
    crypto_profile: Literal["default", "fips"] | None = None


class AuditLogging(Strict):
    """Whether the run is written down in a log that its sites witness.

    Attributes:
        enabled: every round is logged and cosigned before the next; without it every site's policy must agree.
    """

    enabled: bool = True


class Evaluation(Strict):
    """What is measured, how often, and against which baselines.

    Attributes:
        holdout: the share of records that are held out.
        metrics: the first decides; all of the task's if left out.
        baselines: what the shared model is compared with.
        every: measure after every so many rounds, and at the end. Left out: after every round where all sites let
            exact metrics leave, only at the end where metrics are noised and each measurement adds to their noise.
    """

    holdout: float = Field(default=0.25, gt=0, lt=1)
    metrics: list[str] = Field(default_factory=list)
    baselines: list[Literal["local", "pooled"]] = Field(default=["local", "pooled"])
    every: int | None = Field(default=None, ge=1)


class Personalise(Strict):
    """How each lab adapts the final shared model to its own records; the personal models stay at the labs.

    In a study file a method's name is enough: ``personalise: fine_tune``.

    Attributes:
        method: ``fine_tune``: further epochs of local training; ``local_intercept``: of the output bias only; ``ditto``
            (Li et al. 2021, Ditto, objective 2): with ``proximal / 2 * |w - shared|^2`` added to the loss.
        epochs: passes over the lab's training records.
        learning_rate: of the local training; the study's if left out.
        proximal: lambda of Ditto, 0.1 if left out: larger stays nearer to the shared model.
    """

    method: Literal["none", "fine_tune", "local_intercept", "ditto"] = "none"
    epochs: int = Field(default=10, ge=1, le=1000)
    learning_rate: float | None = Field(default=None, gt=0)
    proximal: float | None = Field(default=None, gt=0, le=1e6)

    @model_validator(mode="after")
    def _pulled(self) -> "Personalise":
        if self.proximal is not None and self.method != "ditto":
            raise ValueError(
                f"proximal goes with method: ditto, not with method: {self.method} | remove it, or set method: ditto"
            )
        return self


METRICS: dict[str, tuple[str, ...]] = {
    "binary": ("accuracy", "auroc", "log_loss", "balanced_accuracy", "calibration_error"),
    "multiclass": ("accuracy", "log_loss", "balanced_accuracy", "calibration_error"),
    "regression": ("rmse", "mae", "r2"),
}


#: Known only where exact metrics may leave: each would add to what one record can move, and so to the noise of all.
EXACT_METRICS = ("balanced_accuracy", "calibration_error")


class ScaledBy(Strict):
    """The pass that measured the numbers which scale a study; not written by people.

    Attributes:
        plan: digest of the pass's plan.
        columns: what it measured: columns, and the target of a regression.
        epsilon, delta: of the pass, on top of the study's own; None without privacy.
    """

    plan: str
    columns: list[str]
    epsilon: float | None
    delta: float | None


#: Keys that a plan has only where the study has them.
_SAID = ("safety_critical", "intended_use", "forbidden_use", "checkpoints", "signers")
#: A text for the model's card; sites read it before they take part.
UseText = Annotated[str, Field(min_length=1, max_length=2000)]


class Study(Strict):
    """A study file as written.

    Attributes:
        scaling: in a file ``features: {scaling: federated}``: numeric columns without a mean and a deviation have them
            measured over all sites first, by a study of its own; with ``bounds`` bounds scale them.
        scaled_by: set once they are measured.
        safety_critical: people may come to harm by the model: at every site a second person signs the permit.
        intended_use, forbidden_use: what the model is for, and what it must not be used for, in words for its card.
        checkpoints: where the run waits for people's signed decisions.
        signers: the public keys of each role, in hex; any one of a role's decides for it.
    """

    study: str
    question: str = ""
    intended_use: UseText | None = None
    forbidden_use: UseText | None = None
    dataset: str
    task: Task
    features: dict[str, Column] = Field(min_length=1)
    scaling: Literal["bounds", "federated"] = "bounds"
    scaled_by: ScaledBy | None = None
    missing: Literal["refuse", "drop", "impute"] = "refuse"
    model: ModelSpec
    strategy: str
    training: Training = Training()
    privacy: Privacy
    secure_aggregation: SecureAggregation = SecureAggregation()
    audit_log: AuditLogging = AuditLogging()
    evaluation: Evaluation = Evaluation()
    personalise: Personalise = Personalise()
    safety_critical: bool = False
    checkpoints: list[HumanCheckpoint] = Field(default_factory=list)
    signers: dict[str, list[str]] = Field(default_factory=dict)
    sites: list[str] | str = Field(default_factory=list)
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="before")
    @classmethod
    def _scaling_apart(cls, values: Any) -> Any:
        """Take the text ``scaling`` out of the columns, which are sections always."""
        features = values.get("features") if isinstance(values, dict) else None
        if not isinstance(features, dict) or not isinstance(features.get("scaling"), str):
            return values
        columns = {name: column for name, column in features.items() if name != "scaling"}
        return {**values, "features": columns, "scaling": features["scaling"]}

    @field_validator("study")
    @classmethod
    def _name(cls, value: str) -> str:
        try:
            return names.study_id(value)
        except InputError as error:
            raise ValueError(f"{error.message} | {error.hint}") from None

    @field_validator("personalise", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _as_ever(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what the study does not say: plans made before it could be said keep their digests."""
        values: dict[str, Any] = handler(self)
        return {key: value for key, value in values.items() if value or key not in _SAID}

    @model_validator(mode="after")
    def _coherent(self) -> "Study":
        check_signers(self.checkpoints, self.signers)
        if self.task.target in self.features:
            raise ValueError(f"the target {self.task.target!r} is also a feature | remove it from features")
        if self.privacy.group_by in (*self.features, self.task.target):
            raise ValueError(
                f"{self.privacy.group_by!r} groups the records and is also a feature or the target | "
                "a model must not learn whose record it sees: remove it from features"
            )
        known = METRICS[self.task.kind]
        for metric in self.evaluation.metrics:
            if metric not in known:
                raise ValueError(
                    f"metric {metric!r} does not exist for a {self.task.kind} task | use some of: {', '.join(known)}"
                )
        if self.scaling == "federated" and self.scaled_by is None and not self.unmeasured:
            raise ValueError(
                "features.scaling: federated has nothing to measure | it is for numbers that have no mean and no "
                "deviation yet; use scaling: bounds"
            )
        if self.scaled_by is not None and self.unmeasured:
            raise ValueError(f"{self.unmeasured[0]!r} was not measured | hand in the study without scaled_by")
        arrays = [column for column in self.features.values() if isinstance(column, ArrayColumn)]
        if self.model.name == "cnn" and not (len(self.features) == 1 and arrays and len(arrays[0].shape) >= 2):
            raise ValueError(
                "a cnn needs exactly one feature with a shape of two or three numbers | "
                "for example: features: {image: {shape: [28, 28], min: 0, max: 255}}"
            )
        return self

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """The numbers whose mean and deviation nobody has given: columns, and the target of a regression."""
        columns = [*self.features.items(), (self.task.target, self.task)]
        return tuple(
            name
            for name, column in columns
            if isinstance(column, NumericColumn | RegressionTask) and column.mean is None
        )
