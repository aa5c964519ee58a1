"""A run folder written by hand, its report, and what a browser would see of that."""

import copy
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import yaml

from fedsci.reporting import write_report

PLAN: dict[str, Any] = {
    "study": "heart-disease",
    "question": "Does this patient have heart disease?",
    "strategy": "dp_fedsgd",
    "privacy": {"unit": "record", "mechanism": "distributed", "delta": 1e-5, "colluding_sites": 1},
    "secure_aggregation": {"min_survivors": 3},
    "seed": 7,
}
SUMMARY: dict[str, Any] = {
    "fedsci": "0.1.0",
    "study": "heart-disease",
    "plan_digest": "sha256:" + "ab" * 32,
    "engine": "local",
    "seed": 7,
    "status": "completed",
    "rounds_completed": 3,
    "sites": ["lab-01", "lab-02", "lab-03", "lab-04", "lab-05", "lab-06"],
    "metrics": {
        "primary": "accuracy",
        "higher_is_better": True,
        "federated": {"accuracy": 0.853, "log_loss": 0.412},
        "federated_mean_site": {"accuracy": 0.847, "log_loss": 0.421},
        "local_mean_site": {"accuracy": 0.731},
        "local_no_dp_mean_site": {"accuracy": 0.802},
        "pooled": {"accuracy": 0.871},
        "pooled_dp": {"accuracy": 0.858},
        "by_site": {
            "lab-01": {
                "federated": {"accuracy": 0.866},
                "local": {"accuracy": 0.743},
                "local_no_dp": {"accuracy": 0.811},
                "records": {"train": 227, "holdout": 76},
            },
            "lab-02": {
                "federated": {"accuracy": 0.701},
                "local": {"accuracy": 0.754},
                "local_no_dp": {"accuracy": 0.822},
                "records": {"train": 1227, "holdout": 409},
            },
            "lab-03": {
                "federated": {"accuracy": 0.911},
                "local": {"accuracy": 0.907},
                "local_no_dp": {"accuracy": 0.909},
                "records": {"train": 90, "holdout": 30},
            },
            "lab-04": None,
            "lab-05": None,
            "lab-06": None,
        },
    },
    "privacy": {
        "unit": "record",
        "mechanism": "distributed",
        "delta": 1e-5,
        "accountant": "pld",
        "by_site": {
            "lab-01": {"epsilon_spent_study": 1.98, "epsilon_spent_total": 3.21, "epsilon_budget": 8.0},
            "lab-02": {"epsilon_spent_study": 1.97, "epsilon_spent_total": 1.97, "epsilon_budget": 4.5},
            "lab-03": {"epsilon_spent_study": 1.96, "epsilon_spent_total": 1.96, "epsilon_budget": None},
        },
    },
    "secure_aggregation": {"enabled": True, "min_survivors": 3, "dropped": [["lab-02", 2]]},
    "traffic_bytes": {"up": 1_500_000, "down": 900_000},
    "seconds": {"total": 12.5, "training": 8.1},
}
ROUNDS: list[dict[str, Any]] = [
    {
        "round": number,
        "metrics": None if number == 2 else {"accuracy": 0.6 + number / 12},
        "mean_site": {"accuracy": 0.59 + number / 12},
        "sites": 6,
        "dropped": [],
        "epsilon": {"max": number / 2},
        "seconds": 0.1,
    }
    for number in (1, 2, 3)
]


def written(folder: Path, *, plan: Any = PLAN, summary: Any = SUMMARY, rounds: Any = ROUNDS) -> Path:
    """A run folder with these files; None leaves one out, text goes in as it is."""
    folder.mkdir(exist_ok=True)
    if plan is not None:
        (folder / "plan.yaml").write_text(plan if isinstance(plan, str) else yaml.safe_dump(plan))
    if summary is not None:
        (folder / "summary.json").write_text(summary if isinstance(summary, str) else json.dumps(summary))
    if rounds is not None:
        lines = rounds if isinstance(rounds, str) else "".join(json.dumps(entry) + "\n" for entry in rounds)
        (folder / "metrics.jsonl").write_text(lines)
    return folder


def page_of(folder: Path, **files: Any) -> str:
    return write_report(written(folder, **files)).read_text(encoding="utf-8")


def changed(**parts: Any) -> dict[str, Any]:
    """The summary with some top-level mappings updated."""
    summary = copy.deepcopy(SUMMARY)
    for key, value in parts.items():
        summary[key] = {**summary[key], **value} if isinstance(value, dict) else value
    return summary


class Reader(HTMLParser):
    """Collects what a browser would see: tags with attribute names, and the text."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str, str]] = set()
        self.text = ""
        self.open: list[str] = []

    @property
    def classes(self) -> set[str]:
        return {each for _, name, value in self.attributes if name == "class" for each in value.split()}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(tag, name, value or "") for name, value in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(tag, name, value or "") for name, value in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader
