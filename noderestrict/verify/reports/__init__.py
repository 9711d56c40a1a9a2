"""Reports, one file each; the file's name is the value of ``--output``.

They escape whatever a node may have chosen.
"""

from typing import TYPE_CHECKING

from noderestrict.policy.report_files import ReportFiles

if TYPE_CHECKING:
    from noderestrict.verify.results import Findings

_FILES: "ReportFiles[Findings]" = ReportFiles(__name__, __path__)
NAMES, written = _FILES.names, _FILES.written
