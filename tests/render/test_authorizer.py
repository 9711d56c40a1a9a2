"""What makes an API server ask the authorizer."""

import yaml

from noderestrict.render.authorizer import (
    authorization_configuration,
    classic_flags,
    kind_cluster,
    kubeadm_configuration,
    structured_flags,
)

FOLDER = "/etc/kubernetes/noderestrict"


def test_rbac_goes_first_and_no_answer_denies_nothing() -> None:
    rbac, *webhooks = authorization_configuration(f"{FOLDER}/webhook.yaml")["authorizers"]
    assert rbac["type"] == "RBAC"
    assert {one["webhook"]["failurePolicy"] for one in webhooks} == {"NoOpinion"}


def test_the_two_ways_to_name_a_webhook_exclude_each_other() -> None:
    structured, classic = structured_flags(f"{FOLDER}/a.yaml"), classic_flags(f"{FOLDER}/w.yaml")
    assert not structured.keys() & classic.keys()
    assert "authorization-mode" not in structured
    assert classic["authorization-mode"] == "RBAC,Webhook"
    assert classic["authorization-webhook-version"] == "v1"


def test_kubeadm_takes_arguments_as_a_list_and_before_v1beta4_as_a_map() -> None:
    flags = {"authorization-config": f"{FOLDER}/a.yaml"}
    new = kubeadm_configuration(flags, FOLDER)
    assert new["apiVersion"] == "kubeadm.k8s.io/v1beta4"
    assert new["apiServer"]["extraArgs"] == [
        {"name": "authorization-config", "value": f"{FOLDER}/a.yaml"}
    ]
    assert new["apiServer"]["extraVolumes"][0]["mountPath"] == FOLDER
    old = kubeadm_configuration(flags, None, version="v1beta3")
    assert old["apiServer"] == {"extraArgs": flags}


def test_a_kind_cluster_carries_the_patch_as_text_and_mounts_the_files() -> None:
    patch = kubeadm_configuration({"authorization-mode": "RBAC"}, FOLDER)
    cluster = kind_cluster(patch, workers=1, folder=("/tmp/files", FOLDER))
    control_plane, worker = cluster["nodes"]
    assert yaml.safe_load(control_plane["kubeadmConfigPatches"][0]) == patch
    assert control_plane["extraMounts"][0]["containerPath"] == FOLDER
    assert worker == {"role": "worker"}
