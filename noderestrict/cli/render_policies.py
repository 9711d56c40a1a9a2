"""``noderestrict render policies``: write the rules as ValidatingAdmissionPolicies."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noderestrict.cli._errors import UsageError
from noderestrict.cli._files import write_files
from noderestrict.cli.agent_files import add_agents_flag, agents_of
from noderestrict.cli.argument_types import (
    FEATURE_GATES,
    PATH,
    POLICY_MODE,
    POLICY_RULE_MODES,
    RULES_OF,
    checked,
)
from noderestrict.cli.fields import add_flags, from_flags, setting
from noderestrict.cli.render_static import add_static_flags, static_files
from noderestrict.cli.shared_flags import RULES, StrictPolicy
from noderestrict.policy.releases import LATEST, Release
from noderestrict.policy.settings import Settings
from noderestrict.render.policy_modes import DENY


@dataclass(frozen=True, kw_only=True)
class PoliciesConfig(StrictPolicy):
    """What the policies depend on."""

    rules: Release | None = setting(
        None,
        RULES_OF,
        "Kubernetes release whose rules apply, with the defaults of its feature gates, whatever "
        "the version of the cluster is; the newest known by default",
        RULES,
    )
    feature_gates: dict[str, bool] = setting(
        {}, FEATURE_GATES, "feature gates that override those of the release", RULES
    )
    mode: str = setting(
        DENY,
        POLICY_MODE,
        "mode of all rules: deny, allow with a warning to the client and an entry in the audit "
        "log, or only with the entry",
        RULES,
    )
    rule_modes: dict[str, str] = setting(
        {},
        POLICY_RULE_MODES,
        "modes of single rules, such as nodes/labels=audit; off leaves a rule out; agents/NAME is "
        "all rules of an agent",
        RULES,
    )

    def settings(self) -> Settings:
        """Return the settings of the rules."""
        release = self.rules or LATEST
        return Settings.for_version(
            release.minor, self.feature_gates, extra=self.extra(), release=release
        )


def add_kind(render: Any) -> None:
    """Add the parser to that of ``render``."""
    parser = render.add_kind(
        "policies",
        description="Write the rules that need no look-up as ValidatingAdmissionPolicies, which "
        "API servers from Kubernetes 1.30 on apply themselves. See docs/policies.md.",
    )
    parser.add_argument(
        "directory",
        type=checked(PATH.parse),
        nargs="?",
        default=Path("policies"),
        metavar="DIR",
        help="directory to write to; created if missing",
    )
    add_flags(parser, PoliciesConfig)
    add_static_flags(parser)
    add_agents_flag(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write all files, print their paths and return 0.

    Raises:
        UsageError: a flag has a bad value, or a file cannot be written.
    """
    from noderestrict.render.policies import Options, files, policies

    config = from_flags(PoliciesConfig, options)
    agents = agents_of(options.agents).all
    try:
        chosen = Options(config.settings(), config.mode, config.rule_modes, agents)
    except ValueError as error:
        raise UsageError(f"--{error}") from None
    static = static_files(options, policies(chosen), config.extra(), agents)
    write_files(options.directory, files(chosen) if static is None else static)
    return 0
