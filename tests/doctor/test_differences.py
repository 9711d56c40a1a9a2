"""What differs from a rendered object is told with path and both values, and the patch mends it."""

import copy
import json
from collections.abc import Callable
from typing import Any

import jsonpatch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noderestrict.doctor.differences import differences
from tests.render.overlays import OVERLAYS, build

Object = dict[str, Any]
OBJECTS: dict[str, Object] = {
    f"{one['kind']} {one['metadata']['name']}": one
    for overlay in OVERLAYS
    for one in build(overlay, ["mirror-pods", "monitoring"])
    if one["kind"] != "ValidatingWebhookConfiguration"
}
DEPLOYMENT = OBJECTS["Deployment noderestrict"]
ROLE = OBJECTS["ClusterRole noderestrict"]
DEEP: Any = []
for _ in range(5000):
    DEEP = [DEEP]


def container(value: Object) -> Object:
    first: Object = value["spec"]["template"]["spec"]["containers"][0]
    return first


def pod(value: Object) -> Object:
    spec: Object = value["spec"]["template"]["spec"]
    return spec


def with_defaults(value: Object) -> Object:
    """Return an object as an API server of today returns it."""
    found = copy.deepcopy(value)
    found["metadata"] |= {
        "uid": "u", "resourceVersion": "7", "generation": 3, "creationTimestamp": "t",
        "managedFields": DEEP,
    }  # fmt: skip
    found["metadata"].setdefault("annotations", {})["deployment.kubernetes.io/revision"] = "3"
    found["status"] = {"replicas": 2}
    if found["kind"] == "Deployment":
        found["spec"] |= {"revisionHistoryLimit": 10, "progressDeadlineSeconds": 600}
        found["spec"]["strategy"]["type"] = "RollingUpdate"
        found["spec"]["template"]["metadata"]["creationTimestamp"] = None
        pod(found).update(
            restartPolicy="Always", dnsPolicy="ClusterFirst", schedulerName="default-scheduler",
            serviceAccount="noderestrict",
        )  # fmt: skip
        container(found).update(
            terminationMessagePath="/dev/termination-log", terminationMessagePolicy="File",
            imagePullPolicy="IfNotPresent",
        )  # fmt: skip
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            container(found)[probe].setdefault("failureThreshold", 3)
            container(found)[probe]["successThreshold"] = 1
            container(found)[probe]["httpGet"]["scheme"] = "HTTP"
        for port in container(found)["ports"]:
            port["protocol"] = "TCP"
    return found


@pytest.mark.parametrize("name", OBJECTS)
def test_what_was_rendered_does_not_differ_from_itself(name: str) -> None:
    assert differences(OBJECTS[name], OBJECTS[name]) == []
    assert differences(with_defaults(OBJECTS[name]), OBJECTS[name]) == []


def test_what_a_cluster_may_choose_is_no_difference() -> None:
    value = with_defaults(DEPLOYMENT)
    value["metadata"]["labels"]["team"] = "a"
    value["spec"]["replicas"] = 5
    value["spec"]["template"]["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/restartedAt": "n"
    }
    pod(value)["imagePullSecrets"] = [{"name": "registry"}]
    image = container(value)["image"]
    container(value).update(image=f"registry.example.com:5000/a/{image}@sha256:ab", resources={})
    assert differences(value, DEPLOYMENT) == []


def test_an_order_that_says_nothing_is_no_difference() -> None:
    value, role = copy.deepcopy(DEPLOYMENT), copy.deepcopy(ROLE)
    for field in ("tolerations", "volumes"):
        pod(value)[field].reverse()
    container(value)["volumeMounts"].reverse()
    assert differences(value, DEPLOYMENT) == []
    role["rules"].reverse()
    for rule in role["rules"]:
        rule["verbs"].reverse()
        rule.get("resources", []).reverse()
    assert differences(role, ROLE) == []


