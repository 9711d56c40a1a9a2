"""The policy file: which agents there are, and what each may do.

The Structs are the format: they check a file, and the JSON Schema is made from them.
"""

from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from noderestrict.agents import paths
from noderestrict.policy import modes
from noderestrict.policy.json_schema import json_schema

#: Of the user names of service accounts, before NAMESPACE:NAME.
SCHEMA_ID = "https://noderestrict.io/schemas/agents.json"
_RESOURCE = r"^[a-z][a-z0-9.-]*(/([a-z][a-z0-9-]*|\*))?$"
_LABEL_KEY = r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"


class Source(StrEnum):
    """Where an agent's node comes from."""

    TOKEN = "token"  # noqa: S105 (no secret)
    POD = "pod"
    USERNAME = "username"


class Operation(StrEnum):
    """What an AdmissionReview calls a write."""

    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    CONNECT = "CONNECT"


class Verb(StrEnum):
    """The verbs of reads."""

    GET = "get"
    LIST = "list"
    WATCH = "watch"


class Unnamed(StrEnum):
    """What happens to a request that no entry names."""

    REFUSE = "refuse"
    ALLOW = "allow"


class Mode(StrEnum):
    """What a refusal leads to."""

    ENFORCE = modes.ENFORCE
    WARN = modes.WARN
    AUDIT = modes.AUDIT
    OFF = modes.OFF


class Plain(StrEnum):
    """A relation that needs nothing else to be told."""

    OWN_NODE = "own-node"
    OWN_PODS = "own-pods"
    REFERENCED = "referenced"
    ANY = "any"


class Owner(StrEnum):
    """Whose an object is."""

    NODE = "node"


class RelationKind(StrEnum):
    """What an object must have to do with the node."""

    OWN_NODE = "own-node"
    OWN_PODS = "own-pods"
    NAME = "name"
    FIELD = "field"
    LABEL = "label"
    OWNER = "owner"
    REFERENCED = "referenced"
    ANY = "any"


class _Strict(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel"
):
    """A part of the file: unknown keys are errors, and defaults are not written."""


_NameTemplate = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9.:-]*\{node\}[a-z0-9.:-]*$",
        description="name of the object, with {node} for the name of the node",
    ),
]
_FieldText = Annotated[
    str,
    Meta(
        pattern=paths.EXACT_PATTERN,
        description="path of the field that holds the name of the node, such as spec.nodeName",
    ),
]
_LabelKey = Annotated[
    str,
    Meta(pattern=_LABEL_KEY, description="key of the label that holds the name of the node"),
]


class Bound(_Strict, frozen=True):
    """A relation by one property of the object; exactly one is set.

    Attributes:
        name: the object's name, with ``{node}`` in it.
        field: path of a field of the object that holds the node's name.
        label: key of a label that holds the node's name.
        owner: the object has an owner reference to the own Node, and to no other.
    """

    name: _NameTemplate | None = None
    field: _FieldText | None = None
    label: _LabelKey | None = None
    owner: Owner | None = None


Relation = Plain | Bound


def kind_of(relation: Relation) -> RelationKind:
    """Return the kind of a relation of a checked file."""
    if isinstance(relation, Plain):
        return RelationKind(relation.value)
    return next(RelationKind(key) for key in Bound.__struct_fields__ if getattr(relation, key))


def shown(relation: Relation) -> str:
    """Return a relation as a file writes it on one line."""
    if isinstance(relation, Plain):
        return relation.value
    return ", ".join(
        f"{key}: {value}"
        for key in Bound.__struct_fields__
        if (value := getattr(relation, key)) is not None
    )


class User(_Strict, frozen=True):
    """Users of an agent: one service account; or everyone with a prefix, in a group.

    Attributes:
        service_account: NAMESPACE/NAME.
        prefix: of user names that end with the name of the node.
        group: that such a user must be in.
    """

    service_account: (
        Annotated[
            str,
            Meta(
                pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$",
                description="NAMESPACE/NAME of the service account",
            ),
        ]
        | None
    ) = None
    prefix: (
        Annotated[str, Meta(min_length=1, max_length=256, description="what user names begin with")]
        | None
    ) = None
    group: (
        Annotated[str, Meta(min_length=1, max_length=256, description="group to be in")] | None
    ) = None

    @property
    def account(self) -> tuple[str, str] | None:
        """Namespace and name of the service account, None if a prefix tells the users."""
        if self.service_account is None:
            return None
        namespace, _, name = self.service_account.partition("/")
        return namespace, name


