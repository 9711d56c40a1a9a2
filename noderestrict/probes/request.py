"""One request to an API server, and the AdmissionReview that it leads to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from noderestrict.policy.identity import NODE_USER_PREFIX, NODES_GROUP
from noderestrict.policy.rule import CREATE, DELETE, UPDATE

Object = Mapping[str, Any]

_METHODS = {CREATE: "POST", UPDATE: "PATCH", DELETE: "DELETE"}
_OPTIONS = {CREATE: "CreateOptions", UPDATE: "PatchOptions", DELETE: "DeleteOptions"}


@dataclass(frozen=True, slots=True)
class API:
    """A resource as requests name it.

    Attributes:
        group: of the resource, "" for the core group.
        version: of the group.
        resource: plural.
        kind: of the objects that a request holds.
        sub_resource: "" for none.
        kind_version: of that kind, if it is not of the same group and version.
        namespaced: whether objects are in namespaces.
        dry_run: whether the API server can answer without doing anything.
    """

    group: str
    version: str
    resource: str
    kind: str
    sub_resource: str = ""
    kind_version: str = ""
    namespaced: bool = True
    dry_run: bool = True

    @property
    def api_version(self) -> str:
        """The apiVersion of the objects that a request holds."""
        if self.kind_version:
            return self.kind_version
        return f"{self.group}/{self.version}" if self.group else self.version


@dataclass(frozen=True, slots=True)
class Request:
    """A write of a node.

    Attributes:
        user: the user's name.
        api: the resource.
        operation: CREATE, UPDATE or DELETE.
        namespace: "" for cluster-scoped resources.
        name: of the object; for a CREATE of a subresource that of its parent.
        body: the object to create, the merge patch of an UPDATE, or the options of a DELETE.
        old: the existing object of an UPDATE or a DELETE.
    """

    user: str
    api: API
    operation: str
    namespace: str
    name: str
    body: Object = field(default_factory=dict)
    old: Object | None = None

    @property
    def method(self) -> str:
        """The HTTP method."""
        return _METHODS[self.operation]

    @property
    def content_type(self) -> str:
        """The media type of the body."""
        merges = self.operation == UPDATE
        return "application/merge-patch+json" if merges else "application/json"

    @property
    def path(self) -> str:
        """The path of the URL."""
        api = self.api
        parts = ["", "apis", api.group] if api.group else ["", "api"]
        parts.append(api.version)
        if api.namespaced:
            parts += ["namespaces", self.namespace]
        parts.append(api.resource)
        if self.operation != CREATE or api.sub_resource:
            parts.append(self.name)
        if api.sub_resource:
            parts.append(api.sub_resource)
        return "/".join(parts)

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters of the URL."""
        return {"dryRun": "All"} if self.api.dry_run else {}

    @property
    def headers(self) -> Mapping[str, str]:
        """What makes this the node's request if somebody else sends it."""
        return {"Impersonate-User": self.user, "Impersonate-Group": NODES_GROUP}

    @property
    def new(self) -> Object | None:
        """The object as it would become; None for a DELETE."""
        if self.operation == DELETE:
            return None
        merged = merge(self.old or {}, self.body) if self.operation == UPDATE else self.body
        return {"apiVersion": self.api.api_version, "kind": self.api.kind, **merged}

    def review(self, uid: str) -> dict[str, Any]:
        """Return the AdmissionReview that an API server sends to webhooks.

        Args:
            uid: of the review.
        """
        api = self.api
        group, _, version = api.api_version.rpartition("/")
        kind = {"group": group, "version": version, "kind": api.kind}
        resource = {"group": api.group, "version": api.version, "resource": api.resource}
        old = self.old
        if old is not None:
            old = {"apiVersion": api.api_version, "kind": api.kind, **old}
        request = {
            "uid": uid,
            "kind": kind,
            "resource": resource,
            "requestKind": kind,
            "requestResource": resource,
            "name": self.name,
            "operation": self.operation,
            "userInfo": {"username": self.user, "groups": [NODES_GROUP, "system:authenticated"]},
            "object": self.new,
            "oldObject": old,
            "dryRun": api.dry_run,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": _OPTIONS[self.operation]},
        }
        if api.sub_resource:
            request["subResource"] = request["requestSubResource"] = api.sub_resource
        if self.namespace:
            request["namespace"] = self.namespace
        return {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": request,
        }

    def __str__(self) -> str:
        """Return who asks for what, as people write it."""
        sub = f"/{self.api.sub_resource}" if self.api.sub_resource else ""
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.user}: {self.operation} {self.api.resource}{sub} {where}"


def user_of(node: str) -> str:
    """Return the user name of a node."""
    return NODE_USER_PREFIX + node


def merge(value: Object, patch: Object) -> dict[str, Any]:
    """Return an object with a JSON merge patch (RFC 7396) applied."""
    merged = dict(value)
    for key, change in patch.items():
        if change is None:
            merged.pop(key, None)
        elif isinstance(change, Mapping):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, Mapping) else {}, change)
        else:
            merged[key] = change
    return merged
