"""Who was in which round's sum, who was not, why, and what helps."""

from collections.abc import Iterable

from fedsci.reporting.alarm_facts import alarm_words
from fedsci.reporting.facts import RunFacts
from fedsci.reporting.page import esc, figure, name, paragraph, section, table
from fedsci.reporting.view_plots import participation_plot

_HINTS = (
    ("not connected", "see that the daemon runs and reaches the coordinator: fedsci site status SITE"),
    ("not registered", "start the daemon: fedsci site start SITE"),
    ("late", "a slower machine or line than the round's deadline allows: ask for a longer training.round_deadline_s"),
    ("busy", "one study at a time: it was still at work on an earlier request"),
    ("make the sum impossible", "nothing: the coordinator looks for whose uploads are wrong, and asks it again"),
    ("no sum was possible", "the coordinator asks the lab what it sent: docs/input-validation.md"),
    ("NaN or infinity", "lower training.learning_rate, or look for broken values in the lab's data"),
    ("does not fit the model", "the lab runs another version than the coordinator: fedsci --version at both"),
    ("budget", "fedsci privacy budget SITE shows what used it"),
    ("policy", "the lab's site file decides: policy, or fedsci site pending SITE"),
)


def missed(facts: RunFacts) -> dict[str, set[int]]:
    """Return for each lab the rounds whose sum it was not in; every lab is there, in the run's order."""
    rounds: dict[str, set[int]] = {lab.site: set() for lab in facts.labs}
    for each in facts.rounds:
        for site in each.dropped:
            rounds.setdefault(site, set()).add(each.number)
    for site, number, _ in facts.dropped:
        if site in rounds and number.isdecimal():
            rounds[site].add(int(number))
    return rounds


def lost(facts: RunFacts) -> set[int]:
    """Return the rounds that were asked for and never applied."""
    return {each.number for each in facts.rounds if each.abandoned}


def participation(facts: RunFacts) -> str:
    """Return the section with who took part, round by round, and who dropped out and why."""
    numbers = sorted({each.number for each in facts.rounds})
    plot = participation_plot(numbers, missed(facts), lost(facts))
    caption = "A lab that is not in a round’s sum adds nothing to the model in it."
    return section(
        "participation",
        "Who took part",
        alarm_words(facts.alarms),
        figure(plot, caption) if plot else paragraph("This run recorded no rounds."),
        dropouts(facts),
    )


def dropouts(facts: RunFacts) -> str:
    """Return a table of the labs that dropped out, with reasons and what helps."""
    if not facts.dropped:
        return paragraph("No lab dropped out of a round.")
    rounds_of: dict[tuple[str, str], list[str]] = {}
    for site, number, reason in facts.dropped:
        rounds_of.setdefault((site, reason), []).append(number)
    rows = [
        [name(site), rounds_words(numbers), esc(reason) or "not stated", esc(hint(reason))]
        for (site, reason), numbers in rounds_of.items()
    ]
    words = "Labs that were not in a round’s sum." if facts.buffered else "Labs that dropped out of a round."
    return table(words, ["Lab", "Rounds", "Reason", "What helps"], rows, text_columns=4)


def hint(reason: str) -> str:
    """Return what helps against a reason to drop out.

    >>> hint("late: no answer within 60 s")[:21]
    'a slower machine or l'
    """
    return next((words for part, words in _HINTS if part in reason), "the lab's own log has the details")


def rounds_words(numbers: Iterable[str]) -> str:
    """Return rounds for a reader, neighbours as one range; as HTML.

    >>> rounds_words(["1", "2", "3", "7"]), rounds_words(["4"]), rounds_words([""])
    ('1–3, 7', '4', 'not stated')
    """
    parts: list[tuple[int, int]] = []
    odd = []
    for number in numbers:
        if not number.isdecimal():
            odd += [esc(number)] if number else []
        elif parts and int(number) == parts[-1][1] + 1:
            parts[-1] = (parts[-1][0], int(number))
        else:
            parts.append((int(number), int(number)))
    words = [f"{first}" if first == last else f"{first}–{last}" for first, last in parts]
    return ", ".join([*words, *odd]) or "not stated"
