"""Reports: from ``results.json`` to plots, tables and one self-contained HTML page."""

from slackdlm.report.page import write_report

__all__ = ["write_report"]
