"""Reports, one file each in a folder; the file's name is the value of ``--output``."""

import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType
from typing import Generic, TypeVar

_Findings = TypeVar("_Findings")


class ReportFiles(Generic[_Findings]):
    """The reports of a folder, which are loaded only when they are used.

    Args:
        package: the folder's.
        path: ``__path__`` of the package.

    Attributes:
        names: of the reports.
    """

    def __init__(self, package: str, path: Iterable[str]) -> None:
        self._package = package
        self.names = tuple(sorted(module.name for module in pkgutil.iter_modules(path)))

    def load(self, name: str) -> ModuleType:
        """Return the module of a report.

        Args:
            name: one of ``names``.
        """
        return importlib.import_module(f"{self._package}.{name}")

    def written(self, name: str, findings: _Findings, *, colour: bool = False) -> str:
        """Return a report.

        Args:
            name: one of ``names``.
            findings: to report.
            colour: use terminal colours, where the report knows any.
        """
        text: str = self.load(name).report(findings, colour=colour)
        return text
