"""Reports, one file each; the file's name is the value of ``--output``.

They escape whatever a node may have chosen.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from noderestrict.verify.results import Findings

#: The files of this folder, which are loaded only when they are used.
NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def written(name: str, findings: "Findings", *, colour: bool = False) -> str:
    """Return a report.

    Args:
        name: one of ``NAMES``.
        findings: to report.
        colour: use terminal colours, where the report knows any.
    """
    module = importlib.import_module(f"{__name__}.{name}")
    text: str = module.report(findings, colour=colour)
    return text
