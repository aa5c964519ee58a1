"""The fields of a privacy statement that are of the deployment: who may see what, and how the data came to be.

NIST SP 800-226 (2025), sections 3 and 4: bounds, utility and bias; threat model, side channels, access control and
exposure of the collected data. A field that the run's files do not fill is an error, never a blank.
"""

from collections.abc import Mapping

from fedsci.config.study import ArrayColumn, CategoryColumn, NumericColumn, RegressionTask
from fedsci.errors import InputError
from fedsci.reporting.evidence import Evidence
from fedsci.reporting.markdown import bullets, plain
from fedsci.reporting.run_folder import finite, mapping, text

_COLLECTION = (
    "rai:dataCollection",
    "rai:dataCollectionType",
    "provenance",
    "prov:wasGeneratedBy",
    "prov:wasDerivedFrom",
)
_SENSITIVE = ("rai:personalSensitiveInformation", "rai:dataSensitivity", "sensitivity")


def simulated(evidence: Evidence) -> bool:
    """Whether one machine played all labs.

    Raises:
        InputError: the run does not say.
    """
    engine = text(evidence.summary.get("engine"))
    if engine not in ("local", "ray", "flower"):
        raise InputError(
            f"engine is {engine!r} in summary.json, so where the labs ran is not known",
            hint="restore summary.json as the run wrote it",
        )
    return engine != "flower"


def accountant_version(evidence: Evidence) -> str:
    """Return which release of dp_accounting composed the losses.

    Raises:
        InputError: the run does not say.
    """
    version = text(mapping(evidence.summary, "versions").get("dp-accounting"))
    if not version:
        raise InputError("versions.dp-accounting is not in summary.json", hint="restore it as the run wrote it")
    return plain(version)


def unrecorded(evidence: Evidence) -> list[str]:
    """Return the labs that signed no record of their data in this run."""
    return [site for site in evidence.plan.sites if site not in evidence.records]


def threats(evidence: Evidence) -> str:
    """Return who may be corrupt, and what is assumed of whom."""
    where = (
        "**This run was a simulation**: the records of all labs lay on one machine, and its user could read them. "
        "What is said here of labs and coordinator holds once each runs on a machine of its own."
        if simulated(evidence)
        else "Each lab ran as a process of its own, reached over TLS 1.3 with certificates on both sides; on whose "
        "machine is not in the run's files."
    )
    lines = [
        where,
        "The coordinator may deviate from the protocol, and choose studies after seeing earlier results.",
        "Whoever has the model may know everything but one unit of the data, and compute without limit.",
        "A lab is trusted with its own data: by nobody else, and with nobody else's.",
        "Assumed: the labs' machines and the noise's random numbers are not under an attacker's control.",
    ]
    if evidence.cost.share is not None:
        colluding = evidence.plan.study.privacy.colluding_sites
        lines.insert(2, f"Up to {colluding} labs may work together with the coordinator, and leave out their noise.")
    return bullets(lines)


def bounds(evidence: Evidence) -> str:
    """Return what bounds each value before it is used, and why the bounds tell nothing of the data."""
    study = evidence.plan.study
    kinds = [type(column) for column in study.features.values()]
    counted = {
        "numbers with a least and a largest value": kinds.count(NumericColumn),
        "arrays of such numbers": kinds.count(ArrayColumn),
        "categories from a list": kinds.count(CategoryColumn),
    }
    named = ", ".join(f"{number} {what}" for what, number in counted.items() if number)
    target = (
        f"the target lies between {study.task.min:g} and {study.task.max:g}"
        if isinstance(study.task, RegressionTask)
        else "the target is one of the plan's classes"
    )
    gaps = {
        "refuse": "a lab with a gap refuses the study, which tells one bit",
        "drop": "rows with gaps are left out, which the other rows do not depend on",
        "impute": "gaps are filled from the bounds, not from other rows",
    }[study.missing]
    return (
        f"Bounds are in the plan, which was fixed before data was opened: {named}; {target}. Values beyond them are "
        f"clipped and unlisted categories become “other” or are refused, row by row; {gaps}. How much one "
        f"{study.privacy.unit} moves a sum does not rest on these bounds but on the "
        "clipping above. Whether the bounds were chosen after looking at the data is not known here."
    )


def side_channels(evidence: Evidence) -> str:
    """Return what an observer of more than the messages may learn."""
    lines = [
        "Not covered by epsilon: how long a lab computes and when it answers, which its sample of records may "
        "influence; which labs take part and drop out; the sizes of messages, which follow from the plan.",
        "Not defended against: side channels in the labs' processes (caches, memory, power), traffic analysis, and a "
        "lab's machine that somebody else controls (docs/threat-model.md).",
        "Noise is drawn from the operating system's randomness and added in integers, so its low bits tell nothing: "
        "see “Floating point”. That a clipped contribution does not depend on other records was tested on CPUs only; "
        "what device a lab used is not in the run's files.",
    ]
    if evidence.plan.training.sample_rate == 1:
        lines[0] = (
            "Not covered by epsilon: how long a lab computes and when it answers; which labs take part and drop out; "
            "the sizes of messages, which follow from the plan."
        )
    return bullets(lines)


