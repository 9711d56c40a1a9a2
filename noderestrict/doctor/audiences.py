"""Are the servers told the API audiences that the API server has."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

import msgspec

from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.questions import learn_audiences
from noderestrict.doctor.findings import Finding, failed, passed, warned

_CHECK = "api audiences"
_FLAG = "--api-audiences"
_VARIABLE = "NODERESTRICT_API_AUDIENCES"
_NOT_FOUND = 404


async def check_audiences(connection: Connection, user: str) -> AsyncIterator[Finding]:
    """Yield, for each workload of the servers, whether it has the right audiences.

    Args:
        connection: with the rights of an administrator, best.
        user: the servers' service account, ``system:serviceaccount:NAMESPACE:NAME``.

    Raises:
        ClusterError: the workloads could not be read.
    """
    _, _, account = user.partition("system:serviceaccount:")
    namespace, _, name = account.partition(":")
    told = [one async for one in _told(connection, namespace, name)] if name else []
    if not told:
        yield warned(
            _CHECK, f"no workload of {user} can be seen",
            f"look whether {_FLAG} of the server is that of the API server, if it has one",
        )  # fmt: skip
        return
    known = await _known(connection)
    for workload, audiences in told:
        if not audiences:
            yield passed(_CHECK, f"{workload} learns them with its token")
        elif not known:
            yield await _against_issuer(connection, workload, audiences)
        for source, right in known.items() if audiences else ():
            if sorted(set(audiences)) == sorted(set(right)):
                yield passed(_CHECK, f"{workload} has {','.join(audiences)}, as {source}")
            else:
                yield failed(
                    _CHECK,
                    f"{workload} has {_FLAG}={','.join(audiences)}, but {source} has "
                    f"{','.join(right)}: default tokens are refused, or tokens issued that no pod "
                    f"asks for",
                    f"render with {_FLAG}={','.join(right)}, or without: the server learns them",
                )


async def _told(
    connection: Connection, namespace: str, account: str
) -> AsyncIterator[tuple[str, Sequence[str]]]:
    for plural in ("deployments", "daemonsets"):
        body = await connection.get(f"/apis/apps/v1/namespaces/{namespace}/{plural}")
        for workload in msgspec.json.decode(body).get("items") or ():
            spec = workload["spec"]["template"]["spec"]
            if spec.get("serviceAccountName") != account:
                continue
            for container in spec["containers"]:
                words = [*(container.get("command") or ()), *(container.get("args") or ())]
                if "serve" in words:
                    texts = list(_values(words, _FLAG.removeprefix("--")))
                    texts += [
                        str(variable.get("value") or "")
                        for variable in container.get("env") or ()
                        if variable.get("name") == _VARIABLE
                    ]
                    audiences = [one for one in ",".join(texts[:1]).split(",") if one]
                    yield f"{plural} {namespace}/{workload['metadata']['name']}", audiences


def _values(words: Sequence[str], flag: str) -> Iterator[str]:
    """Yield what a command line gives for a flag, the last first, since it counts."""
    found = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in (f"--{flag}", f"-{flag}"):
            found.append(value if equals else following)
    yield from reversed(found)


async def _known(connection: Connection) -> Mapping[str, Sequence[str]]:
    """Return the API server's audiences by who tells them: its flags, or our own token."""
    body = await connection.get(
        "/api/v1/namespaces/kube-system/pods", {"labelSelector": "component=kube-apiserver"}
    )
    known: dict[str, Sequence[str]] = {}
    for pod in msgspec.json.decode(body).get("items") or ():
        container = pod["spec"]["containers"][0]
        words = [*(container.get("command") or ()), *(container.get("args") or ())]
        given = next(_values(words, "api-audiences"), "")
        # Without audiences, those are the issuers, of which there may be several.
        issuers = list(_values(words, "service-account-issuer"))[::-1]
        audiences = [one for one in given.split(",") if one] or issuers
        if audiences:
            known[pod["metadata"]["name"]] = audiences
    if not known:
        try:
            known["the API server"] = await learn_audiences(connection)
        except ClusterError:
            # What this token cannot tell is no fault of the cluster.
            return {}
    return known


async def _against_issuer(
    connection: Connection, workload: str, audiences: Sequence[str]
) -> Finding:
    text = f"{workload} has {_FLAG}={','.join(audiences)}, which cannot be compared from here"
    remedy = f"compare it with {_FLAG} of the API server"
    try:
        body = await connection.get("/.well-known/openid-configuration")
        issuer = str(msgspec.json.decode(body).get("issuer"))
    except ClusterError as error:
        if error.code != _NOT_FOUND:
            raise
        return warned(_CHECK, text, remedy)
    if issuer in audiences:
        return passed(_CHECK, f"{text}; the issuer is among them")
    return warned(_CHECK, f"{text}; the issuer {issuer} is not among them", remedy)
