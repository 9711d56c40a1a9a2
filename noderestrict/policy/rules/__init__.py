"""One module per resource; each rule a small function over Attributes.

A rule returns None when it has no objection.
"""

#: Rules beyond the in-tree plugin: each is off unless the operator asks for it.
STRICT_RULES = (
    "nodes/forbidden-labels",
    "nodes/unschedulable",
    "nodes/pod-cidr",
    "nodes/provider-id",
    "nodes/annotations",
    "nodes/finalizers",
    "nodes/delete-self",
    "certificatesigningrequests/addresses",
    "events/about-own",
)

#: The id of every rule, as messages, metrics and modes name it.
RULES = (
    "identity/node-name",
    "request/object",
    "pods/mirror-annotation",
    "pods/mirror-node-name",
    "pods/mirror-owner",
    "pods/mirror-owner-uid",
    "pods/mirror-references",
    "pods/delete-own",
    "pods/evict-own",
    "pods/status-own",
    "pods/status-labels",
    "pods/status-resource-claims",
    "pods/status-extended-resource-claim",
    "pods/closed-world",
    "nodes/own-name",
    "nodes/config-source",
    "nodes/labels",
    "nodes/taints",
    "nodes/owner-references",
    "persistentvolumeclaims/status-fields",
    "persistentvolumeclaims/closed-world",
    "serviceaccounts-token/bound-pod",
    "serviceaccounts-token/audience",
    "leases/namespace",
    "leases/own-name",
    "csinodes/own-name",
    "resourceslices/own-node-name",
    "certificatesigningrequests/common-name",
    "podcertificaterequests/gate",
    "podcertificaterequests/only-create",
    "podcertificaterequests/node",
    "podcertificaterequests/pod",
    "podcertificaterequests/service-account",
    *STRICT_RULES,
)
