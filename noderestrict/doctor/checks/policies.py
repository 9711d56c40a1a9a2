"""Are the rules that API servers apply themselves in force?

Policies say themselves what they were rendered with: their names and bindings the mode, an
annotation the release, and messages of validations the rules. So they are compared with what
this version renders of the same.
"""

import shlex
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from noderestrict import __version__
from noderestrict.api.admissionregistrationv1 import BINDING, POLICY
from noderestrict.cluster.connection import ClusterError
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster, Options
from noderestrict.doctor.differences import Difference, differences
from noderestrict.doctor.findings import Finding, failed, passed, warned
from noderestrict.doctor.installed import deleting, title
from noderestrict.policy.extra import Extra
from noderestrict.policy.modes import AUDIT, OFF, WARN
from noderestrict.policy.releases import LATEST, RULES_ANNOTATION, Release, parse_release
from noderestrict.policy.rules.review import NODE_NAME
from noderestrict.policy.settings import Settings
from noderestrict.policy.table import RULE_IDS
from noderestrict.render import policies as rendering
from noderestrict.render.load import Object
from noderestrict.render.policies import POLICIES_SINCE, policies, uncovered
from noderestrict.render.policy_flags import policy_flags
from noderestrict.render.policy_modes import ACTIONS, DENY
from noderestrict.render.registration import NAME, RESOURCES

_API = "/apis/admissionregistration.k8s.io/v1"
_POLICIES = f"{_API}/validatingadmissionpolicies"
_BINDINGS = f"{_API}/validatingadmissionpolicybindings"
_VERSION_LABEL = "app.kubernetes.io/version"
#: Differences of one object that get a finding of their own.
_SHOWN = 5
_RENDER = ("noderestrict", "render", "policies")
_APPLY = "apply the policies that this version renders"


