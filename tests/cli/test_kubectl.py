"""Commands take kubectl's flags, and find a cluster where kubectl finds it."""

import importlib.metadata
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from noderestrict.cluster.access import Impersonated, User
from noderestrict.cluster.errors import ConnectionFailedError
from tests.cli.cluster import TOKEN, Recorder, kubeconfig, plugin, run, running, world
from tests.cli.walk import LEAVES

HEADER = "NODE  OBJECT  THROUGH\n"
AS = "Impersonate-User"
GROUP = "Impersonate-Group"
LEAD = "noderestrict graph: "


class Cluster:
    """A cluster that runs, and a folder for kubeconfigs."""

    def __init__(self, recorder: Recorder, port: int, folder: Path) -> None:
        self.recorder, self.port, self.folder = recorder, port, folder

    def kubeconfig(self, name: str = "a", user: object = None, **context: str) -> str:
        used = {"token": name} if user is None else user
        assert isinstance(used, dict)
        return str(kubeconfig(self.folder / name, self.port, used, **context))

    def who(self) -> tuple[str, list[tuple[str, str]]]:
        """Return who asked, who must be the same in all requests."""
        first, *rest = self.recorder.who
        assert all(one == first for one in rest)
        self.recorder.who.clear()
        return first


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    recorder = Recorder(world())
    async with running(recorder) as port:
        yield Cluster(recorder, port, tmp_path)


def test_it_is_installed_as_a_plugin_of_kubectl() -> None:
    scripts = importlib.metadata.entry_points(group="console_scripts")
    found = {one.name: one.value for one in scripts if one.value.startswith("noderestrict.")}
    assert found == {
        "noderestrict": "noderestrict.__main__:main",
        "kubectl-noderestrict": "noderestrict.__main__:main",
        "kubectl_complete-noderestrict": "noderestrict.cli.kubectl_complete:main",
    }


@pytest.mark.parametrize(
    "command", [name for name in LEAVES if name not in ("serve", "replay", "version")]
)
def test_every_command_that_asks_a_cluster_takes_the_flags(command: str) -> None:
    flags = {name for one in LEAVES[command]._actions for name in one.option_strings}
    if "--kubeconfig" in flags:
        assert flags >= {"--context", "--as", "--as-group", "--as-uid"}
    else:
        assert command.split()[0] in ("render", "completion")


async def test_the_cluster_is_found_where_kubectl_finds_it(cluster: Cluster) -> None:
    ask = ("graph", "reachable", "idle")
    one, two = cluster.kubeconfig("one"), cluster.kubeconfig("two")
    assert await run(*ask, KUBECONFIG=f"{one}:{two}") == (0, HEADER, "")
    assert cluster.who() == ("Bearer one", [])
    assert await run(*ask, "--context", "two", KUBECONFIG=f"{one}:{two}") == (0, HEADER, "")
    assert cluster.who() == ("Bearer two", [])
    cluster.kubeconfig(".kube/config", {"token": "home"})
    assert await run(*ask, HOME=str(cluster.folder)) == (0, HEADER, "")
    assert cluster.who() == ("Bearer home", [])
    # As with kubectl, an empty name is none.
    assert await run(*ask, "--kubeconfig", "", HOME=str(cluster.folder)) == (0, HEADER, "")
    assert cluster.who() == ("Bearer home", [])


async def test_as_impersonates(cluster: Cluster) -> None:
    file = cluster.kubeconfig()
    flags = ("--as", "eve", "--as-group", "a,b", "--as-group", "c", "--as-uid", "7")
    ask = ("graph", "reachable", "idle", "--kubeconfig", file)
    assert await run(*ask, *flags) == (0, HEADER, "")
    headers = [(AS, "eve"), ("Impersonate-Uid", "7"), (GROUP, "a,b"), (GROUP, "c")]
    assert cluster.who() == ("Bearer a", headers)
    code, _, err = await run(*ask, "--as-group", "a")
    assert (code, err) == (2, f"{LEAD}--as-group needs --as\n")
    code, _, err = await run(*ask, "--as", "a\nb")
    assert (code, err) == (2, f"{LEAD}--as: 'a\\nb' is no value of a header\n")
    for flag in ("--as", "--as-group", "--as-uid"):
        code, _, err = await run(*ask, "--as", "eve", flag, "")
        assert (code, err) == (2, f"{LEAD}{flag} is empty\n")
    assert cluster.recorder.who == []


@pytest.mark.parametrize(
    ("flags", "sent"),
    [
        (Impersonated(), [(AS, "k"), (GROUP, "g"), ("Impersonate-Extra-x", "y")]),
        (Impersonated("f"), [(AS, "f"), (GROUP, "g"), ("Impersonate-Extra-x", "y")]),
        (Impersonated(groups=("h",)), [(GROUP, "h"), (AS, "k"), ("Impersonate-Extra-x", "y")]),
    ],
)
def test_a_flag_replaces_what_the_kubeconfig_says_and_the_rest_stays(
    flags: Impersonated, sent: list[tuple[str, str]]
) -> None:
    user = User(
        "users[k].user", impersonation=((AS, "k"), (GROUP, "g"), ("Impersonate-Extra-x", "y"))
    )
    assert list(flags.applied(user).impersonation) == sent


def test_a_group_needs_a_user() -> None:
    with pytest.raises(ConnectionFailedError, match="--as-uid needs --as"):
        Impersonated(uid="7").applied(User("users[k].user"))


async def test_a_name_without_a_namespace_is_in_that_of_the_context(cluster: Cluster) -> None:
    inside = cluster.kubeconfig("inside", namespace="ns")
    outside = cluster.kubeconfig("outside")
    ask = ("graph", "who", "secret", "used", "-o", "json", "--kubeconfig")
    code, out, _ = await run(*ask, inside)
    assert code == 0
    assert [(row["node"], row["namespace"]) for row in json.loads(out)] == [("n1", "ns")]
    code, _, err = await run(*ask, outside)
    assert code == 2
    assert "secret default/used is unknown: the cluster does not have it" in err
    assert (await run(*ask, outside, "--namespace", "ns"))[0] == 0


async def test_unknown_nodes_and_objects_of_a_live_cluster_are_exit_2(cluster: Cluster) -> None:
    flags = ("--kubeconfig", cluster.kubeconfig("a", plugin(cluster.folder)))
    code, out, err = await run("graph", "reachable", "n9", *flags)
    assert (code, out) == (2, "")
    assert err == f"{LEAD}node n9 is unknown: the cluster does not have it\n"
    assert cluster.who()[0] == f"Bearer {TOKEN}"
    code, out, err = await run("graph", "why", "n1", "secret", "ns/unused", *flags)
    assert (code, out) == (1, "")
    assert "no node reaches it" in err
    cluster.recorder.world.broken.add("/api/v1/nodes/n9")
    code, _, err = await run("graph", "reachable", "n9", *flags)
    assert code == 2
    assert "no object names node n9, and whether it exists cannot be seen: " in err
