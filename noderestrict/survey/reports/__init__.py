"""Reports, one file each; the file's name is the value of ``--output``."""

from noderestrict.policy.report_files import ReportFiles
from noderestrict.survey.findings import Findings, FoundRight, OtherAccess

_FILES: ReportFiles[Findings] = ReportFiles(__name__, __path__)
NAMES, written = _FILES.names, _FILES.written


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
