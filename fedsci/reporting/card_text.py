"""What a model card says in words, from its figures."""

from collections.abc import Iterator, Mapping
from typing import Any

from fedsci.reporting.card_facts import licence_of
from fedsci.reporting.markdown import bullets, code, plain, section, table
from fedsci.reporting.page import epsilon_words

NOT_STATED = "Not stated by the study."
_OVERALL = {
    "federated": "shared model, all held-out records",
    "federated_mean_site": "shared model, mean of labs",
    "local_mean_site": "each lab alone, same privacy, mean of labs",
    "local_no_dp_mean_site": "each lab alone, no privacy, mean of labs",
    "personalised_mean_site": "shared model adapted by each lab, mean of labs",
    "pooled": "one model of all records in one place, no privacy",
    "pooled_dp": "one model of all records in one place, same epsilon",
    "local_noise": "shared model, each lab adding all the noise itself",
}
_OWN = {"federated": "shared model", "local": "alone", "local_no_dp": "alone, no privacy", "personalised": "adapted"}
_SIMULATED = ("local", "ray")


def card_text(values: Mapping[str, Any]) -> str:
    """Return the card below its front matter, as Markdown."""
    parts = [
        f"# {values['study']}",
        f"*{plain(values['question'])}*" if values["question"] else "The study states no question.",
        _opening(values),
        section("Intended use", plain(values["intended_use"] or NOT_STATED)),
        section("Forbidden use", plain(values["forbidden_use"] or NOT_STATED)),
        section("Data", _data(values)),
        section("Results", _results(values)),
        section("Results by lab", _by_lab(values)),
        section("Differential privacy", _privacy(values)),
        section("Secure aggregation", _masking(values)),
        section("Training", _training(values)),
        section("Limitations", bullets(_limitations(values))),
        section("Audit log", _log(values)),
        section("How to check this card", _check()),
    ]
    return "\n\n".join(parts) + "\n"


def simulated(values: Mapping[str, Any]) -> bool:
    """Whether one machine played all labs."""
    return values["engine"] in _SIMULATED


def _opening(values: Mapping[str, Any]) -> str:
    model, training = values["model"], values["training"]
    how = "simulated on one machine" if simulated(values) else "each a process of its own"
    ended = "" if values["status"] == "completed" else f" The run ended as **{values['status'].replace('_', ' ')}**."
    return (
        f"A {model['family']} model of {model['parameters']} parameters for a {model['task']} task "
        f"({code(model['target'])}), trained by fedsci {plain(values['software']['fedsci'])} over "
        f"{training['labs']} labs, {how}; finished {plain(values['finished'])}.{ended} The file `{model['file']}` has "
        f"SHA-256 `{model['digest'].removeprefix('sha256:')}`; the plan is `{values['plan']}`."
    )


def _data(values: Mapping[str, Any]) -> str:
    data, licence = values["data"], licence_of(values)
    rows = [
        (
            site,
            f"`{lab['record']}`" if lab["record"] else "no record",
            plain(lab["version"] or "–"),
            plain(lab["licence"] or "not stated"),
            _or_dash(lab["train"]),
            _or_dash(lab["holdout"]),
        )
        for site, lab in data["labs"].items()
    ]
    without = sum(lab["record"] is None for lab in data["labs"].values())
    words = [
        f"Every lab trained on its own data set {code(data['name'])}, with {len(data['columns'])} columns as the "
        "plan names and bounds them (front matter, `fedsci.data.columns`). The data stayed at the labs."
    ]
    if without:
        words.append(
            f"{without} of {len(rows)} labs signed no record of their data in this run: what it is and where it comes "
            "from is known here from the plan only."
        )
    words.append(f"Licence of all records: {plain(licence)}." if licence else "The records state no common licence.")
    head = ("lab", "data-set record", "version", "licence", "training records", "held out")
    return " ".join(words) + "\n\n" + table(head, rows)


