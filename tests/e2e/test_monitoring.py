"""The API server's own metrics that alerts and dashboard use, as it exposes them."""

import re
import time

import pytest

from noderestrict.render.registration import webhook_configuration
from tests.e2e.control_plane import APIError
from tests.e2e.test_registration import (
    LEASES,
    Registered,
    configured,
    lease,
    until_refused,
)
from tests.e2e.test_registration import registered as registered  # a fixture
from tests.render.test_manifests import API_SERVER_METRICS, expressions, labels


def test_the_api_server_has_the_metrics_and_labels_that_are_asked_for(
    registered: Registered,
) -> None:
    node = registered.control_plane.node("watched")
    client = registered.client_config(registered.enforcing)
    with configured(registered, webhook_configuration(client)):
        # One refused, and one that the conditions keep from us.
        until_refused(node)
        node.create(LEASES, lease("watched"))
    away = {**client, "url": "https://127.0.0.1:1/validate"}
    with configured(registered, webhook_configuration(away, failure_policy="Ignore")):
        end = time.monotonic() + 30
        while "webhook_fail_open_count{" not in exposed(registered):
            node.request("PUT", f"{LEASES}/another", lease("another"))
            assert time.monotonic() < end
    with configured(registered, webhook_configuration(away)):
        end = time.monotonic() + 30
        while 'error_type="calling_webhook_error"' not in exposed(registered):
            with pytest.raises(APIError):
                node.request("PUT", f"{LEASES}/a-third", lease("a-third"))
            assert time.monotonic() < end
    text = exposed(registered)
    for expression in expressions():
        for metric in API_SERVER_METRICS:
            if metric in expression:
                series = re.findall(rf"^{metric}(?:_bucket)?{{(.*?)}} ", text, re.MULTILINE)
                assert any('name="leases.noderestrict.io"' in one for one in series), metric
                known = {label for one in series for label in re.findall(r"(\w+)=\"", one)}
                assert labels(expression) <= known, expression


def exposed(registered: Registered) -> str:
    """Return the API server's metrics."""
    return str(registered.admin.get("/metrics")["message"])
