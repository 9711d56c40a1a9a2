"""Reports, one file each; the file's name is the value of ``--output``."""

from collections.abc import Iterable, Iterator

from noderestrict.api.resources import qualified
from noderestrict.exposure.findings import Findings, Step, Sums, Thing, UsedRequest
from noderestrict.exposure.steps import By, titled
from noderestrict.policy.report_files import ReportFiles

_FILES: ReportFiles[Findings] = ReportFiles(__name__, __path__)
NAMES, written = _FILES.names, _FILES.written

#: What is added to where a step leads, by how it does.
_HOW = {
    By.TOKEN: "its token",
    By.HOLDS: "the token in it",
    By.REFERS: "which it refers to",
    By.MOUNTS: "which it mounts",
    By.PRIVILEGED: "it is privileged",
    By.CAPABILITY: "by a capability that it has",
    By.HOST_FILES: "it mounts files of the node",
    By.CONTROL_PLANE: "control plane",
    By.IS: "with its credential",
    By.APPROVED: "which the kubelet requests",
    By.UNHELD: "its kubelet may write what it likes",
}


def title(thing: Thing) -> str:
    """Return a thing as people write it."""
    return titled((thing.kind, thing.namespace, thing.name))


def told_steps(steps: Iterable[Step]) -> Iterator[str]:
    """Yield a line for the start of a path, and one for each step."""
    for number, step in enumerate(steps):
        if not number:
            yield title(step.start)
        if step.by == By.MEMBER and not step.end.name:
            # All of them, and then those of a namespace: one line is enough.
            continue
        how = told_how(step)
        rights = " and ".join(map(told_request, step.requests))
        note = f" ({how})" if how else ""
        yield f"{rights}: {title(step.end)}" if rights else f"{title(step.end)}{note}"


def told_how(step: Step) -> str:
    """Return how a step leads on, "" if that is clear."""
    how = _HOW.get(By(step.by), "")
    return f"{how}, by {title(step.volume)}" if step.volume is not None else how


def told_request(request: UsedRequest) -> str:
    """Return a request and what grants it, as people write them."""
    resource, slash, sub_resource = request.resource.partition("/")
    group = f".{request.group}" if request.group else ""
    what = f"{resource}{group}{slash}{sub_resource}"
    name = f" {request.name}" if request.name else ""
    where = f" in namespace {request.namespace}" if request.namespace else ""
    return f"{request.verb} {what}{name}{where} by {granted(request)}"


def granted(request: UsedRequest) -> str:
    """Return what grants a request."""
    if request.binding == request.role:
        return (
            f"the {request.role.name} authorizer"
            if request.role.kind == "Authorizer"
            else (_written(request.role))
        )
    return f"{_written(request.binding)} → {_written(request.role)}"


def _written(thing: Thing) -> str:
    return f"{thing.kind} {qualified(thing.namespace, thing.name)}"


def fall(sums: Sums | None) -> str:
    """Return what falls with a node, in words."""
    if sums is None:
        return "no such node"
    steps = sums.cluster_steps
    if steps is not None:
        return f"cluster-admin in {steps} step{'s' * (steps != 1)}"
    return f"{sums.secrets} Secrets, {sums.service_accounts} accounts, {sums.nodes} other nodes"
