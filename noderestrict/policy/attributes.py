"""A request as the rules see it."""

from typing import Any

import msgspec

from noderestrict.policy.listers import Listers
from noderestrict.policy.releases import Part
from noderestrict.policy.settings import Settings


class Attributes(msgspec.Struct, frozen=True):
    """A node user's request, decoded for the rules of its resource.

    Attributes:
        node: the requesting node's name, never "".
        resource: plural, without group.
        sub_resource: "" for none.
        operation: CREATE, UPDATE, DELETE.
        namespace: of the request, "" for cluster-scoped resources.
        name: of the request; "" for a deletecollection.
        new: the object as the Struct of its resource; None if the request has none.
        old: the existing object, likewise.
        new_raw: the object as JSON, set only for rules that compare whole objects.
        old_raw: the existing object, likewise.
    """

    node: str
    resource: str
    sub_resource: str
    operation: str
    namespace: str
    name: str
    settings: Settings
    listers: Listers
    new: Any = None
    old: Any = None
    new_raw: msgspec.Raw = msgspec.Raw(b"null")
    old_raw: msgspec.Raw = msgspec.Raw(b"null")

    def demands(self, part: Part) -> bool:
        """Return whether a part of a rule applies."""
        return part.since.includes(self.settings.release)

    @property
    def where(self) -> str:
        """The object as people write it: resource/subresource namespace/name."""
        resource = f"{self.resource}/{self.sub_resource}" if self.sub_resource else self.resource
        name = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{resource} {name}".strip()
