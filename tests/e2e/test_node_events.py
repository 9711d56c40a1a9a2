"""Events about nodes on a real API server."""

import time
from typing import Any

import pytest

from noderestrict.render.load import documents
from noderestrict.render.registration import webhook_configuration
from tests.e2e.conftest import USER
from tests.e2e.control_plane import APIError
from tests.e2e.test_registration import (
    LEASES,
    NODES,
    RBAC,
    Registered,
    configured,
    lease,
    node_object,
    server,
    until_refused,
)
from tests.e2e.test_registration import registered as registered  # a fixture

EVENTS = "/api/v1/namespaces/default/events"
#: As kubectl describe asks for them.
QUERY = f"{EVENTS}?fieldSelector=involvedObject.kind=Node,involvedObject.name=n1"


def events(registered: Registered, number: int) -> list[dict[str, Any]]:
    """Return the Events about the node, once there are so many."""
    end = time.monotonic() + 30
    while len(found := registered.admin.get(QUERY)["items"]) < number:
        assert time.monotonic() < end
        time.sleep(0.1)
    return list(found)


def test_a_refused_node_has_an_event_once_the_server_may_write_it(registered: Registered) -> None:
    uid = registered.admin.create(NODES, node_object("n1"))["metadata"]["uid"]
    node = registered.control_plane.node("n1")
    with server(registered.control_plane, registered.folder, "events", "--events") as serving:
        client = registered.client_config(serving)
        with configured(registered, webhook_configuration(client)):
            # Dry runs, which leave none.
            until_refused(node)
            with pytest.raises(APIError, match=r"leases\.noderestrict\.io"):
                node.create(LEASES, lease("somebody-else"))
            # No right yet: the verdict is the same, and the log says what is missing.
            (line,) = serving.wait_for_log("an Event could not be written")
            assert "cannot create resource" in line
            grant(registered)
            (event,) = events(registered, 1)
    assert event["involvedObject"] == {
        "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid
    }  # fmt: skip
    assert (event["type"], event["reason"], event["count"]) == ("Warning", "NodeRequestRefused", 1)
    assert "somebody-else" in event["message"]
    assert event["metadata"]["managedFields"][0]["manager"] == "noderestrict"
    assert event["reportingComponent"] == "noderestrict"


def grant(registered: Registered) -> None:
    """Grant what the component for Events grants."""
    role, binding = documents("manifests/components/events/rbac.yaml")
    user = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": USER}
    registered.admin.create(f"{RBAC}/namespaces/default/roles", role)
    registered.admin.create(
        f"{RBAC}/namespaces/default/rolebindings", {**binding, "subjects": [user]}
    )
