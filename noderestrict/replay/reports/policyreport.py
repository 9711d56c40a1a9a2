"""Policy reports for dashboards that show those of policy engines.

The format is wgpolicyk8s.io/v1alpha2 of the Policy working group:
https://github.com/kubernetes-sigs/wg-policy-prototypes.
"""

import datetime as dt
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import yaml

from noderestrict.policy.releases import RULES_ANNOTATION
from noderestrict.policy.table import STRICT_RULE_IDS
from noderestrict.policy.text import printable
from noderestrict.replay.report import Group, Groups, Options, Report, explanation, place, verdict
from noderestrict.replay.results import Certainty, NotJudged, Result, Summary, Undecided

_NAME = "noderestrict"
_VERSION = "wgpolicyk8s.io/v1alpha2"
#: In the order in which the format counts them.
_PASS, _FAIL, _WARN, _ERROR, _SKIP = _RESULTS = ("pass", "fail", "warn", "error", "skip")
#: Kinds of what the rules judge, by plural.
_KINDS: Mapping[str, tuple[str, str]] = {
    "certificatesigningrequests": ("certificates.k8s.io/v1", "CertificateSigningRequest"),
    "csinodes": ("storage.k8s.io/v1", "CSINode"),
    "leases": ("coordination.k8s.io/v1", "Lease"),
    "nodes": ("v1", "Node"),
    "persistentvolumeclaims": ("v1", "PersistentVolumeClaim"),
    "podcertificaterequests": ("certificates.k8s.io/v1", "PodCertificateRequest"),
    "pods": ("v1", "Pod"),
    "resourceslices": ("resource.k8s.io/v1", "ResourceSlice"),
    "serviceaccounts": ("v1", "ServiceAccount"),
}
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


class _Typed(msgspec.Struct):
    apiVersion: str = ""  # noqa: N815 (the API's name)
    kind: str = ""


class PolicyReport(Report):
    """A PolicyReport for each namespace, and a ClusterPolicyReport, with similar cases once.

    What is denied fails, unless that rests on more than the input shows: then it warns. Cases that
    are undecided, or that the API server has refused already, are skipped.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        # Apart, so that what is allowed takes no room from what is not.
        self._allowed, self._others = Groups(), Groups()

    def write(self, result: Result) -> None:
        """Keep one result."""
        passes = _outcome(result) == _PASS
        (self._allowed if passes else self._others).add(result, show_all=True)

    def leave(self, left: Undecided | NotJudged) -> None:
        """Keep what is undecided."""
        if isinstance(left, Undecided):
            self._others.add(left)

    def end(self, summary: Summary) -> None:
        """Write all documents."""
        # The cluster's is there in any case: no document at all would look like a failure.
        namespaces: dict[str, list[dict[str, Any]]] = {"": []}
        for group in (*self._others.sorted(), *self._allowed.sorted()):
            namespaces.setdefault(_namespace(group.first), []).append(_result(group))
        documents = [
            self._document(namespace, results, summary.unreadable if not namespace else 0)
            for namespace, results in sorted(namespaces.items())
        ]
        yaml.safe_dump_all(documents, self._out, sort_keys=False, width=100)
        left_out = self._allowed.left_out + self._others.left_out
        if left_out:
            self._options.notes.write(f"{left_out} cases are not in the policy reports: too many\n")
        self._options.notes.write(f"{summary}\n")

    def _document(
        self, namespace: str, results: list[dict[str, Any]], unreadable: int
    ) -> dict[str, Any]:
        counts = Counter(one["result"] for one in results)
        counts[_ERROR] += unreadable
        return {
            "apiVersion": _VERSION,
            "kind": "PolicyReport" if namespace else "ClusterPolicyReport",
            "metadata": {
                "name": _NAME,
                **({"namespace": namespace} if namespace else {}),
                "labels": {"app.kubernetes.io/managed-by": _NAME},
                "annotations": {RULES_ANNOTATION: self._options.kubernetes},
            },
            "summary": {one: counts[one] for one in _RESULTS},
            "results": results,
        }


def _outcome(found: Result | Undecided) -> str:
    """Return the result of a case, in the words of the format."""
    if isinstance(found, Undecided) or found.already_refused:
        return _SKIP
    if found.allowed:
        return _FAIL if found.ok is False else _PASS
    return _FAIL if found.certainty is Certainty.KNOWN else _WARN


def _result(group: Group) -> dict[str, Any]:
    found = group.first
    outcome = _outcome(found)
    value: dict[str, Any] = {"source": _NAME, "policy": _NAME}
    if found.rule:
        value["rule"] = found.rule
        value["severity"] = "medium" if found.rule in STRICT_RULE_IDS else "high"
    value |= {
        "category": "Node isolation",
        "result": outcome,
        "scored": outcome in (_PASS, _FAIL),
        "message": printable(explanation(found) or verdict(found)),
        "resources": [_reference(found)],
        "properties": dict(_properties(group)),
    }
    if (stamp := _timestamp(found.time)) is not None:
        value["timestamp"] = stamp
    return value


def _namespace(found: Result | Undecided) -> str:
    """Return the namespace of a case's report, "" for the cluster's."""
    # What no API server would store comes from a log that somebody else wrote.
    return found.namespace if _LABEL.fullmatch(found.namespace) else ""


def _reference(found: Result | Undecided) -> dict[str, str]:
    """Return a reference to the object; whoever makes a request chooses its name."""
    version, kind = _kind(found)
    parts = {
        "apiVersion": version, "kind": kind, "namespace": found.namespace, "name": found.name
    }  # fmt: skip
    return {name: printable(text) for name, text in parts.items() if text}


def _kind(found: Result | Undecided) -> tuple[str, str]:
    plural, _, sub_resource = found.resource.partition("/")
    if plural in _KINDS:
        return _KINDS[plural]
    if isinstance(found, Result) and not sub_resource:
        for data in (found.new, found.old):
            try:
                typed = msgspec.json.decode(data, type=_Typed)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                continue
            return typed.apiVersion, typed.kind
    return "", plural


def _properties(group: Group) -> Iterator[tuple[str, str]]:
    """Yield what else a reader may want to know; all values are text."""
    found = group.first
    known = {
        "id": found.id,
        "agent" if found.agent else "node": found.requester,
        "user": found.user,
        "operation": found.operation,
        "resource": found.resource,
        "verdict": verdict(found),
        "certainty": str(found.certainty),
        "cases": str(group.count),
        "firstSeen": found.time,
        "lastSeen": group.last_time,
        "userAgent": found.user_agent,
        "place": place(found),
        "dryRun": "true" if found.dry_run else "",
        "alreadyRefused": "true" if found.already_refused else "",
    }
    for name, text in known.items():
        if text:
            yield name, printable(text)


def _timestamp(time: str) -> dict[str, int] | None:
    """Return a time as the format has it; None if there is none."""
    try:
        moment = dt.datetime.fromisoformat(time)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    since = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    seconds = since // dt.timedelta(seconds=1)
    rest = since - dt.timedelta(seconds=seconds)
    return {"seconds": seconds, "nanos": rest // dt.timedelta(microseconds=1) * 1000}


REPORT = PolicyReport
