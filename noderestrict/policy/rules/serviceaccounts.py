"""Service account tokens: a node may request tokens for its own pods and their audiences.

The source is admitServiceAccount in plugin/pkg/admission/noderestriction of Kubernetes.
"""

from collections.abc import Iterator
from itertools import islice

from noderestrict.api import authenticationv1
from noderestrict.policy import features
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.cel import Uncovered
from noderestrict.policy.compare import listed
from noderestrict.policy.decision import Decision, Denied, Question, forbidden, not_found, retriable
from noderestrict.policy.records import PodRecord
from noderestrict.policy.releases import Part, since
from noderestrict.policy.rule import CREATE, Target, rule

CREATE_TOKEN = Target(
    "", "serviceaccounts", "token", CREATE, "TokenRequest", new=authenticationv1.TokenRequest
)

#: The only rule that depends on the API server's audiences.
AUDIENCE_RULE = "serviceaccounts-token/audience"
AUDIENCE_VERB = "request-serviceaccounts-token-audience"
#: How many volumes of a pod to look up for an audience. No node can mount as many, but a pod can
#: name tens of thousands, which would slow down every token request for it.
_MOST_VOLUMES = 500


@rule(
    "serviceaccounts-token/bound-pod",
    CREATE_TOKEN,
    demands="bound to a pod that runs on the node, by its uid",
    cel=Uncovered.LOOKUP,
)
def token_bound_to_own_pod(request: Attributes) -> Denied | None:
    """Deny a token that is not bound to a pod on this node, and could outlive or leave it.

    Field: spec.boundObjectRef.
    """
    token: authenticationv1.TokenRequest = request.new
    reference = token.spec.boundObjectRef if token.spec else None
    if reference is None:
        return forbidden(
            f"{request.where}: spec.boundObjectRef is missing; bind the token to a pod on this "
            f"node",
        )
    for field, value, wanted in (
        ("apiVersion", reference.apiVersion, "v1"),
        ("kind", reference.kind, "Pod"),
    ):
        if value != wanted:
            return forbidden(
                f"{request.where}: spec.boundObjectRef.{field} is {value or ''!r}; it must be "
                f"{wanted!r}",
            )
    for field, value in (("name", reference.name), ("uid", reference.uid)):
        if not value:
            return forbidden(
                f"{request.where}: spec.boundObjectRef.{field} is empty; name the pod and its uid",
            )
    name = reference.name or ""
    pod = request.listers.pod(request.namespace, name)
    if pod is None:
        return not_found(
            f"{request.where}: pods {request.namespace}/{name} in spec.boundObjectRef is not found",
        )
    if reference.uid != pod.uid:
        return forbidden(
            f"{request.where}: spec.boundObjectRef.uid is {reference.uid!r}, which is not the uid "
            f"of pods {request.namespace}/{name}; the pod may have been recreated",
            f"the pod has uid {pod.uid!r}",
        )
    if pod.node_name != request.node:
        return forbidden(
            f"{request.where}: pods {request.namespace}/{name} in spec.boundObjectRef is not bound "
            f"to node {request.node!r}, which may request tokens only for its own pods",
            f"the pod has spec.nodeName {pod.node_name!r}",
        )
    return None


TRANSLATION = Part("the drivers that replace in-tree volumes count, too", since(33))
GRANT = Part("the authorizer may allow other audiences", since(33))


