"""The rights that reach beyond one node, and why each of them matters.

A service account that runs on every node has them on every node, so whoever takes one node has
them too. The table below is the one place where they are named.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import lru_cache

from noderestrict.rbac.grants import Grant
from noderestrict.rbac.rules import ALL, Rule

READ = ("get", "list", "watch")
CHANGE = ("create", "update", "patch")
ALTER = ("update", "patch")
REMOVE = ("delete", "deletecollection")
WRITE = (*CHANGE, *REMOVE)

#: Whatever runs in it may be given any account, of the controllers too.
_SYSTEM = "kube-system"
#: ClusterRoles are bound in namespaces, too, by whoever may bind them there.
_NAMESPACED = frozenset(
    ("bindings", "clusterroles", "configmaps", "cronjobs", "daemonsets", "deployments", "endpoints",
     "endpointslices", "horizontalpodautoscalers", "jobs", "leases", "namespaces",
     "networkpolicies", "pods", "replicasets", "replicationcontrollers", "resourceclaims",
     "rolebindings", "roles", "secrets", "serviceaccounts", "services", "statefulsets")
)  # fmt: skip
#: A role that names objects does not grant these: the request names none.
_NAMELESS = ("create", "deletecollection")


class Severity(IntEnum):
    """How far a right leads."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    def __str__(self) -> str:
        """Return the name as reports show it."""
        return self.name.lower()

    def lowered(self, steps: int) -> "Severity":
        """Return the severity so many steps lower, but never below low."""
        return Severity(max(Severity.LOW, self - steps))


SEVERITIES = {
    Severity.CRITICAL: "takes over the cluster, in one step or two",
    Severity.HIGH: "harms other nodes and what runs on them, or moves powerful pods to a stolen "
    "node",
    Severity.MEDIUM: "reads what helps an attack, or disturbs other nodes",
    Severity.LOW: "the same, but for named objects or in single namespaces alone",
}


class Lead(StrEnum):
    """What a right gives whoever has it, in the namespaces where it holds."""

    CLUSTER = "the whole cluster"
    ACCOUNTS = "any service account"
    SECRETS = "Secrets"
    PODS = "what runs in pods"
    HOSTED = "what runs in the pods of nodes"
    NODES = "nodes, by pods that break out of their container"
    MOVED = "pods that controllers make again on a stolen node"
    OTHERS = "other users and groups"
    ROLES = "what roles allow"
    CERTIFICATES = "client certificates of other users"
    UNHELD = "what this webhook holds"


@dataclass(frozen=True, slots=True)
class Right:
    """Something that RBAC grants.

    Attributes:
        id: names it in reports.
        verbs: any of which is this right.
        resources: with their subresources, and groups after a dot as kubectl writes them.
        severity: where it holds for all objects of all namespaces.
        why: what it leads to, in one sentence.
        any_name: whether it is as severe if the role names the objects.
        leads: what it gives, other than what it reads or disturbs.
    """

    id: str
    verbs: tuple[str, ...]
    resources: tuple[str, ...]
    severity: Severity
    why: str
    any_name: bool = False
    leads: tuple[Lead, ...] = ()


def parts_of(text: str) -> tuple[str, str, str]:
    """Return group, resource and subresource of ``RESOURCE[.GROUP][/SUBRESOURCE]``."""
    whole, _, sub_resource = text.partition("/")
    resource, _, group = whole.partition(".")
    return group, resource, sub_resource


def is_namespaced(text: str) -> bool:
    """Return whether a resource, as the table writes it, is in namespaces.

    A request for a Namespace counts as one in that namespace.
    """
    _, resource, _ = parts_of(text)
    return resource in _NAMESPACED


_C, _H, _M = Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM
_ADMISSION = "admissionregistration.k8s.io"
_AUTHENTICATION = "authentication.k8s.io"
_RBAC = "rbac.authorization.k8s.io"
_CERTIFICATES = "certificates.k8s.io"
_WORKLOADS = (
    "daemonsets.apps", "deployments.apps", "replicasets.apps", "statefulsets.apps", "jobs.batch",
    "cronjobs.batch", "replicationcontrollers",
)  # fmt: skip

