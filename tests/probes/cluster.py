"""A small cluster as probes see it, with an object for each of them."""

from typing import Any

from noderestrict.policy.extra import Extra
from noderestrict.policy.keys import NodeKeys
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.records import NodeRecord, PodRecord, ServiceAccountRecord
from noderestrict.policy.table import STRICT_RULE_IDS
from noderestrict.probes.observed import Observed

SIGNER = "signer.example.com/pods"
EXTRA = Extra.of(STRICT_RULE_IDS, forbidden_labels=NodeKeys({"*": ("example.com/pool",)}))


def pod(name: str, node: str, account: str, **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default", "uid": f"{name}-uid", "labels": {}},
        "spec": {
            "nodeName": node,
            "serviceAccountName": account,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}],
            "volumes": [
                {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
                {
                    "name": "p",
                    "projected": {
                        "sources": [
                            {
                                "podCertificate": {
                                    "signerName": SIGNER,
                                    "keyType": "ED25519",
                                }
                            }
                        ]
                    },
                },
                {"name": "s", "secret": {"secretName": f"{name}-secret"}},
                {"name": "m", "configMap": {"name": f"{name}-map"}},
                {"name": "d", "persistentVolumeClaim": {"claimName": f"{name}-claim"}},
            ],
            "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "gpu"}],
            **more,
        },
        "status": {"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": f"{name}-gpu"}]},
    }


def account(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default", "uid": f"{name}-uid"}}


OBSERVED = Observed(
    node="n1",
    own_node={
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n1", "uid": "n1-uid", "labels": {"example.com/pool": "a"}},
        "spec": {},
        "status": {},
    },
    other_node="n2",
    own_pods=(pod("web", "n1", "web"), pod("db", "n1", "db")),
    foreign_pods=(pod("far", "n2", "far"),),
    claims={
        ("default", "db-claim"): {
            "metadata": {"name": "db-claim", "namespace": "default"},
            "spec": {"volumeName": "pv", "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"phase": "Bound"},
        }
    },
    volumes={
        "pv": {
            "metadata": {"name": "pv"},
            "spec": {"claimRef": {"namespace": "default", "name": "db-claim"}},
        }
    },
    attachments=("attachment",),
    accounts={("default", name): account(name) for name in ("web", "db")},
    csi_node={"metadata": {"name": "n1"}, "spec": {"drivers": []}},
    served={
        "resourceslices": "v1",
        "podcertificaterequests": "v1beta1",
        "csinodes/status": "v1",
    },
    extra=EXTRA,
)

LISTERS = MemoryListers(
    [
        NodeRecord("n1", "n1-uid"),
        NodeRecord("n2", "n2-uid"),
        *(
            PodRecord(
                "default", name, f"{name}-uid", node, name, audiences=("",), signers=(SIGNER,)
            )
            for name, node in (("web", "n1"), ("db", "n1"), ("far", "n2"))
        ),
        *(ServiceAccountRecord("default", name, f"{name}-uid") for name in ("web", "db", "far")),
    ]
)
