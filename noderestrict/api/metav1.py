"""meta.k8s.io/v1: the metadata that rules, records and the graph read."""

import msgspec


class OwnerReference(msgspec.Struct, frozen=True, gc=False):
    """An entry of ``metadata.ownerReferences``."""

    apiVersion: str | None = None
    kind: str | None = None
    name: str | None = None
    uid: str | None = None
    controller: bool | None = None
    blockOwnerDeletion: bool | None = None


class ObjectMeta(msgspec.Struct):
    """Metadata of any object."""

    name: str | None = None
    namespace: str | None = None
    uid: str | None = None
    resourceVersion: str | None = None
    labels: dict[str, str | None] | None = None
    annotations: dict[str, str | None] | None = None
    ownerReferences: list[OwnerReference] | None = None
    finalizers: list[str] | None = None


class PartialObject(msgspec.Struct):
    """An object of which only the metadata is read."""

    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None


class LabelSelectorRequirement(msgspec.Struct):
    """A condition on one label."""

    key: str | None = None
    operator: str | None = None
    values: list[str] | None = None


class LabelSelector(msgspec.Struct):
    """Conditions on labels, all of which must hold."""

    matchLabels: dict[str, str] | None = None
    matchExpressions: list[LabelSelectorRequirement] | None = None
