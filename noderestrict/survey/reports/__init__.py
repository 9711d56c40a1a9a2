"""Reports, one file each; the file's name is the value of ``--output``."""

import importlib
import pkgutil

from noderestrict.survey.findings import Findings, FoundRight, OtherAccess

#: The files of this folder, which are loaded only when they are used.
NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def written(name: str, findings: Findings, *, colour: bool = False) -> str:
    """Return a report.

    Args:
        name: one of ``NAMES``.
        findings: to report.
        colour: use terminal colours, where the report knows any.
    """
    module = importlib.import_module(f"{__name__}.{name}")
    text: str = module.report(findings, colour=colour)
    return text


def access(one: FoundRight | OtherAccess) -> str:
    """Return verbs, resources and where they hold, as people write them."""
    resources = one.resources if isinstance(one, FoundRight) else (one.resource,)
    return f"{', '.join(one.verbs)} {', '.join(resources)} {scope(one)}"


def scope(one: FoundRight | OtherAccess) -> str:
    """Return where something holds, in words."""
    names = f"named {' or '.join(one.names)}" if one.names else ""
    if one.namespaces:
        spaces = "namespace" if len(one.namespaces) == 1 else "namespaces"
        return f"{names} in {spaces} {', '.join(one.namespaces)}".strip()
    return names or "everywhere"
