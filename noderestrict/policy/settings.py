"""The operator's settings that rules read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from noderestrict.policy import features as gates
from noderestrict.policy.extra import Extra
from noderestrict.policy.releases import LATEST, Release


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of all rules.

    Attributes:
        features: every feature gate with its value.
        api_audiences: the API server's ``--api-audiences``; None if they are unknown.
        audiences_pending: the audiences will be learned; until then, a denial that depends on them
            is answered 500. If false, None means that no default audience is assumed.
        extra: policy beyond the in-tree plugin.
        release: whose rules apply.
    """

    features: Mapping[str, bool] = field(
        default_factory=lambda: gates.defaults(gates.OFFLINE_MINOR)
    )
    api_audiences: tuple[str, ...] | None = None
    audiences_pending: bool = False
    extra: Extra = field(default_factory=Extra)
    release: Release = LATEST

    @classmethod
    def for_version(
        cls,
        minor: int = gates.OFFLINE_MINOR,
        overrides: Mapping[str, bool] | None = None,
        api_audiences: tuple[str, ...] | None = None,
        *,
        audiences_pending: bool = False,
        extra: Extra | None = None,
        release: Release = LATEST,
    ) -> "Settings":
        """Return the settings for an API server of Kubernetes 1.``minor``.

        Audiences are never pending if the feature gate that restricts them is off.

        Raises:
            ValueError: an override names an unknown feature gate.
        """
        features = gates.resolve(minor, overrides or {})
        pending = audiences_pending and features[gates.AUDIENCE_RESTRICTION]
        return cls(features, api_audiences, pending, extra or Extra(), release)

    def enabled(self) -> list[str]:
        """Return the feature gates that count as on, sorted."""
        return sorted(name for name, on in self.features.items() if on)
