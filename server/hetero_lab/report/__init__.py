"""hetero-report: pages with figures from run directories, and their audit."""

from hetero_lab.report.command import ReportSettings, main

__all__ = ["ReportSettings", "main"]