#: A change of the Deployment, and what is told of it.
CHANGES: dict[str, tuple[Callable[[Object], Any], str]] = {
    "a field more": (
        lambda value: pod(value).update(hostPID=True),
        "/spec/template/spec/hostPID is true, not rendered",
    ),
    "a field less": (
        lambda value: pod(value).pop("priorityClassName"),
        '/spec/template/spec/priorityClassName is not set, rendered as "system-cluster-critical"',
    ),
    "another value": (
        lambda value: value["spec"].update(replicas=1),
        "/spec/replicas is 1, rendered as 2",
    ),
    "no default": (
        lambda value: pod(value).update(dnsPolicy="Default"),
        '/spec/template/spec/dnsPolicy is "Default", rendered as "ClusterFirst"',
    ),
    "an argument more": (
        lambda value: container(value)["args"].insert(1, "--mode=audit"),
        'noderestrict: /spec/template/spec/containers/0/args/1 is "--mode=audit", not rendered',
    ),
    "an argument less": (
        lambda value: container(value)["args"].remove("--tls-wait=600"),
        "noderestrict: /spec/template/spec/containers/0/args/5 is not set, rendered as "
        '"--tls-wait=600"',
    ),
    "another argument": (
        lambda value: container(value)["args"].__setitem__(3, "--port=1"),
        'noderestrict: /spec/template/spec/containers/0/args/3 is "--port=1", rendered as '
        '"--port=8443"',
    ),
    "another tag": (
        lambda value: container(value).update(image="noderestrict:0.0.1"),
        'noderestrict: /spec/template/spec/containers/0/image is "noderestrict:0.0.1", rendered as',
    ),
    "a privilege": (
        lambda value: container(value)["securityContext"].update(privileged=True),
        "noderestrict: /spec/template/spec/containers/0/securityContext/privileged is true, not",
    ),
    "no capabilities dropped": (
        lambda value: container(value)["securityContext"].pop("capabilities"),
        "noderestrict: /spec/template/spec/containers/0/securityContext/capabilities is not set, "
        'rendered as {"drop":["ALL"]}',
    ),
    "a volume more": (
        lambda value: pod(value)["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
        'host: /spec/template/spec/volumes/2 is {"name":"host","hostPath":{"path":"/"}}, not',
    ),
    "another Secret": (
        lambda value: pod(value)["volumes"][1]["secret"].update(secretName="mine"),
        'tls: /spec/template/spec/volumes/1/secret/secretName is "mine", rendered as "noder',
    ),
    "a container more": (
        lambda value: pod(value)["containers"].insert(0, {"name": "x", "image": "y"}),
        'x: /spec/template/spec/containers/0 is {"name":"x","image":"y"}, not rendered',
    ),
    "a toleration more": (
        lambda value: pod(value)["tolerations"].insert(0, {"operator": "Exists"}),
        '/spec/template/spec/tolerations/0 is {"operator":"Exists"}, not rendered',
    ),
    "a label less": (
        lambda value: value["metadata"]["labels"].pop("app.kubernetes.io/part-of"),
        "/metadata/labels/app.kubernetes.io~1part-of is not set, rendered as",
    ),
    "another selector": (
        lambda value: value["spec"]["selector"]["matchLabels"].update(a="b"),
        '/spec/selector/matchLabels/a is "b", not rendered',
    ),
    "null": (
        lambda value: value.update(spec=None),
        "/spec is null, rendered as {",
    ),
}


@pytest.mark.parametrize("case", CHANGES.values(), ids=CHANGES)
def test_each_change_is_told_on_one_line_and_its_patch_mends_it(
    case: tuple[Callable[[Object], Any], str],
) -> None:
    change, told = case
    value = copy.deepcopy(DEPLOYMENT)
    change(value)
    found = differences(value, DEPLOYMENT)
    assert [str(one)[: len(told)] for one in found] == [told]
    assert "\n" not in str(found[0])
    mended = jsonpatch.apply_patch(value, [one.operation() for one in found])
    assert differences(mended, DEPLOYMENT) == []


def test_more_rights_are_told_one_by_one() -> None:
    value = copy.deepcopy(ROLE)
    value["rules"][0]["verbs"].insert(0, "delete")
    value["rules"].insert(0, {"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]})
    assert [str(one) for one in differences(value, ROLE)] == [
        '/rules/1/verbs/0 is "delete", not rendered',
        '/rules/0 is {"apiGroups":[""],"resources":["secrets"],"verbs":["*"]}, not rendered',
    ]


def test_a_rule_with_other_resources_is_no_choice_of_the_cluster() -> None:
    value = copy.deepcopy(ROLE)
    del value["rules"][0]["resources"]
    assert [str(one) for one in differences(value, ROLE)] == [
        "/rules/0/resources is not set, rendered as "
        '["nodes","persistentvolumeclaims","persistentvolumes","pods","serviceaccounts"]'
    ]


def test_what_is_missing_or_must_not_exist_is_one_difference() -> None:
    (missing,) = differences(None, ROLE)
    assert str(missing) == "is missing"
    assert missing.operation() == {"op": "add", "path": "", "value": ROLE}
    (surplus,) = differences(ROLE, None)
    assert str(surplus) == "should not exist"
    assert surplus.operation() == {"op": "remove", "path": ""}
    assert differences(None, None) == []


def test_of_a_kind_that_others_define_only_what_was_rendered_counts() -> None:
    certificate = OBJECTS["Certificate noderestrict-tls"]
    value = copy.deepcopy(certificate)
    value["spec"]["revisionHistoryLimit"] = 1
    assert differences(value, certificate) == []
    value["spec"]["secretName"] = "other"
    assert [one.path for one in differences(value, certificate)] == ["/spec/secretName"]


def changed(data: st.DataObject, value: Any) -> Any:
    """Return a value with some of its parts changed, removed or added."""
    if isinstance(value, dict):
        found = {
            key: changed(data, one)
            for key, one in value.items()
            if key in ("kind", "name", "apiVersion") or data.draw(st.integers(0, 9))
        }
        return found | ({"added": 1} if not data.draw(st.integers(0, 9)) else {})
    if isinstance(value, list):
        kept = [changed(data, one) for one in value if data.draw(st.integers(0, 5))]
        if not data.draw(st.integers(0, 5)):
            kept.insert(data.draw(st.integers(0, len(kept))), "added")
        return data.draw(st.permutations(kept)) if not data.draw(st.integers(0, 5)) else kept
    return value if data.draw(st.integers(0, 9)) else data.draw(st.sampled_from(["x", 5, None]))


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(sorted(OBJECTS)))
def test_every_patch_turns_what_is_installed_into_what_was_rendered(
    data: st.DataObject, name: str
) -> None:
    rendered = OBJECTS[name]
    value = changed(data, rendered)
    value["metadata"] = value.get("metadata") or {}
    found = differences(value, rendered)
    patch = json.loads(json.dumps([one.operation() for one in found]))
    assert differences(jsonpatch.apply_patch(value, patch), rendered) == []
