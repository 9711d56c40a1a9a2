"""What is read of a write: ``admission.Request`` has it."""

from typing import Any, Protocol

from noderestrict.api import admissionv1
from noderestrict.api.resources import qualified


class Write(Protocol):
    """A write, whose objects are raw JSON, ``null`` for none."""

    @property
    def group(self) -> str:
        """API group of the resource, "" for the core group."""

    @property
    def resource(self) -> str:
        """Plural."""

    @property
    def sub_resource(self) -> str:
        """Of the resource, "" for none."""

    @property
    def operation(self) -> str:
        """CREATE, UPDATE, DELETE or CONNECT."""

    @property
    def namespace(self) -> str:
        """Of the object, "" for none."""

    @property
    def name(self) -> str:
        """Of the object, "" for none."""

    @property
    def user(self) -> admissionv1.UserInfo:
        """The requester."""

    @property
    def object(self) -> Any:
        """The object to write."""

    @property
    def old_object(self) -> Any:
        """The existing object."""


def path_of(request: Write) -> str:
    """Return the resource with its subresource, such as ``pods/status``."""
    if request.sub_resource:
        return f"{request.resource}/{request.sub_resource}"
    return request.resource


def where(request: Write) -> str:
    """Return the object as people write it: resource/subresource namespace/name."""
    return f"{path_of(request)} {qualified(request.namespace, request.name)}".strip()