def _results(values: Mapping[str, Any]) -> str:
    results = values["results"]
    overall, names = results["overall"], _metrics(results["overall"].values())
    if not overall:
        return "No test result left the labs: nothing is known of how good the model is."
    rows = [
        (label_words, *(_figure(overall[label].get(name)) for name in names))
        for label, label_words in _OVERALL.items()
        if label in overall
    ]
    better = "higher" if results["higher_is_better"] else "lower"
    noised = (
        " Not every lab lets exact results leave: those of the shared model carry privacy noise, and their intervals "
        "are of the noise."
        if results["noised"]
        else ""
    )
    return (
        f"On records that the labs held out, none of them used for training. `{results['primary']}` decides ({better} "
        f"is better). In brackets: 95 % intervals over the choice of records; the front matter says where each is from "
        f"(`records`: as the run measured it; `wilson`: of a share; `noise`: of the privacy noise).{noised}\n\n"
        + table(("model", *names), rows)
    )


def _by_lab(values: Mapping[str, Any]) -> str:
    labs, name = values["results"]["labs"], values["results"]["primary"]
    shown = [label for label in _OWN if any(label in own for own in labs.values())]
    if not shown:
        return "No lab lets its own results be seen."
    rows = [
        (
            site,
            _or_dash(values["data"]["labs"][site]["holdout"]),
            *(_figure(own[label].get(name)) if label in own else "not shown" for label in shown),
        )
        for site, own in labs.items()
    ]
    return (
        f"`{name}` on each lab's own held-out records, where the lab's policy lets it be seen; other metrics are in "
        "the front matter (`fedsci.results.labs`).\n\n"
        + table(("lab", "held out", *(_OWN[label] for label in shown)), rows)
    )


def _privacy(values: Mapping[str, Any]) -> str:
    privacy = values["privacy"]
    if privacy["mechanism"] == "none":
        return "**No guarantee.** No noise was added: the model may give away single records of its training data."
    of = f" ({plain(privacy['group_by'])})" if privacy["group_by"] else ""
    holds = (
        f"the sum over the labs: against whoever sees the model, and against the coordinator together with up to "
        f"{privacy['colluding_sites']} labs; it rests on secure aggregation"
        if privacy["trust_model"] == "sum_over_labs"
        else "each lab by itself: against everybody else"
    )
    lines = [
        f"Unit of privacy: one {privacy['unit']}{of}. Neighbouring relation: "
        f"{privacy['neighbouring'].replace('_', ' ')}.",
        f"Epsilon **{epsilon_words(privacy['epsilon'])}** at delta **{privacy['delta']:g}** at most at any lab "
        f"(planned: {privacy['epsilon_planned']:g}).",
        f"Accountant: {privacy['accountant']['name']} (privacy loss distributions), "
        f"{privacy['accountant']['library']} {plain(privacy['accountant']['version'])}.",
        f"Clipping norm {privacy['clipping_norm']:g}; noise multiplier {privacy['noise_multiplier']:.6g}; sample rate "
        f"{privacy['sample_rate']:g}; {privacy['releases_per_round']} noised release(s) a round; "
        f"{privacy['rounds_charged']} rounds charged.",
        f"Trust model: the guarantee is of {holds}.",
    ]
    if privacy["scaling"]:
        lines.append(f"Epsilon and delta hold what measuring the scaling cost first (`{privacy['scaling']}/`).")
    if any(values["results"]["labs"].values()) or (values["results"]["overall"] and not values["results"]["noised"]):
        lines.append("Not covered: exact test results, as shown above, left the labs without noise.")
    rows = [(site, epsilon_words(value)) for site, value in privacy["epsilon_by_lab"].items()]
    return (
        bullets(lines)
        + "\n\n"
        + table(("lab", "epsilon of this study"), rows)
        + "\n\nThe whole argument is in `privacy_statement.md`."
    )


def _masking(values: Mapping[str, Any]) -> str:
    masking = values["secure_aggregation"]
    if not masking["enabled"]:
        return "Off: the coordinator saw each lab's update by itself."
    return (
        f"On ({masking['protocol']}): the coordinator learned sums over at least {masking['smallest_sum']} labs, and "
        "no update of a single lab."
    )