@dataclass(frozen=True, slots=True)
class _Installed:
    """Our policies in a cluster, and the bindings that are theirs.

    Attributes:
        policies: by name.
        bindings: by name.
    """

    policies: Mapping[str, Object]
    bindings: Mapping[str, Object]

    def __bool__(self) -> bool:
        return bool(self.policies or self.bindings)

    def find(self, value: Object) -> Object | None:
        """Return the object with kind and name of a rendered one."""
        found = self.policies if value["kind"] == POLICY else self.bindings
        return found.get(value["metadata"]["name"])

    def all(self) -> Iterator[Object]:
        """Yield every object."""
        yield from self.policies.values()
        yield from self.bindings.values()


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield what is wrong with the installed policies, and what they leave open."""
    installed = await _installed(cluster)
    if installed is None:
        yield passed(f"none: API servers have policies from Kubernetes 1.{POLICIES_SINCE} on")
        return
    if not installed:
        yield passed("none are installed; those that an API server reads from files do not show")
        return
    has_webhook = await cluster.registration() is not None
    for finding in _examined(installed, cluster.options, has_webhook=has_webhook):
        yield finding


async def _installed(cluster: Cluster) -> _Installed | None:
    """Return what is installed; None if the API server has no policies.

    Raises:
        ClusterError: it could not be read.
    """
    try:
        found = await cluster.items(_POLICIES)
        bound = await cluster.items(_BINDINGS)
    except ClusterError as error:
        if error.code != HTTPStatus.NOT_FOUND:
            raise
        return None
    ours = {name: {**one, "kind": POLICY} for name, one in _named(found).items() if _is_ours(one)}
    return _Installed(
        ours,
        {
            name: {**one, "kind": BINDING}
            for name, one in _named(bound).items()
            if _is_ours(one) or (one.get("spec") or {}).get("policyName") in ours
        },
    )


def _named(values: Sequence[Any]) -> dict[str, Object]:
    return {one["metadata"]["name"]: one for one in values}


def _is_ours(value: Mapping[str, Any]) -> bool:
    """Tell whether a name is one of those that are rendered; labels can be taken away."""
    return value["metadata"]["name"] in _NAMES


_SUFFIXES = tuple(f"-{mode}" for mode in ACTIONS)
_NAMES = frozenset(f"{NAME}-{name}{suffix}" for name in RESOURCES for suffix in ("", *_SUFFIXES))


def _examined(installed: _Installed, options: Options, *, has_webhook: bool) -> Iterator[Finding]:
    """Yield findings about installed policies.

    Args:
        installed: at least one object.
        options: of the doctor.
        has_webhook: whether the webhook is registered, too, so that it holds what they do not.
    """
    worse = warned if has_webhook else failed
    release, problem = _release(installed)
    if problem:
        yield warned(problem, _APPLY, _command(options.extra))
    settings = Settings.for_version(release.minor, extra=options.extra, release=release)
    chosen = _chosen(installed, settings)
    command = _command(options.extra, release, chosen)
    broken = False
    for finding in _differences(installed, policies(chosen), command):
        broken = True
        yield finding
    yield from _type_checked(installed)
    if release < LATEST:
        yield warned(
            f"they hold the rules of {release}; the newest known are those of {LATEST}",
            _APPLY,
            _command(options.extra, modes=chosen),
        )
    versions = {_labels(one).get(_VERSION_LABEL, "none") for one in installed.all()}
    for version in sorted(versions - {__version__}):
        yield warned(f"version {version} rendered them; this is {__version__}", _APPLY, command)
    off = sorted(rule for rule, mode in chosen.rule_modes.items() if mode == OFF)
    if off:
        yield worse(f"they leave out {', '.join(off)}", "render them without --rule-modes", command)
    weak = {
        mode: names
        for mode in (WARN, AUDIT)
        if (names := [name for name, one in _modes(installed).items() if one == mode])
    }
    for mode, names in weak.items():
        what = "warn of" if mode == WARN else "audit"
        if not options.audited:
            yield worse(
                f"{', '.join(sorted(names))} only {what} what they should refuse",
                "render them with --mode deny once nothing honest is warned of",
                _command(options.extra, release),
            )
    yield _open(settings, has_webhook=has_webhook)
    if not broken and not problem:
        yield passed(
            f"{len(installed.policies)} policies hold the rules of {release} in mode "
            f"{', '.join(sorted(set(_modes(installed).values())))}, as they are rendered"
        )


def _release(installed: _Installed) -> tuple[Release, str]:
    """Return the release whose rules policies hold, and what is wrong with what they say of it."""
    found = {_annotations(one).get(RULES_ANNOTATION, "") for one in installed.policies.values()}
    try:
        releases = {parse_release(one) for one in found}
    except ValueError as error:
        return LATEST, f"annotation {RULES_ANNOTATION} does not say whose rules they hold: {error}"
    if len(releases) == 1:
        return releases.pop(), ""
    named = ", ".join(map(str, sorted(releases)))
    return max(releases, default=LATEST), f"they hold the rules of different releases: {named}"


def _chosen(installed: _Installed, settings: Settings) -> rendering.Options:
    """Return what policies were rendered with, as far as they show.

    A rule is left out if no policy has it, though one has other rules of the same policy: else the
    policy is missing.
    """
    modes = _modes(installed)
    plain = [mode for name, mode in modes.items() if not name.endswith(_SUFFIXES)]
    usual = max(ACTIONS, key=plain.count)
    held: dict[str, str] = {}
    for name, value in installed.policies.items():
        mode = _mode_of_name(name)
        # What is left of other modes says nothing about a rule that has the usual one.
        held |= {rule: mode or usual for rule in _rules(value) if not (mode and rule in held)}
    chosen: dict[str, str] = {}
    for value in policies(rendering.Options(settings)):
        rules = _rules(value)
        if any(rule in held for rule in rules if rule != NODE_NAME.id):
            chosen |= {rule: held.get(rule, OFF) for rule in rules}
    others = {rule: mode for rule, mode in chosen.items() if mode != usual}
    return rendering.Options(settings, usual, others)


def _modes(installed: _Installed) -> dict[str, str]:
    """Return the mode of each policy: that of its name, or else that of its binding."""
    return {
        name: _mode_of_name(name) or _mode_of(installed.bindings.get(name))
        for name in installed.policies
    }


def _mode_of_name(name: str) -> str:
    return next((mode for mode in ACTIONS if name.endswith(f"-{mode}")), "")


def _mode_of(binding: Object | None) -> str:
    actions = set(((binding or {}).get("spec") or {}).get("validationActions") or ())
    return next((mode for mode, wanted in ACTIONS.items() if actions == set(wanted)), DENY)


def _rules(value: Object) -> list[str]:
    """Return the rules of a policy: the ids with which messages of its validations begin."""
    validations = (value.get("spec") or {}).get("validations") or ()
    messages = (str(one.get("message") or "").partition(":")[0] for one in validations)
    return [rule for rule in messages if rule in RULE_IDS]


def _differences(
    installed: _Installed, rendered: Sequence[Object], command: str
) -> Iterator[Finding]:
    wanted = {(one["kind"], one["metadata"]["name"]) for one in rendered}
    for value in rendered:
        found = [one for one in differences(installed.find(value), value) if not _is_version(one)]
        if found and not found[0].path:
            why = ", so that its policy does nothing" if value["kind"] == BINDING else ""
            yield failed(f"{title(value)} is missing{why}", _APPLY, command)
            continue
        for one in found[:_SHOWN]:
            yield failed(f"{title(value)}: {one}", _APPLY, command)
        if len(found) > _SHOWN:
            more = len(found) - _SHOWN
            yield failed(f"{title(value)}: {more} more values differ", _APPLY, command)
    for value in installed.all():
        if (value["kind"], value["metadata"]["name"]) not in wanted:
            yield warned(
                f"{title(value)} is not one that is rendered",
                "delete it, unless somebody has added it on purpose",
                deleting({**value, "apiVersion": _API.removeprefix("/apis/")}),
            )


def _is_version(difference: Difference) -> bool:
    return difference.path.startswith("/metadata/labels")


def _type_checked(installed: _Installed) -> Iterator[Finding]:
    """Yield what an API server warns of when it checks the types in expressions."""
    for value in installed.policies.values():
        status = value.get("status") or {}
        warnings = (status.get("typeChecking") or {}).get("expressionWarnings") or ()
        for one in warnings[:_SHOWN]:
            text = " ".join(str(one.get("warning")).split())
            yield warned(
                f"{title(value)}: the API server warns of {one.get('fieldRef')}: {text[:300]}",
                "report it: requests may be refused because an expression has no value",
                f"kubectl get validatingadmissionpolicy {value['metadata']['name']} -o yaml",
            )


def _open(settings: Settings, *, has_webhook: bool) -> Finding:
    """Return what policies cannot hold, and whether the webhook does."""
    rules = ", ".join(rule.id for found in uncovered(settings).values() for rule in found)
    if has_webhook:
        return passed(f"the webhook is registered, too: it alone holds {rules}")
    return warned(
        f"without the webhook, nothing holds {rules}; nor do policies limit what nodes read",
        "install the webhook as well; see docs/policies.md",
        "kubectl apply -k manifests/overlays/control-plane/install",
    )


def _command(
    extra: Extra, release: Release | None = None, modes: rendering.Options | None = None
) -> str:
    """Return the commands that install policies again."""
    words = [*_RENDER, *policy_flags(extra)]
    if release is not None and release != LATEST:
        words.append(f"--rules={release}")
    if modes is not None:
        if modes.mode != DENY:
            words.append(f"--mode={modes.mode}")
        kept = {rule: mode for rule, mode in modes.rule_modes.items() if mode != OFF}
        if kept:
            words.append("--rule-modes=" + ",".join(f"{r}={m}" for r, m in kept.items()))
    if len(words) == len(_RENDER):
        return "kubectl apply -k manifests/policies"
    return f"{shlex.join(words)}\nkubectl apply -k policies"


def _labels(value: Object) -> Mapping[str, str]:
    return value["metadata"].get("labels") or {}


def _annotations(value: Object) -> Mapping[str, str]:
    return value["metadata"].get("annotations") or {}


CHECK = Check("policies", "Are the policies in force, and what do they leave open?", check)
