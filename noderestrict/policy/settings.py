"""What the operator decides, and rules read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from noderestrict.policy import features as gates
from noderestrict.policy.extra import Extra


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of all rules.

    Attributes:
        features: every feature gate with its value.
        api_audiences: the API server's ``--api-audiences``; None while they are not known.
        audiences_pending: they will be learned: until then, a refusal that hinges on them is
            answered 500. Otherwise None means that no default audience is assumed.
        extra: policy beyond the in-tree plugin.
    """

    features: Mapping[str, bool] = field(default_factory=lambda: gates.defaults(gates.LATEST_MINOR))
    api_audiences: tuple[str, ...] | None = None
    audiences_pending: bool = False
    extra: Extra = field(default_factory=Extra)

    @classmethod
    def for_version(
        cls,
        minor: int = gates.LATEST_MINOR,
        overrides: Mapping[str, bool] | None = None,
        api_audiences: tuple[str, ...] | None = None,
        *,
        audiences_pending: bool = False,
        extra: Extra | None = None,
    ) -> "Settings":
        """Return the settings of Kubernetes 1.``minor``.

        Audiences are not pending where the gate that restricts them is off.

        Raises:
            ValueError: an override names an unknown feature gate.
        """
        features = gates.resolve(minor, overrides or {})
        pending = audiences_pending and features[gates.AUDIENCE_RESTRICTION]
        return cls(features, api_audiences, pending, extra or Extra())