def _training(values: Mapping[str, Any]) -> str:
    training = values["training"]
    lines = [
        f"Strategy {code(training['strategy'])}"
        + (f" ({plain(training['paper'])})" if training["paper"] else "")
        + ".",
        f"{training['rounds_completed']} of {training['rounds_planned']} rounds; learning rate "
        f"{training['learning_rate']:g}, momentum {training['momentum']:g}, sample rate {training['sample_rate']:g}; "
        f"server optimiser {training['server_optimiser']}.",
    ]
    if training["local_epochs"] is not None:
        lines.append(f"{training['local_epochs']} local epoch(s) a round, batches of {training['batch_size']}.")
    gaps = {"refuse": "were refused", "drop": "dropped their row", "impute": "were imputed from public bounds"}
    scaled = "public bounds" if training["scaling"] == "bounds" else "means and deviations measured over all labs first"
    lines.append(f"Numbers are scaled by {scaled}; gaps {gaps[training['missing']]}.")
    lines.append(f"{training['holdout']:.0%} of the records were held out at each lab; seed {training['seed']}.")
    if training["personalised"] != "none":
        lines.append(f"Each lab also adapted the model for itself ({training['personalised']}); those stayed inside.")
    return bullets(lines)


def _limitations(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield what follows from the run's facts; nothing is guessed."""
    results, training = values["results"], values["training"]
    if values["status"] != "completed":
        yield f"The run did not complete: {plain(values['reason'] or 'no reason given')}."
    if simulated(values):
        yield "The labs were simulated on one machine: how the model does at real labs was not measured."
    yield "Tested only on held-out records of the labs that trained it: nothing is known of other places or times."
    yield "No result was computed by subgroup (sex, age, origin or the like): how fair the model is is not known."
    if results["worse_than_alone"]:
        yield (
            f"On `{results['primary']}` it does worse than the lab's own model at "
            f"{', '.join(results['worse_than_alone'])}."
        )
    hidden = [site for site, own in results["labs"].items() if "federated" not in own]
    if hidden:
        yield f"How it does at {', '.join(hidden)} is not shown."
    if training["dropped"]:
        missed = ", ".join(f"{site} ({rounds})" for site, rounds in training["dropped"].items())
        yield f"Labs that were missing in rounds (how many): {missed}."
    if training["rounds_abandoned"]:
        yield f"{training['rounds_abandoned']} round(s) were begun and not applied."
    few = [site for site, lab in values["data"]["labs"].items() if lab["holdout"] is not None and lab["holdout"] < 30]
    if few:
        yield f"Fewer than 30 records were held out at {', '.join(few)}: results there are rough."
    if values["model"]["kept_at_labs"]:
        yield "Some layers are kept at each lab; the file holds where all labs began, not what they use."
    if values["privacy"]["mechanism"] == "none":
        yield "No privacy guarantee: do not give the model to whoever must not learn of single records."


def _log(values: Mapping[str, Any]) -> str:
    log = values["log"]
    if log is None:
        return "The run folder holds no checkpoint of an audit log."
    return (
        f"Log {code(log['origin'])}, {log['size']} entries, root `{log['root']}`; a checkpoint counts with "
        f"{log['quorum']} witnesses (`audit/checkpoints/{log['size']}.note`)."
    )


def _check() -> str:
    return (
        "Every figure above also stands in the front matter under `fedsci`, and is worked out again from the other "
        "files of the run folder. The coordinator's signature of this file, if it was signed, is in "
        "`model_card.sig.json`."
    )


def _metrics(figures: Any) -> list[str]:
    return list(dict.fromkeys(name for each in figures for name in each))


def _figure(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "–"
    if figure["low"] is None:
        return f"{figure['value']:.3f} (no interval)"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def _or_dash(number: int | None) -> str:
    return "–" if number is None else str(number)
