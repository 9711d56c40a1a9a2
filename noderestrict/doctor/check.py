"""What every check is: a name, a title and a function over the cluster."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a cluster.

    Attributes:
        name: printed with each finding.
        title: the question that it answers.
        check: yields findings; raises whatever keeps it from finding more.
    """

    name: str
    title: str
    check: Callable[[Cluster], AsyncIterator[Finding]]
