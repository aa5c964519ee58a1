"""Writes ``privacy_statement.md``: what a finished study promises, in the terms NIST SP 800-226 (2025) asks for."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from fedsci.config.plan import Plan
from fedsci.config.study import Privacy
from fedsci.coordinator.summary import SCALING
from fedsci.errors import InputError, VerificationFailed
from fedsci.privacy import local_noise, rounding_noise
from fedsci.privacy.meaning import meaning_of, plain_words
from fedsci.reporting import deployment
from fedsci.reporting.agreement import first_line
from fedsci.reporting.alarm_facts import alarms_of
from fedsci.reporting.collusion import Against, added, collusion_table
from fedsci.reporting.evidence import Evidence, read_evidence
from fedsci.reporting.markdown import bullets, code, plain, section, table
from fedsci.reporting.page import epsilon_words
from fedsci.reporting.run_folder import mapping, text
from fedsci.reporting.units import unit_words
from fedsci.reporting.whole_file import write_whole

STATEMENT = "privacy_statement.md"
USUAL_DELTA = 1e-5
_ROWS_OF_ONE_PERSON = (1, 2, 3, 5)


def write_statement(run_folder: Path) -> Path:
    """Write the statement of the run in ``run_folder`` and return its path; the same files give the same text.

    Raises:
        InputError: a part of it could not be stated truthfully (:func:`fedsci.reporting.evidence.read_evidence`),
            or it cannot be written.
    """
    content = render_statement(read_evidence(run_folder))
    target = run_folder / STATEMENT
    try:
        write_whole(target, content)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror}", hint="check the folder's rights") from None
    return target


def write_statements(run_folder: Path) -> Path:
    """Write the statement of the run, and before it that of what measured its scaling; return the run's.

    Raises:
        InputError: as :func:`write_statement`.
    """
    first = run_folder / SCALING
    if first.is_dir():
        write_statement(first)
    return write_statement(run_folder)


def check_statement(run_folder: Path) -> None:
    """Pass if the statement says what the run's files say. It names its folder, which may be called otherwise now.

    Raises:
        VerificationFailed: names the file, and the field that differs.
    """
    file = run_folder / STATEMENT
    try:
        content = file.read_bytes().decode()
    except (OSError, ValueError):
        raise VerificationFailed(f"{file} is missing or no text", file=STATEMENT) from None
    named = re.search(r"^Run `([^`\n]*)`, plan", content, flags=re.MULTILINE)
    try:
        evidence = read_evidence(run_folder)
        right = render_statement(replace(evidence, name=named[1] if named else evidence.name))
    except InputError as error:
        raise VerificationFailed(
            f"{file} cannot be held against its run: {error.message}", hint=error.hint, file=STATEMENT
        ) from None
    line = first_line(content, right)
    if line is not None:
        heading = next((each for each in reversed(right.split("\n")[:line]) if each.startswith("#")), "")
        where = f"line {line} ({heading.strip('# ')})"
        raise VerificationFailed(
            f"{file}: {where} is not what the run's files say",
            hint="fedsci privacy statement writes it again",
            file=STATEMENT,
            field=where,
        )


def render_statement(evidence: Evidence) -> str:
    """Return the statement as Markdown."""
    study = evidence.plan.study
    parts = [
        f"# Privacy statement: {study.study}",
        _line(study.question),
        f"Run {code(evidence.name)}, plan `{evidence.plan.digest}`, {_how_it_ended(evidence)}. This text is made "
        "from the run's files; every epsilon of this study was recomputed from the plan.",
        *(section(title, _filled(evidence, title, fill)) for title, fill in _fields(evidence)),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _fields(evidence: Evidence) -> list[tuple[str, Callable[[Evidence], str]]]:
    """Return what NIST SP 800-226 asks, in its order from promise to deployment, and how each field is filled."""
    return [
        ("To be decided by a person", lambda each: bullets(_flags(each))),
        (f"What it means for one {evidence.plan.study.privacy.unit}", _meaning),
        ("Unit of privacy", _unit),
        ("Guarantee", _guarantee),
        ("Trust model", _trust),
        ("Threat model", deployment.threats),
        ("Mechanism and sensitivity", _mechanism),
        ("Bounds of the data", deployment.bounds),
        ("Floating point", _floating_point),
        ("Side channels", deployment.side_channels),
        ("What was exposed before noise", _before_noise),
        ("Composition over time", _composition),
        ("Parameters before conversion", _parameters),
        ("Released without noise", lambda each: bullets(_without_noise(each))),
        ("Choices that depend on data", _choices),
        ("Utility and bias", deployment.utility),
        ("Collection of the data", deployment.collection),
        ("Access control", deployment.access),
    ]


def _filled(evidence: Evidence, title: str, fill: Callable[[Evidence], str]) -> str:
    """Return the text of a field.

    Raises:
        InputError: names the field, which the run's files do not fill.
    """
    try:
        body = fill(evidence)
    except InputError as error:
        raise InputError(f"{STATEMENT}, {title!r}: {error.message}", hint=error.hint) from None
    if not body.strip():
        raise InputError(f"{STATEMENT}, {title!r}: the run's files say nothing of it", hint="no statement is made")
    return body


def _how_it_ended(evidence: Evidence) -> str:
    wanted = evidence.plan.training.rounds
    if evidence.status == "completed":
        lost = len(evidence.abandoned)
        alarms = sum(one.certain for one in alarms_of(evidence.summary).each)
        why = "since the coordinator restarted" if not alarms else "since no honest labs have such a sum"
        why += " or the coordinator restarted" if 0 < alarms < lost else ""
        given_up = f"; {lost} more were begun and given up, {why}, and charged" if lost else ""
        return f"completed after {evidence.rounds} rounds{given_up}"
    return f"**{evidence.status.replace('_', ' ')}** after {evidence.rounds} of {wanted} rounds"


def _flags(evidence: Evidence) -> list[str]:
    privacy, sites, delta = evidence.plan.study.privacy, evidence.sites, evidence.plan.whole_privacy[1]
    flags = []
    if evidence.status != "completed":
        flags.append(f"The run did not complete ({plain(text(evidence.summary.get('reason')) or 'no reason given')}).")
    if delta > USUAL_DELTA:
        flags.append(f"**Delta {delta:g} is above {USUAL_DELTA:g}.**")
    large = [site.site for site in sites if delta * site.records > 1]
    if large:
        flags.append(f"**Delta {delta:g} is above 1 / records at {', '.join(large)}**: a whole record may leak.")
    if privacy.unit == "record":
        flags.append("The unit is one record, which is event-level privacy: weak for a person with several rows.")
    else:
        flags.append(f"The unit is one {privacy.unit}. {unit_words(privacy).limits}")
    open_sites = [site.site for site in sites if not site.settled]
    if open_sites:
        flags.append(f"Not settled at {', '.join(open_sites)}: there the charge for the whole plan stays.")
    infinite = [site.site for site in sites if math.isinf(site.total)]
    if infinite:
        flags.append(f"**Studies without any privacy have run on the same data at {', '.join(infinite)}.**")
    if deployment.simulated(evidence):
        flags.append("The labs were simulated on one machine, whose user could see all records (see “Threat model”).")
    if unrecorded := deployment.unrecorded(evidence):
        flags.append(f"No record of the data was signed at {', '.join(unrecorded)} (see “Collection of the data”).")
    if _exact_results(mapping(evidence.summary, "metrics")):
        flags.append("Exact test results were released (see “Released without noise”).")
    return flags


_LAB_MODELS = ("local_mean_site", "local_no_dp_mean_site", "personalised_mean_site")


def _exact_results(metrics: Mapping[str, object]) -> bool:
    """Whether any test result left a lab without noise: the shared model's, a lab's own, or of one trained alone."""
    shared = metrics.get("federated") is not None and not metrics.get("noise_deviation")
    return shared or any(metrics.get(key) is not None for key in _LAB_MODELS)


def _meaning(evidence: Evidence) -> str:
    worst, delta = max(site.study for site in evidence.sites), evidence.plan.whole_privacy[1]
    meaning = meaning_of(epsilon=worst, delta=delta, profile=evidence.delta_at)
    return bullets(plain_words(meaning, epsilon=worst, delta=delta, unit=evidence.plan.study.privacy.unit))


def _unit(evidence: Evidence) -> str:
    words = unit_words(evidence.plan.study.privacy)
    grown = [(rows, value) for rows in _ROWS_OF_ONE_PERSON if (value := evidence.epsilon_of_rows(rows)) is not None]
    if not grown:
        return f"{words.what} {words.limits} By how much is not computed here where {words.unit}s are sampled."
    grown_table = table(
        (words.several, "epsilon of this study"), [(str(rows), _number(value)) for rows, value in grown]
    )
    return f"{words.what} {words.limits[:-1]}:\n\n{grown_table}"


def _guarantee(evidence: Evidence) -> str:
    privacy, (planned, delta) = evidence.plan.study.privacy, evidence.plan.whole_privacy
    worst = max(site.study for site in evidence.sites)
    return bullets(
        [
            f"Epsilon **{_number(worst)}** at delta **{delta:g}** for this study (planned: {planned:g}).",
            *_parts(evidence),
            "Variant: (epsilon, delta)-differential privacy, central over the labs' sum."
            if privacy.mechanism == "distributed"
            else "Variant: (epsilon, delta)-differential privacy, local to each lab.",
            _relation(privacy),
            f"Accountant: privacy loss distributions (dp_accounting {deployment.accountant_version(evidence)}), over "
            "all rounds of the study together.",
        ]
    )


def _parts(evidence: Evidence) -> list[str]:
    """Return how the guarantee is made up, where a pass measured the scaling."""
    first = evidence.scaling
    if first is None:
        return []
    by, privacy = first.plan.study.privacy, evidence.plan.study.privacy
    own = max(site.study - before.study for site, before in zip(evidence.sites, first.sites, strict=True))
    return [
        f"It is the sum of two parts (basic composition): measuring the scaling (`{SCALING}` in the run's folder, plan "
        f"`{first.plan.digest}`) cost epsilon {_number(max(site.study for site in first.sites))} at delta "
        f"{by.delta:g}, training {_number(own)} at delta {privacy.delta:g}."
    ]


def _trust(evidence: Evidence) -> str:
    privacy, cost = evidence.plan.study.privacy, evidence.cost
    if cost.share is None:
        return (
            "Each lab adds all the noise itself, so the guarantee holds against everybody: the coordinator, all other "
            "labs together, and whoever sees the model. Each lab must trust its own machine and operator only."
        )
    counted = cost.share.sites
    rows = _against(evidence)
    onlookers = table(
        ("who looks", "epsilon of this study"),
        [
            (row.who + (" (planned for)" if row.colluding == privacy.colluding_sites else ""), _number(row.epsilon[0]))
            for row in rows
        ],
    )
    took_part = ", ".join(f"{sites} labs in {rounds}" for sites, rounds in sorted(evidence.survivors.items()))
    return (
        f"Noise is shared out: it was sized so that the shares of {counted} labs alone give the guarantee "
        f"({evidence.plan.min_survivors} that must finish, less {privacy.colluding_sites} that may collude). It holds "
        f"against the coordinator together with up to {privacy.colluding_sites} labs, and against whoever sees the "
        f"model. A lab that does not add its share counts as colluding. It rests on secure aggregation "
        f"(docs/threat-model.md): only sums over at least {evidence.plan.min_survivors} labs can be opened.\n\n"
        f"Labs that took part, by rounds: {took_part}. With the noise they added:\n\n{onlookers}\n\n"
        "∞: nothing is proven."
    )


def _against(evidence: Evidence) -> tuple[Against, ...]:
    """Return what the run tells whom, what measured its scaling included."""
    rows = collusion_table(evidence.plan, evidence.cost, dimension=evidence.dimension, columns=(evidence.survivors,))
    return rows if evidence.scaling is None else added(rows, _against(evidence.scaling))


def _mechanism(evidence: Evidence) -> str:
    study, cost, training = evidence.plan.study, evidence.cost, evidence.plan.training
    clipped = _clipped(evidence.plan)
    sampled = (
        "All records take part in each step."
        if training.sample_rate == 1
        else f"Each {study.privacy.unit} takes part in a step with probability {training.sample_rate:g}, drawn "
        "secretly and anew each time (Poisson); what is divided by is the public expected number."
    )
    noise = (
        f"Discrete Gaussian noise of deviation {cost.noise_multiplier * study.privacy.clipping_norm:.4g} or more a "
        "coordinate is in every "
    ) + ("opened sum, in shares that add up." if cost.share else "lab's sum before it leaves.")
    return f"{clipped} {sampled} {noise} The full argument is in docs/privacy.md."


def _summed(plan: Plan) -> tuple[str, str]:
    """Return what each record has one of, and many have."""
    return ("statistic", "statistics") if plan.strategy.site_work == "statistics" else ("gradient", "gradients")


def _clipped(plan: Plan) -> str:
    privacy, (one, many) = plan.study.privacy, _summed(plan)
    if privacy.unit == "site":
        what = f"In each round a lab's whole update is scaled to an L2 norm of at most {privacy.clipping_norm:g}"
        return f"{what}. So the sum over labs moves by at most that norm when one lab is added or removed."
    whose = f"every record's {one}"
    if privacy.unit == "group":
        whose = f"the mean of the {many} of each group's records"
    return (
        f"In each step {whose} is scaled to an L2 norm of at most {privacy.clipping_norm:g}; a {one} that is not "
        f"finite contributes nothing. So a lab's sum moves by at most that norm when one {privacy.unit} is added or "
        "removed, and so does the sum over labs."
    )


def _relation(privacy: Privacy) -> str:
    where = "" if privacy.unit == "site" else " at one lab"
    return f"Neighbouring relation: add or remove one {privacy.unit}{where}. (Replacing one counts as two.)"


def _floating_point(evidence: Evidence) -> str:
    share, norm = evidence.cost.share, evidence.plan.study.privacy.clipping_norm
    slack = f"Rounding inside {_summed(evidence.plan)[1]} and sums is paid for by clipping 1e-5 below the bound."
    if share is None:
        grown = local_noise.sensitivity_inflation(evidence.dimension, evidence.cost.noise_multiplier) - 1
        return (
            "The sum is rounded to a grid far finer than the noise, and noise is drawn and added in integers (exact "
            f"discrete Gaussian; randomness of the operating system). Rounding raises the sensitivity by {grown:.1e}, "
            f"which is charged. {slack}"
        )
    grown = (
        rounding_noise.sensitivity_inflation(dimension=evidence.dimension, clipping_norm=norm, gamma=share.gamma) - 1
    )
    return (
        "No floating-point noise: each coordinate becomes an integer in one draw that rounds and adds noise (an exact "
        f"discrete Gaussian centred on the value; deviation {share.deviation:g} steps of {share.gamma:.6g}; randomness "
        "of the operating system). Integers are masked and summed without error. Truncating centres raises the "
        f"sensitivity by {grown:.1e}, which is charged. {slack}"
    )


def _before_noise(evidence: Evidence) -> str:
    stayed = f"Records and exact {_summed(evidence.plan)[1]} stayed in the lab's process."
    if evidence.cost.share is None:
        return f"Nothing left a lab before its noise was added. {stayed}"
    return (
        f"{stayed} What left it carried the lab's own share of the "
        "noise under a mask; unmasked it would have had the guarantee in the last line of the table above. The "
        "coordinator opened sums only."
    )


def _composition(evidence: Evidence) -> str:
    rows = [
        (
            site.site,
            f"{site.records}",
            f"{site.rounds}",
            _number(site.study),
            _number(site.total),
            _number(site.before),
            _number(site.enforced),
            f"{_number(site.policy.epsilon)} at {site.policy.delta:g}",
        )
        for site in evidence.sites
    ]
    head = (
        "lab",
        "records",
        "rounds charged",
        "this study",
        "all studies, fixed in advance",
        "enforced before",
        "enforced now",
        "budget",
    )
    scaling = ""
    if evidence.scaling is not None:
        scaling = " “This study” holds what measuring the scaling cost, and “enforced before” holds that charge, too."
    return (
        "All figures are epsilon. “Fixed in advance” is by PLD, valid had all studies of the data been planned before "
        "the first; “enforced” is by the ledger's Rényi filter, which also holds when a study is chosen after seeing "
        "the results of others, and is what the budget is compared with. The figures of all studies are as the labs "
        f"stated them when the run ended; `fedsci privacy ledger` shows each charge.{scaling}\n\n{table(head, rows)}"
    )


def _parameters(evidence: Evidence) -> str:
    cost = evidence.cost
    lines = [
        f"Noise multiplier {cost.noise_multiplier:.6g} (deviation over clipping norm); charged as a Gaussian of "
        f"{cost.charged:.6g}, less what the integer grid costs.",
        f"Sample rate {cost.sample_rate:g}; {cost.steps_per_round} noised release(s) a round; "
        f"{cost.steps_per_round * evidence.charged} in all; {evidence.dimension} coordinates.",
        f"A release is within total variation {cost.distance:.1e} of the charged event, which is counted in delta.",
    ]
    if evidence.scaling is not None:
        first, size = evidence.scaling.cost, evidence.scaling.dimension
        lines.append(
            f"These are of training. Measuring the scaling: noise multiplier {first.noise_multiplier:.6g}, charged as "
            f"{first.charged:.6g}; one release of {size} coordinates. Below, “this study” is training."
        )
    rows = [
        (
            site.site,
            f"{site.policy.order}",
            f"{site.rdp_study:.6g}",
            f"{site.rdp_total:.6g}",
            f"{site.policy.rdp_capacity:.6g}",
        )
        for site in evidence.sites
    ]
    head = ("lab", "Rényi order", "this study", "all studies", "capacity of the budget")
    return bullets(lines) + "\n\nRényi divergence at each ledger's fixed order:\n\n" + table(head, rows)


def _without_noise(evidence: Evidence) -> list[str]:
    metrics, by_site = mapping(evidence.summary, "metrics"), mapping(evidence.summary, "metrics", "by_site")
    lines = [
        "Each lab's number of training and held-out records; they are treated as public.",
        "Whether a lab's data fits the study's schema: a lab that refuses for that reason tells one bit.",
    ]
    if metrics.get("federated") is not None and not metrics.get("noise_deviation"):
        lines.append(
            "Exact test results of the shared model on held-out records, as sums over the labs whose policy lets them "
            "out, in each evaluated round. They are not covered by epsilon."
        )
    own = [site for site in by_site if mapping(by_site, site).get("federated") is not None]
    if own:
        whose = "all labs" if len(own) == len(evidence.sites) else ", ".join(map(plain, own))
        lines.append(f"The labs' own test results, of {whose}.")
    if metrics.get("local_mean_site") is not None:
        lines.append("Test results of models that labs trained alone with the same epsilon; the models stayed inside.")
    if metrics.get("local_no_dp_mean_site") is not None:
        lines.append(
            "Test results of models that labs trained alone **without privacy**, where their policy allows it; they "
            "depend on training records with no noise at all."
        )
    if metrics.get("personalised_mean_site") is not None:
        lines.append(
            "Test results of the joint model adapted by labs to their own records **without privacy**, where their "
            "policy allows it; they depend on training records with no noise at all. The adapted models stayed inside."
        )
    if any(metrics.get(key) is not None for key in ("pooled", "pooled_dp", "local_noise")):
        lines.append(
            "Baselines over all labs' records in one place. Only a simulation can compute them; real labs release none."
        )
    if len(lines) == 2:
        lines.append("No test results without noise." if metrics.get("noise_deviation") else "No test results.")
    return lines


def _choices(evidence: Evidence) -> str:
    scaled = "Features are scaled by public bounds of the study; no statistic of the data is used."
    if evidence.scaling is not None:
        scaled = (
            "Numbers are scaled by means and deviations that a study of its own measured over all labs first, with the "
            "same mechanism; it is charged like any study, and its cost is in the guarantee above."
        )
    return bullets(
        [
            "Model, clipping norm, noise, rounds, learning rate and sample rate were fixed in the plan before data was "
            "opened. There was no early stopping and no choice among models: the model is that of the last round.",
            scaled,
            "Why this plan was chosen is not known here. Earlier private studies that led to it are in the "
            "composition; exact results that somebody looked at are not.",
        ]
    )


def _number(value: float) -> str:
    return epsilon_words(value)


def _line(words: str) -> str:
    return f"*{plain(words)}*" if words else ""
