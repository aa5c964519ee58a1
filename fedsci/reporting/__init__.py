"""What a run tells people: a report page that opens offline, a privacy statement, and what a study would cost."""

from fedsci.reporting.report import write_report

__all__ = ["write_report"]
