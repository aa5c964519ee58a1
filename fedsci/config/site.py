"""The site file: what a lab holds, what it may spend, and what may run here."""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator

from fedsci import names
from fedsci.config.loading import parse, read_document
from fedsci.config.strict import Strict
from fedsci.config.study import check_grouping
from fedsci.errors import InputError


class Builtin(Strict):
    """One lab's share of a public data set that scikit-learn carries; for simulated labs."""

    name: str
    shard: int = Field(ge=1)
    of: int = Field(ge=1)
    skew: float = Field(default=0.0, ge=0, le=1)
    uneven: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _in_range(self) -> "Builtin":
        if self.shard > self.of:
            raise ValueError(f"shard {self.shard} of {self.of} does not exist | use 1 to {self.of}")
        return self


class CsvFormat(Strict):
    """How to read a CSV file that is not plain: no header, another delimiter, other marks for missing."""

    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    columns: list[str] | None = Field(default=None, min_length=1)
    missing: list[str] | None = None


class Budget(Strict):
    """The lifetime privacy budget of one data set.

    Attributes:
        unit: what it protects: each ``record``, each ``group`` of records, or the whole ``site``.
        group_by: the column whose values make groups (a patient's number); for ``unit: group`` only.
        epsilon, delta: what all studies together may cost one unit.
        when_exceeded: a study that would pass the budget is refused, or stopped at the last round it affords.
    """

    unit: Literal["record", "group", "site"] = "record"
    group_by: str | None = None
    epsilon: float = Field(gt=0)
    delta: float = Field(gt=0, lt=1)
    when_exceeded: Literal["refuse", "stop"] = "refuse"

    @model_validator(mode="after")
    def _grouped(self) -> "Budget":
        check_grouping(self.unit, self.group_by)
        return self


class DatasetSource(Strict):
    """Where a data set lies and what may be spent on it.

    Attributes:
        record: its data-set record, which tells others what it is; it is used only while it is what the record says.
    """

    path: str | None = None
    builtin: Builtin | None = None
    csv: CsvFormat = CsvFormat()
    record: str | None = None
    target: str | None = None
    privacy: Budget | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "DatasetSource":
        if (self.path is None) == (self.builtin is None):
            raise ValueError("give either path or builtin | path: ../data/file.csv")
        return self


class Policy(Strict):
    """What may run here. Nothing that is not named is allowed.

    Attributes:
        mechanisms: left out, a data set with a budget allows ``distributed`` and ``local``, one without only
            ``none``. Naming ``none`` lets studies without any guarantee run on a budgeted data set; they are
            recorded as an infinite epsilon and are not counted against the budget.
        exact_evaluation: unnoised holdout metrics may leave, inside sums over sites.
        show_own_metrics: this site's own metrics may be shown beside the sums.
        unmasked_updates: updates may travel without secure aggregation.
        unlogged_studies: studies may run whose rounds nobody witnesses.
        min_colluding_sites: with distributed noise, the fewest colluding sites a study must allow for.
        require_record: only data sets that have a record may be used.
        second_signers: who may sign permits of safety-critical studies beside the site: public keys in hex, by name.
    """

    approval: Literal["manual", "auto"] = "manual"
    min_cohort: int = Field(default=2, ge=1)
    max_epsilon_per_study: float | None = Field(default=None, gt=0)
    strategies: list[str] = Field(default_factory=list)
    models: list[str] = Field(default_factory=list)
    mechanisms: list[Literal["distributed", "local", "none"]] | None = None
    exact_evaluation: bool = False
    show_own_metrics: bool = False
    unmasked_updates: bool = False
    unlogged_studies: bool = False
    min_colluding_sites: int = Field(default=1, ge=0)
    require_record: bool = False
    second_signers: dict[str, str] = Field(default_factory=dict)

    @field_validator("second_signers")
    @classmethod
    def _people(cls, value: dict[str, str]) -> dict[str, str]:
        for name, key in value.items():
            try:
                names.site_id(name)
            except InputError as error:
                raise ValueError(f"{name!r} is no signer's name | {error.hint}") from None
            if not re.fullmatch(r"(?:[0-9a-f]{2}){32,256}", key):
                raise ValueError(f"second_signers.{name} is not a public key | write its hexadecimal digits, in quotes")
        twice = [name for name, key in value.items() if list(value.values()).count(key) > 1]
        if twice:
            raise ValueError(f"{' and '.join(twice)} have the same key | two signers are two people with two keys")
        return value


class Site(Strict):
    """A site file as written. Without a policy every study is refused.

    Attributes:
        ledger: where the ledger lies, as a SQLAlchemy URL; by default SQLite in the state folder. May hold a password.
        anchor: the file that keeps the ledger's head a second time; by default beside the state folder.
        officer: the privacy officer's public key in hex; only it signs changes of budgets.
    """

    site: str
    datasets: dict[str, DatasetSource] = Field(min_length=1)
    policy: Policy | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    state: str | None = None
    ledger: SecretStr | None = None
    anchor: str | None = None
    officer: str | None = None

    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """The folder of the site file; paths inside it are relative to this."""
        return self._folder

    @field_validator("site")
    @classmethod
    def _name(cls, value: str) -> str:
        try:
            return names.site_id(value)
        except InputError as error:
            raise ValueError(f"{error.message} | {error.hint}") from None

    @field_validator("officer")
    @classmethod
    def _public_key(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{194}", value):
            raise ValueError("officer is not a public key | give its 64 hexadecimal digits (fips: 194), in quotes")
        return value


def load_site(path: Path) -> Site:
    """Return the site file at ``path``.

    Raises:
        ConfigError: see :mod:`fedsci.config.loading`.
    """
    site = parse(Site, read_document(path, kind="site"))
    site._folder = path.resolve().parent
    return site
