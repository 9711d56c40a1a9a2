"""Has an older version of the manifests left dangerous objects behind?"""

from collections.abc import AsyncIterator

from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.differences import differences
from noderestrict.doctor.findings import Finding, failed, passed
from noderestrict.doctor.installed import Installed, deleting, title
from noderestrict.render.load import documents


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield the objects that are left."""
    installed = Installed(cluster)
    found = [
        value
        for value in documents("old-manifests.yaml")
        if differences(await installed.find(value), None)
    ]
    if found:
        yield failed(
            f"{', '.join(map(title, found))} still exist{'s' if len(found) == 1 else ''}: a token "
            "that never expires may change the registration",
            'delete them; see "Upgrade" in docs/install.md',
            "\n".join(map(deleting, found)),
        )
    else:
        yield passed("none left")


CHECK = Check("old manifests", "Has an older version left dangerous objects behind?", check)
