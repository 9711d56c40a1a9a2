"""The authorizers that an AuthorizationConfiguration names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from noderestrict.errors import NoderestrictError
from noderestrict.policy.hostile import brief, is_failure
from noderestrict.render import authorizer


class ConfigurationError(NoderestrictError):
    """A file is no AuthorizationConfiguration; the message says why."""


@dataclass(frozen=True, slots=True)
class Authorizer:
    """One authorizer.

    Attributes:
        kind: such as ``RBAC`` or ``Webhook``.
        name: that metrics have.
        webhook: its settings, if it is one.
    """

    kind: str
    name: str
    webhook: Mapping[str, Any]

    @property
    def is_for_agents(self) -> bool:
        """Whether it asks about agents."""
        return self.kind == "Webhook" and authorizer.is_for_agents(self.name)


class _Authorizer(msgspec.Struct):
    type: str
    name: str | None = None
    webhook: dict[str, Any] | None = None


class _Configuration(msgspec.Struct):
    authorizers: list[_Authorizer]
    kind: Literal["AuthorizationConfiguration"] | None = None


def read_authorizers(file: Path) -> list[Authorizer]:
    """Return the authorizers of a file, in the order in which they are asked.

    Raises:
        ConfigurationError: it is no AuthorizationConfiguration.
    """
    try:
        config = msgspec.convert(yaml.safe_load(file.read_bytes().decode()), _Configuration)
    except BaseException as error:
        if not is_failure(error):
            raise
        raise ConfigurationError(
            f"{file}: not an AuthorizationConfiguration: {brief(error)}"
        ) from None
    return [Authorizer(one.type, str(one.name), one.webhook or {}) for one in config.authorizers]
