"""What a run tells people: a report page that opens offline."""

from fedsci.reporting.report import write_report

__all__ = ["write_report"]
