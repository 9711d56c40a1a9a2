"""Who refused a request, as the API server's answer says.

The order of the API server is: authentication, impersonation, authorizers, the in-tree admission
plugins, validation of the object, policies, webhooks. Nobody after the first refusal is asked.
"""

import re
from http import HTTPStatus

from noderestrict.cluster.connection import ClusterError
from noderestrict.policy.rule import CREATE
from noderestrict.probes.request import Request
from noderestrict.verify.results import (
    API_SERVER,
    AUTHORIZERS,
    OURS,
    PASSED,
    PLUGIN,
    REFUSED,
    UNTOLD,
    Outcome,
)

_BAD_REQUEST, _FORBIDDEN, _CONFLICT, _MANY = 400, 403, 409, 429

_WEBHOOK = re.compile(r'admission webhook "([^"]+)" denied the request')
_FAILED_WEBHOOK = re.compile(r'failed calling webhook "([^"]+)"')
_NO_DRY_RUN = re.compile(r'admission webhook "([^"]+)" does not support dry run')
_POLICY = re.compile(r"ValidatingAdmissionPolicy '([^']+)'")
_OUR_WEBHOOK = ".noderestrict.io"
_CANNOT_IMPERSONATE = "cannot impersonate"
_CANNOT = re.compile(r'User "[^"]*" cannot [a-z]+ (?:resource|path) ')
#: Texts of the in-tree plugin, after "is forbidden: ", of Kubernetes 1.25 to 1.37.
_IN_TREE = re.compile(
    r"could not determine node from user"
    r'|node "[^"]*" (?:can only|can ?not|is not allowed|must not)'
    r"|node \S+ (?:UID mismatch|can only)"
    r"|pod does not have .* can only create mirror pods"
    r"|may only update PVC status"
    r"|unexpected (?:pod subresource|operation|subresource|type)"
    r"|is not allowed to modify labels"
    r"|node (?:requested token|may only request)"
    r"|the UID in the bound object reference"
    r"|(?:error validating )?audience \"[^\"]*\""
    r"|PodCertificateRequest"
    r"|pod \"[^\"]*\" is (?:not running on node|a mirror pod)"
    r"|while retrieving (?:node|pod|service account) .* named in the PodCertificateRequest"
    r"|can only (?:access|create|delete) "
    r"|unable to (?:parse csr|access the object name)"
)
_MINTED_FOR_NOBODY = "cannot bind token for serviceaccount"
_BUDGET = "disruption budget"


def passed(message: str = "") -> Outcome:
    """Return the outcome of a request that nobody refused."""
    return Outcome(PASSED, message=message)


def untold(message: str) -> Outcome:
    """Return the outcome of a request from which nothing follows."""
    return Outcome(UNTOLD, message=message)


def outcome_of(request: Request, error: ClusterError, invalid: str = "") -> Outcome:
    """Return the outcome of a request that the API server answered with an error.

    Args:
        request: that was sent.
        error: the answer.
        invalid: what the API server says if it refuses the request itself, "" if it does not.
    """
    text = _message(error)
    if not error.code:
        return untold(f"no answer: {error}")
    # Webhooks first: their own words follow, and may be anybody's.
    if found := _WEBHOOK.match(text):
        if error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return untold(f"webhook {found[1]} could not decide: {text}")
        ours = found[1].endswith(_OUR_WEBHOOK)
        return Outcome(REFUSED, OURS if ours else f"webhook {found[1]}", text)
    if found := _NO_DRY_RUN.match(text):
        return untold(f"webhook {found[1]} takes no dry runs, and keeps the request from others")
    if found := _FAILED_WEBHOOK.search(text):
        return untold(f"webhook {found[1]} did not answer: {text}")
    if _CANNOT_IMPERSONATE in text:
        return untold(text)
    if found := _POLICY.search(text):
        return Outcome(REFUSED, f"policy {found[1]}", text)
    if _is_past_admission(request, error.code, text):
        return passed()
    if invalid and invalid in text:
        return Outcome(REFUSED, API_SERVER, text)
    if error.code != _FORBIDDEN:
        return untold(f"the API server answers {error.code}: {text}")
    if _CANNOT.search(text):
        return Outcome(REFUSED, AUTHORIZERS, text)
    if _IN_TREE.match(text.partition(" is forbidden: ")[2]):
        return Outcome(REFUSED, PLUGIN, text)
    return untold(f"refused for another reason: {text}")


def _is_past_admission(request: Request, code: int, text: str) -> bool:
    """Tell whether the answer comes from what follows admission."""
    if request.api.kind == "TokenRequest":
        return code == _BAD_REQUEST and _MINTED_FOR_NOBODY in text
    if request.api.kind == "Eviction":
        return code == _MANY and _BUDGET in text
    return code == _CONFLICT and request.operation == CREATE and "already exists" in text


def _message(error: ClusterError) -> str:
    """Return the message of an answer, without the request and the code before it."""
    text = str(error)
    before = f": {error.code} "
    return text.partition(before)[2] if error.code and before in text else text
