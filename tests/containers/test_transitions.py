"""From each overlay to each other one, and to itself, in every way that manifests are applied."""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import pytest

from tests.containers.cert_manager import run_cert_manager
from tests.containers.cluster import Cluster, until
from tests.containers.machine import Machine
from tests.containers.product import OVERLAYS, PLAIN_OVERLAYS, WAYS, Product
from tests.containers.requests import honest
from tests.containers.test_install import hostile_requests_are_refused
from tests.containers.traffic import Traffic


def walk(names: tuple[str, ...]) -> list[str]:
    """Return a walk that takes each step between two names, and from each to itself, once."""
    left = {(before, after) for before in names for after in names}
    path = [names[0]]

    def go(here: str) -> Iterator[list[str]]:
        if not left:
            yield list(path)
        for after in names:
            if (here, after) in left:
                left.remove((here, after))
                path.append(after)
                yield from go(after)
                path.pop()
                left.add((here, after))

    return next(go(names[0]))


def test_the_walk_takes_every_step_once() -> None:
    steps = list(pairwise(walk(OVERLAYS)))
    assert len(steps) == len(set(steps)) == len(OVERLAYS) ** 2


@pytest.fixture(scope="module")
def overlays(running: Cluster) -> tuple[str, ...]:
    """What a cluster can run."""
    if not isinstance(running, Machine):
        return PLAIN_OVERLAYS
    run_cert_manager(running)
    return OVERLAYS


@pytest.fixture(scope="module")
def alone() -> dict[str, set[str]]:
    """What each overlay leaves in a cluster in which nothing else was installed."""
    return {}


def settled(product: Product) -> set[str]:
    """Return what is there once cert-manager has removed the Secrets that it works with."""
    seen: list[set[str]] = []

    def unchanged() -> bool:
        seen.append(product.objects())
        return len(seen) > 4 and all(one == seen[-1] for one in seen[-4:])

    until("nothing changes", unchanged)
    return seen[-1]


def has_only(product: Product, wanted: set[str]) -> bool:
    return product.objects() == wanted


@pytest.mark.cluster
@pytest.mark.full
@pytest.mark.parametrize("way", WAYS)
def test_no_step_loses_a_request_or_leaves_an_object(
    product: Product, alone: dict[str, set[str]], overlays: tuple[str, ...], way: str
) -> None:
    cluster = product.cluster
    node = cluster.workers[0]
    for overlay in overlays:
        if overlay not in alone:
            product.remove()
            product.install(overlay)
            alone[overlay] = settled(product)
    product.remove()
    path = walk(overlays)
    product.install(path[0], way)
    faults = []
    for before, after in pairwise(path):
        problem = ""
        with Traffic(cluster, node, honest(cluster, node)) as traffic:
            try:
                product.install(after, way)
                until("nothing else is left", partial(has_only, product, alone[after]), 30)
            except AssertionError as error:
                problem = str(error)[-500:]
                product.overlay = after
        now = product.objects()
        left, missing = now - alone[after], alone[after] - now
        row = f"{way}: {before} → {after}: {traffic.lost()} of {traffic.answered()} lost"
        print(f"  {row}, left {left or 'nothing'}, missing {missing or 'nothing'} {problem}",
              flush=True)  # fmt: skip
        if traffic.lost() or problem:
            faults.append((row, left, missing, problem))
        if after != "audit":
            hostile_requests_are_refused(cluster)
    assert not faults
