"""What a study protects, in words: the unit of privacy and the relation between neighbouring data sets."""

from dataclasses import dataclass

from fedsci.config.study import Privacy


@dataclass(frozen=True, kw_only=True)
class UnitWords:
    """One unit of privacy for readers.

    Attributes:
        unit: the noun: record, group, site.
        what: what one unit is.
        relation: how neighbouring data sets differ, to follow "whether" and to stand alone.
        limits: who is protected less, as a sentence; empty where nobody is.
        several: heads a column that counts units of one person; empty where a person has one at most.
    """

    unit: str
    what: str
    relation: str
    limits: str
    several: str


def unit_words(privacy: Privacy) -> UnitWords:
    """Return the words for a study's unit."""
    if privacy.unit == "group":
        column = privacy.group_by or "key"
        return UnitWords(
            unit="group",
            what=f"One group: all rows of a lab's data set with the same {column}, with all their columns.",
            relation=f"all rows of any lab with one {column} are added or removed together",
            limits=f"A person with several values of {column}, or with rows at several labs, is protected less.",
            several="groups of one person",
        )
    if privacy.unit == "site":
        return UnitWords(
            unit="site",
            what="One site: everything that one lab contributes.",
            relation="all that any one lab contributes is added or removed",
            limits="A person with rows at several labs is protected less.",
            several="labs with rows of one person",
        )
    return UnitWords(
        unit="record",
        what="One record: one row of a lab's data set, with all its columns.",
        relation="any one row of any lab is added or removed",
        limits="A person with several rows is protected less.",
        several="rows of one person",
    )