_Group = Annotated[str, Meta(pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$")]
_Groups = Annotated[
    tuple[_Group, ...], Meta(min_length=1, description='API groups; "" is the core group')
]
_Resource = Annotated[str, Meta(pattern=_RESOURCE)]
_Resources = Annotated[
    tuple[_Resource, ...],
    Meta(
        min_length=1,
        description="resources with subresources: nodes, nodes/status; pods/* is every subresource",
    ),
]
_Namespaces = Annotated[
    tuple[Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")], ...],
    Meta(description="only in these namespaces; in any if empty"),
]
_Names = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=253)], ...],
    Meta(description="only objects with these names; any if empty"),
]
_FieldPath = Annotated[str, Meta(pattern=paths.PATTERN)]


class Write(_Strict, frozen=True):
    """Writes that an agent may make.

    Attributes:
        resources: with their subresources; ``/*`` is every subresource, but not the resource.
        operations: what an AdmissionReview calls them.
        relation: of the object, before and after, to the node.
        api_groups: of the resources.
        namespaces: in which the objects are; () for any.
        names: of the objects; () for any.
        fields: paths that an UPDATE may change; None for all.
    """

    resources: _Resources
    operations: Annotated[tuple[Operation, ...], Meta(min_length=1)]
    relation: Relation
    api_groups: _Groups = ("",)
    namespaces: _Namespaces = ()
    names: _Names = ()
    fields: (
        Annotated[tuple[_FieldPath, ...], Meta(description="what an UPDATE may change")] | None
    ) = None


class Read(_Strict, frozen=True):
    """Reads that are left to RBAC.

    Attributes:
        resources: with their subresources; ``/*`` is every subresource, but not the resource.
        relation: of the object to the node.
        verbs: of the requests.
        api_groups: of the resources.
        namespaces: in which the objects are; () for any.
        names: of the objects; () for any.
    """

    resources: _Resources
    relation: Relation
    verbs: Annotated[tuple[Verb, ...], Meta(min_length=1)] = (Verb.GET, Verb.LIST, Verb.WATCH)
    api_groups: _Groups = ("",)
    namespaces: _Namespaces = ()
    names: _Names = ()


class Agent(_Strict, frozen=True):
    """One agent: the pods of a DaemonSet.

    Attributes:
        name: in rule ids, metrics and messages.
        users: who it is.
        description: for people.
        node: sources of its node, in the order in which they are tried; () for the usual ones:
            token and pod for service accounts, username for prefixes.
        mode: of its rules; None for the mode of the server.
        unnamed_writes: what happens to writes that no entry names.
        write: what it may write; a request is allowed if any entry allows it.
        unnamed_reads: what happens to reads that no entry names.
        read: what it may read; None if its reads are not held.
    """

    name: Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    users: Annotated[tuple[User, ...], Meta(min_length=1)]
    description: str = ""
    node: tuple[Source, ...] = ()
    mode: Mode | None = None
    unnamed_writes: Unnamed = Unnamed.REFUSE
    write: tuple[Write, ...] = ()
    unnamed_reads: Unnamed = Unnamed.REFUSE
    read: tuple[Read, ...] | None = None


class PolicyFile(_Strict, frozen=True):
    """A whole file."""

    agents: Annotated[tuple[Agent, ...], Meta(min_length=1)]


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the file."""
    found = json_schema(PolicyFile, "noderestrict agents", SCHEMA_ID)
    for name, choices in _ONE_OF.items():
        # What a Struct cannot say, the loader checks, too.
        found["$defs"][name]["oneOf"] = [{"required": list(keys)} for keys in choices]
    return found


#: The properties of which exactly one set must be there.
_ONE_OF = {
    "Bound": (("name",), ("field",), ("label",), ("owner",)),
    "User": (("serviceAccount",), ("prefix", "group")),
}
