"""What changed since an earlier report."""

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from noderestrict.errors import NoderestrictError
from noderestrict.exposure.findings import Change, ExposedNode, Findings, Sums


class BaselineError(NoderestrictError, ValueError):
    """An earlier report cannot be read."""


def read(file: str) -> Findings:
    """Return an earlier report.

    Args:
        file: as ``--output json`` writes it.

    Raises:
        BaselineError: it cannot be read, or is something else.
    """
    try:
        return msgspec.json.decode(Path(file).read_bytes(), type=Findings)
    except OSError as error:
        raise BaselineError(f"{file}: {error.strerror or error}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BaselineError(f"{file}: no report of --output json: {error}") from None


def changes(before: Findings, after: Findings) -> tuple[Change, ...]:
    """Return how the nodes differ, the worst first."""
    old, new = _sums(before), _sums(after)
    found = [
        Change(name, _change(old.get(name), new.get(name)), old.get(name), new.get(name))
        for name in sorted({*old, *new})
        if _compared(old.get(name)) != _compared(new.get(name))
    ]
    return tuple(sorted(found, key=lambda one: _ORDER.index(one.change)))


_ORDER = ("worse", "new", "other", "better", "gone")


def _sums(findings: Findings) -> dict[str, Sums]:
    return dict(_each(findings.nodes)) | dict(_each(findings.control_planes))


def _each(nodes: tuple[ExposedNode, ...]) -> Iterator[tuple[str, Sums]]:
    for node in nodes:
        yield node.name, Sums(node.cluster_steps, node.secrets, node.service_accounts, node.nodes)


def _compared(sums: Sums | None) -> tuple[int | None, ...]:
    """Return what counts: where the cluster falls, how much that is tells nothing of the node."""
    if sums is None:
        return ()
    return (sums.cluster_steps,) if _fall(sums) else (None, *_numbers(sums))


def _change(before: Sums | None, after: Sums | None) -> str:
    if before is None:
        return "new"
    if after is None:
        return "gone"
    # The cluster counts more than all numbers, which grow with the cluster too.
    if _fall(before) or _fall(after):
        most = sys.maxsize
        worse = (after.cluster_steps or most) < (before.cluster_steps or most)
        return "worse" if worse else "better"
    signs = {
        (one > other) - (one < other)
        for one, other in zip(_numbers(after), _numbers(before), strict=True)
    } - {0}
    if len(signs) > 1:
        return "other"
    return "worse" if 1 in signs else "better"


def _fall(sums: Sums) -> bool:
    return sums.cluster_steps is not None


def _numbers(sums: Sums) -> tuple[int, int, int]:
    return sums.secrets, sums.service_accounts, sums.nodes
