"""An old CA is dropped only when every endpoint of the Service serves the new certificate."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from noderestrict.certs import bundles
from noderestrict.pki.bundle import certificates
from tests.cli.store import Store, served
from tests.cli.test_certs_kept import (
    CA,
    HOOKS,
    SECRETS,
    TLS,
    Cluster,
    api_servers_notice_at_once,
    bootstrapped,
    cluster,
)

__all__ = ["api_servers_notice_at_once", "cluster"]

SLICES = "/apis/discovery.k8s.io/v1/namespaces/noderestrict/endpointslices"
AT_SERVICE = ("--served-at", "noderestrict.noderestrict.svc:443", "--wait", "0")


def slices(store: Store, *endpoints: tuple[str, dict[str, Any]]) -> None:
    """Publish endpoints, each an address with its conditions."""
    items = []
    for address, conditions in endpoints:
        host, _, port = address.rpartition(":")
        items.append(
            {
                "endpoints": [{"addresses": [host], "conditions": conditions}],
                "ports": [{"name": "metrics", "port": 1}, {"name": "https", "port": int(port)}],
            }
        )
    store.objects[SLICES] = {"metadata": {}, "items": items}


@contextlib.contextmanager
def outdated(cluster: Cluster) -> Iterator[str]:
    """Serve the certificate that was in the Secret before; yields its address."""
    before = Store()
    before.objects[f"{SECRETS}/noderestrict-tls"] = cluster.store.objects[
        f"{SECRETS}/noderestrict-tls"
    ]
    with served(before, "noderestrict-tls") as address:
        yield address


@pytest.fixture(params=["kept", "thrown away"])
def flags(request: pytest.FixtureRequest, cluster: Cluster) -> tuple[str, ...]:
    kept = CA if request.param == "kept" else ()
    assert cluster.certs("bootstrap", *TLS, *kept, *HOOKS)[0] == 0
    return (*TLS, *kept, *HOOKS, *AT_SERVICE)


def rotated(cluster: Cluster, flags: tuple[str, ...]) -> str:
    code, output = cluster.certs("rotate", *flags)
    assert code == 0, output
    dropped = "the old CA is dropped" in output
    assert dropped == ("not served yet" not in output)
    assert len(certificates(cluster.bundle())) == (1 if dropped else 2)
    return "" if dropped else output


def test_every_endpoint_is_asked(cluster: Cluster, flags: tuple[str, ...]) -> None:
    with (
        outdated(cluster) as old,
        served(cluster.store, "noderestrict-tls") as first,
        served(cluster.store, "noderestrict-tls") as second,
    ):
        slices(cluster.store, (first, {"ready": True}), (old, {}))
        output = rotated(cluster, flags)
        assert f"{old}: " in output
        assert f"{first}: " not in output
        if "--ca-secret" in flags:
            slices(cluster.store, (first, {"ready": True}), (second, {"ready": True}))
            assert rotated(cluster, flags) == ""


def test_an_endpoint_that_is_not_ready_but_serves_the_old_certificate_counts(
    cluster: Cluster, flags: tuple[str, ...]
) -> None:
    with outdated(cluster) as old, served(cluster.store, "noderestrict-tls") as new:
        slices(cluster.store, (new, {"ready": True}), (old, {"ready": False}))
        assert f"{old}: " in rotated(cluster, flags)


def test_endpoints_that_end_or_are_not_ready_and_silent_do_not_count(
    cluster: Cluster, flags: tuple[str, ...]
) -> None:
    with outdated(cluster) as old, served(cluster.store, "noderestrict-tls") as new:
        slices(
            cluster.store,
            (new, {"ready": None}),
            ("127.0.0.1:1", {"ready": False}),
            (old, {"ready": False, "serving": True, "terminating": True}),
        )
        assert rotated(cluster, flags) == ""


def test_without_a_ready_endpoint_nobody_has_answered(
    cluster: Cluster, flags: tuple[str, ...]
) -> None:
    slices(cluster.store, ("127.0.0.1:1", {"ready": False}))
    assert "has no ready endpoint" in rotated(cluster, flags)


def test_a_ready_endpoint_that_does_not_answer_is_named(
    cluster: Cluster, flags: tuple[str, ...]
) -> None:
    slices(cluster.store, ("127.0.0.1:1", {"ready": True}))
    assert "127.0.0.1:1: " in rotated(cluster, flags)


def test_who_may_not_read_the_endpoints_keeps_the_old_ca(
    cluster: Cluster, flags: tuple[str, ...]
) -> None:
    cluster.store.refused.add(("GET", SLICES))
    output = rotated(cluster, flags)
    assert f"Service noderestrict/noderestrict cannot be read: GET {SLICES}: 403" in output


def test_several_addresses_must_all_serve_the_new_certificate(
    cluster: Cluster, flags: tuple[str, ...]
) -> None:
    with outdated(cluster) as old, served(cluster.store, "noderestrict-tls") as new:
        hosts = ("--served-at", new, "--served-at", old)
        assert f"{old}: " in rotated(cluster, (*flags[:-4], *hosts, "--wait", "0"))


def test_callers_notice_a_new_ca_before_what_it_has_signed_is_written(
    cluster: Cluster, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = cluster.store.data("noderestrict-tls")
    found = []

    async def sleep(seconds: float) -> None:
        found.append((seconds, len(certificates(cluster.bundle())),
                      cluster.store.data("noderestrict-tls") == old))  # fmt: skip

    monkeypatch.setattr(bundles, "NOTICED_SECONDS", 5.0)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    cluster.certs("rotate", *flags)
    assert found[0] == (5.0, 2, True)


def test_a_rotation_that_was_interrupted_is_finished_by_the_next(cluster: Cluster) -> None:
    bootstrapped(cluster)
    old = cluster.store.objects[f"{SECRETS}/noderestrict-tls"]
    with served(cluster.store, "noderestrict-tls") as address:
        flags = (*TLS, *CA, *HOOKS, "--served-at", address, "--wait", "0")
        assert "not served" in cluster.certs("rotate", *flags[:-3], "127.0.0.1:1", *flags[-2:])[1]
        # As if it had ended before the certificate was written.
        cluster.store.put(f"{SECRETS}/noderestrict-tls", old)
        assert "is dropped" in cluster.certs("rotate", *flags)[1]
    assert cluster.certs("check", *TLS, *CA, *HOOKS) == (0, "all is well\n")
