"""Reports, one file each; the file's name is the value of ``--output``.

They escape whatever a node may have chosen.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from noderestrict.replay.report import Options, Report

#: The files of this folder, which are loaded only when they are used.
NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def create(name: str, options: "Options") -> "Report":
    """Return a new report.

    Args:
        name: one of ``NAMES``.
        options: where it goes and what it shows.
    """
    module = importlib.import_module(f"{__name__}.{name}")
    report: Report = module.REPORT(options)
    return report
