"""The authorizers that an AuthorizationConfiguration names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def read_authorizers(file: Path) -> list[Authorizer]:
    """Return the authorizers of a file, in the order in which they are asked.

    Raises:
        ConfigurationError: it is no AuthorizationConfiguration.
    """
    try:
        config = yaml.safe_load(file.read_text())
        return [
            Authorizer(str(one["type"]), str(one.get("name")), dict(one.get("webhook") or {}))
            for one in config["authorizers"]
        ]
    except BaseException as error:
        if not is_failure(error):
            raise
        raise ConfigurationError(
            f"{file}: not an AuthorizationConfiguration: {brief(error)}"
        ) from None
