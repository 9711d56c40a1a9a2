"""Reports, one file each; the file's name is the value of ``--output``.

They escape whatever a node may have chosen.
"""

from typing import TYPE_CHECKING

from noderestrict.policy.report_files import ReportFiles

if TYPE_CHECKING:
    from noderestrict.replay.report import Options, Report

_FILES: ReportFiles[None] = ReportFiles(__name__, __path__)
NAMES = _FILES.names


def create(name: str, options: "Options") -> "Report":
    """Return a new report.

    Args:
        name: one of ``NAMES``.
        options: where it goes and what it shows.
    """
    report: Report = _FILES.load(name).REPORT(options)
    return report