@rule(
    AUDIENCE_RULE,
    CREATE_TOKEN,
    demands="an audience that the pod or its CSI drivers ask for, or that the authorizer allows",
    since=since(32),
    parts=(TRANSLATION, GRANT),
    gate=features.AUDIENCE_RESTRICTION,
    cel=Uncovered.LOOKUP,
)
def token_audience(request: Attributes) -> Decision | None:
    """Deny an audience that the pod does not ask for: a node could get tokens for any service.

    Field: spec.audiences. Feature gate ServiceAccountNodeAudienceRestriction, on since 1.33.
    """
    if not request.settings.features[features.AUDIENCE_RESTRICTION]:
        return None
    token: authenticationv1.TokenRequest = request.new
    audiences = [
        audience or "" for audience in (token.spec.audiences if token.spec else None) or ()
    ]
    reference = token.spec.boundObjectRef if token.spec else None
    pod = request.listers.pod(request.namespace, (reference.name if reference else None) or "")
    if pod is None:
        return not_found(f"{request.where}: the pod in spec.boundObjectRef is not found")

    candidates = _candidates(audiences, request.settings.api_audiences)
    if not candidates:
        refused = forbidden(
            f"{request.where}: spec.audiences has {len(audiences)} entries, "
            f"{listed(map(repr, audiences))}; request one audience at a time",
        )
        return _unless_pending(request, refused)

    problems: list[str] = []
    for candidate in candidates:
        found, lookup_problems = _asked_for(request, pod, candidate)
        if found:
            return None
        problems += lookup_problems
    audience = candidates[0]
    shown = f"audience {audience!r}" if audience else "the default audience"
    where = f"pods {request.namespace}/{(reference.name if reference else None) or ''}"
    if problems:
        refused = forbidden(
            f"{request.where}: cannot determine whether {where} asks for {shown}: a claim, volume "
            f"or CSIDriver that it uses is missing, or there are too many",
            listed(dict.fromkeys(problems)),
        )
        return _unless_pending(request, refused)
    refused = forbidden(
        f"{request.where}: {where} does not ask for {shown}; add a projected serviceAccountToken "
        f"with it to the pod, or spec.tokenRequests to its CSIDriver, or grant node "
        f"{request.node!r} the verb {AUDIENCE_VERB} on it",
        f"the pod itself asks for {listed(map(repr, pod.audiences)) or 'none'}",
    )
    if not request.demands(GRANT):
        return _unless_pending(request, refused)
    return _question(request, candidates, refused)


def _candidates(audiences: list[str], api_audiences: tuple[str, ...] | None) -> list[str]:
    """Return the audiences that allow the request if the pod asks for one; [] for too many.

    The API server fills an empty list with its own audiences before a webhook sees it, so exactly
    its audiences may also mean the empty audience.
    """
    candidates = audiences[:] if len(audiences) == 1 else []
    if not audiences or (
        api_audiences
        and len(audiences) == len(api_audiences)
        and sorted(audiences) == sorted(api_audiences)
    ):
        candidates.append("")
    return candidates


def _question(request: Attributes, audiences: list[str], refused: Denied) -> Question:
    otherwise = _unless_pending(request, refused)
    return Question(AUDIENCE_VERB, "", tuple(audiences), request.name, request.namespace, otherwise)


def _unless_pending(request: Attributes, refused: Denied) -> Denied:
    """Make a denial retriable while the API audiences, which it may depend on, are unknown."""
    if request.settings.api_audiences is None and request.settings.audiences_pending:
        return retriable(
            f"{request.where}: the API server's audiences are not known yet; try again",
        )
    return refused


def _asked_for(request: Attributes, pod: PodRecord, audience: str) -> tuple[bool, list[str]]:
    """Return whether the pod asks for an audience, and which lookups failed."""
    if audience in pod.audiences:
        return True, []
    problems: list[str] = []
    if len(pod.csi_drivers) + len(pod.migrated_drivers) + len(pod.claims) > _MOST_VOLUMES:
        problems.append(f"the pod has over {_MOST_VOLUMES} volumes with drivers to look up")
    for driver_name in islice(_drivers(request, pod, problems), _MOST_VOLUMES):
        driver = request.listers.csi_driver(driver_name)
        if driver is None:
            problems.append(f"csidrivers {driver_name} is not found")
        elif audience in driver.audiences:
            return True, []
    return False, problems


def _drivers(request: Attributes, pod: PodRecord, problems: list[str]) -> Iterator[str]:
    yield from pod.csi_drivers
    translates = request.demands(TRANSLATION)
    if translates:
        yield from pod.migrated_drivers
    for claim_name in pod.claims[:_MOST_VOLUMES]:
        claim = request.listers.persistent_volume_claim(pod.namespace, claim_name)
        if claim is None:
            problems.append(f"persistentvolumeclaims {pod.namespace}/{claim_name} is not found")
            continue
        volume = request.listers.persistent_volume(claim.volume_name) if claim.volume_name else None
        if volume is None:
            problems.append(
                f"persistentvolumes {claim.volume_name} of claim {pod.namespace}/{claim_name} "
                f"is not found"
                if claim.volume_name
                else f"persistentvolumeclaims {pod.namespace}/{claim_name} is not bound"
            )
        elif volume.csi_driver and (translates or not volume.migrated):
            yield volume.csi_driver