EVERYTHING = Right(
    "everything", (ALL,), (ALL,), _C, "Allows everything: it is the cluster's administrator.",
    leads=(Lead.CLUSTER,),
)  # fmt: skip
RIGHTS = (
    EVERYTHING,
    Right(
        "secrets/read", READ, ("secrets",), _C,
        "Reads tokens, keys and passwords of everyone: list and watch return them too.",
        leads=(Lead.SECRETS,),
    ),
    Right(
        "serviceaccounts/token", ("create",), ("serviceaccounts/token",), _C,
        "Makes a token of any service account, bound to any node or to none.",
        leads=(Lead.ACCOUNTS,),
    ),
    Right(
        "pods/create", ("create",), ("pods",), _C,
        "Runs a pod with any service account and any Secret of the namespace, on any node.",
        leads=(Lead.ACCOUNTS, Lead.SECRETS, Lead.NODES),
    ),
    Right(
        "pods/image", ALTER, ("pods",), _C,
        "Replaces the image of a container, and so runs code with the pod's service account.",
        leads=(Lead.PODS,),
    ),
    Right(
        "workloads/write", CHANGE, _WORKLOADS, _C,
        "Runs pods with any service account of the namespace, through a controller.",
        leads=(Lead.ACCOUNTS, Lead.SECRETS, Lead.NODES),
    ),
    Right(
        "pods/exec", ("create", "get"), ("pods/exec", "pods/attach"), _C,
        "Runs commands in pods on any node, and reads their tokens.",
        leads=(Lead.PODS,),
    ),
    Right(
        "pods/ephemeralcontainers", ALTER, ("pods/ephemeralcontainers",), _C,
        "Runs code in pods on any node, beside their containers.",
        leads=(Lead.PODS,),
    ),
    Right(
        "nodes/proxy", (*READ, *WRITE), ("nodes/proxy",), _C,
        "Reaches the API of each kubelet, which runs commands in all pods; get is enough.",
        leads=(Lead.HOSTED,),
    ),
    Right(
        "impersonate", ("impersonate",), ("users", "groups", "serviceaccounts"), _C,
        "Acts as another user, as a service account or as a member of a group.",
        leads=(Lead.OTHERS,),
    ),
    Right(
        "impersonate/constrained",
        ("impersonate:user-info", "impersonate:serviceaccount", "impersonate:arbitrary-node"),
        (f"users.{_AUTHENTICATION}", f"groups.{_AUTHENTICATION}",
         f"serviceaccounts.{_AUTHENTICATION}", f"nodes.{_AUTHENTICATION}"), _H,
        "Acts as another user, service account or node, for what an impersonate-on verb allows.",
    ),
    Right(
        "impersonate/userextras", ("impersonate",),
        (f"userextras.{_AUTHENTICATION}/authentication.kubernetes.io/node-name",), _H,
        "Claims to be on another node, once it may impersonate a user.",
    ),
    Right(
        "roles/escalate", ("bind", "escalate"), (f"clusterroles.{_RBAC}", f"roles.{_RBAC}"), _C,
        "Grants rights that it does not have itself, up to all of them.",
        leads=(Lead.ROLES,),
    ),
    Right(
        "roles/write", CHANGE,
        (f"clusterroles.{_RBAC}", f"roles.{_RBAC}", f"clusterrolebindings.{_RBAC}",
         f"rolebindings.{_RBAC}"), _M,
        "Grants others what it has itself, and so keeps it when its credential is revoked.",
    ),
    Right(
        "roles/delete", REMOVE,
        (f"clusterroles.{_RBAC}", f"roles.{_RBAC}", f"clusterrolebindings.{_RBAC}",
         f"rolebindings.{_RBAC}"), _M,
        "Takes the rights of others away, of controllers and nodes too.",
    ),
    Right(
        "admission/mutate", CHANGE,
        (f"mutatingwebhookconfigurations.{_ADMISSION}", f"mutatingadmissionpolicies.{_ADMISSION}",
         f"mutatingadmissionpolicybindings.{_ADMISSION}"), _C,
        "Changes each object that is written, such as the account of a pod.", any_name=True,
        leads=(Lead.CLUSTER,),
    ),
    Right(
        "admission/validate", CHANGE, (f"validatingwebhookconfigurations.{_ADMISSION}",), _C,
        "Receives each object that is written, Secrets too, and refuses what it likes.",
        any_name=True,
        leads=(Lead.SECRETS, Lead.UNHELD),
    ),
    Right(
        "admission/policies", ("create", "update", "patch", "delete", "deletecollection"),
        (f"validatingadmissionpolicies.{_ADMISSION}",
         f"validatingadmissionpolicybindings.{_ADMISSION}"), _H,
        "Turns off what holds others, or refuses what nodes need.", any_name=True,
    ),
    Right(
        "admission/delete", REMOVE,
        (f"mutatingwebhookconfigurations.{_ADMISSION}",
         f"validatingwebhookconfigurations.{_ADMISSION}"), _H,
        "Turns off what holds others, such as this webhook.",
        leads=(Lead.UNHELD,),
    ),
    Right(
        "apiservices/write", CHANGE, ("apiservices.apiregistration.k8s.io",), _C,
        "Answers for an API group itself, built-in ones too: it tells kubelets which pods to run.",
        leads=(Lead.CLUSTER,),
    ),
    Right(
        "certificates/sign", ("approve", "sign"), (f"signers.{_CERTIFICATES}",), _C,
        "Has client certificates issued for any user, with the right to approve or sign requests.",
        leads=(Lead.CERTIFICATES,),
    ),
    Right(
        "certificates/approve", ALTER,
        (f"certificatesigningrequests.{_CERTIFICATES}/approval",
         f"certificatesigningrequests.{_CERTIFICATES}/status",
         f"podcertificaterequests.{_CERTIFICATES}/status"), _H,
        "Approves or signs requests for certificates, of the signers that it has the right to.",
    ),
    Right(
        "certificates/nodeclient", ("create",),
        (f"certificatesigningrequests.{_CERTIFICATES}/nodeclient",), _H,
        "Has the controller approve a certificate of any node, once it may create requests.",
        leads=(Lead.CERTIFICATES,),
    ),
    Right(
        "certificates/request", ("create",), (f"certificatesigningrequests.{_CERTIFICATES}",), _M,
        "Asks for certificates of whomever it names, which somebody may approve.",
    ),
    Right(
        "trust-bundles/write", (*WRITE, "attest"),
        (f"clustertrustbundles.{_CERTIFICATES}", f"signers.{_CERTIFICATES}"), _M,
        "Makes pods trust another certificate authority, with the right to attest.",
    ),
    Right(
        "nodes/write", ALTER, ("nodes",), _H,
        "Cordons, taints and labels other nodes, and so moves powerful pods to a stolen one.",
        leads=(Lead.MOVED,),
    ),
    Right(
        "nodes/status", ALTER, ("nodes/status",), _H,
        "Sets other nodes' capacity to 0 or their address to its own, and so moves their pods.",
        leads=(Lead.MOVED,),
    ),
    Right(
        "nodes/delete", REMOVE, ("nodes",), _H, "Removes other nodes, whose pods move elsewhere.",
        leads=(Lead.MOVED,),
    ),
    Right(
        "nodes/create", ("create",), ("nodes",), _M,
        "Makes up nodes that attract pods.",
    ),
    Right(
        "pods/delete", REMOVE, ("pods",), _H,
        "Deletes pods elsewhere, until those with powerful accounts come to a stolen node.",
        leads=(Lead.MOVED,),
    ),
    Right(
        "pods/eviction", ("create",), ("pods/eviction",), _H,
        "Evicts pods elsewhere, until those with powerful accounts come to a stolen node.",
        leads=(Lead.MOVED,),
    ),
    Right(
        "pods/binding", ("create",), ("pods/binding", "bindings"), _H,
        "Puts pods that wait for a node on a stolen one.",
    ),
    Right(
        "pods/status", ALTER, ("pods/status",), _H,
        "Reports pods elsewhere as failed, or with an address that draws their traffic.",
        leads=(Lead.MOVED,),
    ),
    Right(
        "pods/portforward", ("create", "get"), ("pods/portforward", "pods/proxy", "services/proxy"),
        _H, "Connects to ports of pods on any node, past network policies.",
    ),
    Right(
        "persistentvolumes/write", CHANGE, ("persistentvolumes",), _H,
        "Makes a hostPath volume, through which a pod with a claim reads any file of its node.",
    ),
    Right(
        "crds/write", WRITE, ("customresourcedefinitions.apiextensions.k8s.io",), _H,
        "Sees all objects of a kind by a conversion webhook, or deletes all of them.",
        any_name=True,
    ),
    Right(
        "apiservices/delete", REMOVE, ("apiservices.apiregistration.k8s.io",), _H,
        "Takes away an API that others need, such as the one for metrics.",
    ),
    Right(
        "namespaces/write", (*ALTER, *REMOVE), ("namespaces",), _H,
        "Lifts the pod security level of a namespace, or deletes all that is in it.",
    ),
    Right(
        "secrets/write", WRITE, ("secrets",), _H,
        "Replaces keys that others trust, or has a token Secret made for any service account.",
        leads=(Lead.SECRETS, Lead.ACCOUNTS),
    ),
    Right(
        "endpoints/write", CHANGE, ("endpoints", "endpointslices.discovery.k8s.io"), _H,
        "Leads the traffic of Services to itself.",
    ),
    Right(
        "services/write", (*ALTER, "create"), ("services", "services/status"), _M,
        "Takes traffic by external addresses and selectors.",
    ),
    Right(
        "configmaps/write", WRITE, ("configmaps",), _M,
        "Changes the configuration of others, such as of DNS and of kube-proxy.",
    ),
    Right(
        "configmaps/read", READ, ("configmaps",), _M,
        "Reads the configuration of others, which may hold credentials.",
    ),
    Right(
        "serviceaccounts/write", WRITE, ("serviceaccounts",), _M,
        "Gives accounts other Secrets to pull images with, or removes them.",
    ),
    Right(
        "workloads/delete", REMOVE, _WORKLOADS, _M,
        "Stops what runs on other nodes, such as what watches over them.",
    ),
    Right(
        "workloads/scale", ALTER,
        ("deployments.apps/scale", "replicasets.apps/scale", "statefulsets.apps/scale",
         "replicationcontrollers/scale"), _M,
        "Stops what runs on other nodes, or starts more of it, until pods come to a stolen one.",
        leads=(Lead.MOVED,),
    ),
    Right(
        "autoscalers/write", CHANGE, ("horizontalpodautoscalers.autoscaling",), _M,
        "Has a controller start more of what runs on other nodes, or less.",
        leads=(Lead.MOVED,),
    ),
    Right(
        "pods/read", READ, ("pods",), _M,
        "Reads where each pod runs, and credentials in their environment.",
    ),
    Right(
        "pods/log", READ, ("pods/log", "nodes/log", "nodes/pods"), _M,
        "Reads what pods elsewhere log, which may hold credentials.",
    ),
    Right(
        "nodes/checkpoint", (*READ, "create"), ("nodes/checkpoint",), _H,
        "Writes the memory of containers to their node's disk.",
    ),
    Right(
        "networkpolicies/write", WRITE, ("networkpolicies.networking.k8s.io",), _M,
        "Lifts what keeps pods apart.",
    ),
    Right(
        "volumes/attach", WRITE,
        ("volumeattachments.storage.k8s.io", "volumeattachments.storage.k8s.io/status"), _M,
        "Attaches other nodes' volumes to a stolen one, or detaches them.",
    ),
    Right(
        "csi/write", WRITE, ("csidrivers.storage.k8s.io", "csinodes.storage.k8s.io"), _M,
        "Has kubelets hand tokens of pods to a driver, or stops drivers on other nodes.",
    ),
    Right(
        "devices/write", WRITE,
        ("resourceslices.resource.k8s.io", "resourceclaims.resource.k8s.io/status"), _M,
        "Offers, takes and withdraws devices of other nodes.",
    ),
    Right(
        "leases/write", WRITE, ("leases.coordination.k8s.io",), _M,
        "Stops controllers that elect a leader, and makes nodes look dead or alive.",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """How one rule grants a right.

    Attributes:
        verbs: of the right.
        resource: of the right.
        grant: with the rule.
    """

    verbs: tuple[str, ...]
    resource: str
    grant: Grant

    @property
    def names(self) -> tuple[str, ...]:
        """The objects that the rule names, none for all."""
        return self.grant.rule.names


@dataclass(frozen=True, slots=True)
class GrantedRight:
    """A right that somebody has.

    Attributes:
        right: of the table.
        parts: what grants it.
    """

    right: Right
    parts: tuple[Part, ...]

    @property
    def severity(self) -> Severity:
        """That of the part that leads farthest."""
        return max(map(self._of_part, self.parts))

    def _of_part(self, part: Part) -> Severity:
        confined = part.grant.namespace not in ("", _SYSTEM)
        named = bool(part.names) and not self.right.any_name
        return self.right.severity.lowered(confined + named)

    @property
    def verbs(self) -> tuple[str, ...]:
        """All verbs of the right that any part has, in the order of the table."""
        had = {verb for part in self.parts for verb in part.verbs}
        return tuple(verb for verb in self.right.verbs if verb in had)

    @property
    def resources(self) -> tuple[str, ...]:
        """All resources of the right that any part has, likewise."""
        had = {part.resource for part in self.parts}
        return tuple(one for one in self.right.resources if one in had)

    @property
    def requests(self) -> frozenset[tuple[str, str, str]]:
        """Each verb with its resource, written as in the table, and its namespace, "" for all."""
        return frozenset(
            (verb, part.resource, part.grant.namespace)
            for part in self.parts
            for verb in part.verbs
        )

    @property
    def sources(self) -> tuple[str, ...]:
        """Bindings and roles that grant it, as people write them."""
        return tuple(dict.fromkeys(part.grant.source for part in self.parts))

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Where it holds, none for everywhere."""
        found = {part.grant.namespace for part in self.parts}
        return () if "" in found else tuple(sorted(found))

    @property
    def names(self) -> tuple[str, ...]:
        """The objects for which it holds, none for all."""
        if not all(part.names for part in self.parts):
            return ()
        return tuple(sorted({name for part in self.parts for name in part.names}))


def held(grants: Iterable[Grant], rights: Sequence[Right] = RIGHTS) -> list[GrantedRight]:
    """Return which rights of the table some grants amount to, those that lead farthest first.

    What a rule for everything grants is named once, not by each right.
    """
    found: dict[str, list[Part]] = defaultdict(list)
    for grant in grants:
        rule = grant.rule
        if rule.is_everything:
            found[EVERYTHING.id].append(Part((ALL,), ALL, grant))
            continue
        for right, verbs, text in _matches(rule, tuple(rights)):
            # A binding in a namespace grants nothing on what is in none.
            if not grant.namespace or is_namespaced(text):
                found[right.id].append(Part(verbs, text, grant))
    return sorted(
        (GrantedRight(right, tuple(found[right.id])) for right in rights if right.id in found),
        key=lambda one: -one.severity,
    )


@lru_cache(maxsize=20_000)
def _matches(
    rule: Rule, rights: tuple[Right, ...]
) -> tuple[tuple[Right, tuple[str, ...], str], ...]:
    """Return which rights a rule grants, with the verbs and the resource that it grants them by.

    Many users share a rule.
    """
    found = []
    for right in rights:
        if right is EVERYTHING:
            continue
        for text in right.resources:
            group, resource, sub_resource = parts_of(text)
            verbs = rule.verbs_of(right.verbs, group, resource, sub_resource)
            if rule.names and not sub_resource:
                verbs = tuple(verb for verb in verbs if verb not in _NAMELESS)
            if verbs:
                found.append((right, verbs, text))
    return tuple(found)