def utility(evidence: Evidence) -> str:
    """Return how good the result is at this epsilon, for whom it is worst, and what was not measured.

    Raises:
        InputError: the run does not name the metric that decides.
    """
    if not evidence.plan.makes_model:
        return "The run released statistics and no model; the deviation of their noise is known from the plan."
    metrics = mapping(evidence.summary, "metrics")
    name = text(metrics.get("primary"))
    if not name:
        raise InputError("metrics.primary is not in summary.json", hint="restore it as the run wrote it")
    named = (
        ("shared model, over all held-out records", "federated"),
        ("shared model, mean of labs", "federated_mean_site"),
        ("each lab alone with the same epsilon, mean of labs", "local_mean_site"),
        ("all records in one place without privacy", "pooled"),
    )
    found = [(words, finite(mapping(metrics, key).get(name))) for words, key in named]
    lines = [f"{name}, {words}: {value:.3f}." for words, value in found if value is not None]
    if not lines:
        lines = [f"No {name} was released: how useful the model is at this epsilon is not known."]
    worst = mapping(metrics, "federated_worst_site", name)
    value = finite(worst.get("value"))
    if value is not None:
        lines.append(f"It is worst at {plain(text(worst.get('site')))}: {value:.3f}.")
    lines.append(_worse_than_alone(metrics, name))
    lines.append(
        "Bias: noise and clipping cost most where records are few or unlike the others. Results by subgroup (sex, age, "
        "origin or the like) were not computed, so what privacy costs them is not known."
    )
    return bullets(filter(None, lines))


def _worse_than_alone(metrics: Mapping[str, object], name: str) -> str:
    by_site, higher = mapping(metrics, "by_site"), metrics.get("higher_is_better") is True
    both = {
        site: (finite(mapping(own, "federated").get(name)), finite(mapping(own, "local").get(name)))
        for site, own in by_site.items()
    }
    shown = {site: (joint, alone) for site, (joint, alone) in both.items() if joint is not None and alone is not None}
    worse = [site for site, (joint, alone) in shown.items() if (joint < alone if higher else joint > alone)]
    if not shown:
        return "No lab shows how it would do alone, so for whom the shared model is worse is not known."
    at = f"worse than the lab's own at {', '.join(map(plain, worse))}" if worse else "nowhere worse than the lab's own"
    return f"Of {len(shown)} labs that show both, the shared model is {at}."


def collection(evidence: Evidence) -> str:
    """Return how each lab's data came to be, as its signed record says.

    Raises:
        InputError: a lab signed a record that does not say.
    """
    lines = []
    for site, record in evidence.records.items():
        how, sensitive = record.said(*_COLLECTION), record.said(*_SENSITIVE)
        if not how:
            raise InputError(
                f"{site}'s record of its data ({record.statement}) does not say how it was collected",
                hint=f"it needs {_COLLECTION[0]}; fedsci data check names what a record lacks",
            )
        lines.append(
            f"{site}: {plain(how)}"
            + (f" Sensitive: {plain(sensitive)}." if sensitive else "")
            + f" (record `{record.digest}`)"
        )
    if without := unrecorded(evidence):
        lines.append(
            f"No record was signed at {', '.join(without)}: how that data was collected, and who could see it then, is "
            "**not stated** here; ask the lab."
        )
    lines.append(
        "Differential privacy protects what is released. It does not protect records while they are collected and "
        "kept, and says nothing of whether they may be used."
    )
    return bullets(lines)


def access(evidence: Evidence) -> str:
    """Return who can open what, as the system keeps it."""
    lines = [
        "Records and ledger: the lab's own account on its machine."
        if not simulated(evidence)
        else "Records and ledgers: the one account that ran the simulation; nothing kept the labs apart.",
        "Sums: the coordinator, and every lab as the next model."
        if evidence.cost.share is not None
        else "Each lab's noised contribution: the coordinator"
        + (", in sums only." if evidence.plan.study.secure_aggregation.enabled else ", one by one."),
        "The model and this run folder: whoever may read them, without limit; they are not encrypted, and the "
        "guarantee is for that case.",
        "More studies of the same data: as each lab's policy and budget allow (“Composition over time”).",
    ]
    if not simulated(evidence):
        lines.insert(1, "Taking part: sites and coordinator with a certificate of the consortium.")
    return bullets(lines)
