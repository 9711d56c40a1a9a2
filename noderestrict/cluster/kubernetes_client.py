"""The parts of kubernetes-asyncio that are used, without its generated models and APIs.

Its packages import all of these at once: over 800 modules, which nothing here uses, and which take
30 MB of memory and nearly 50 MB on disk. So the packages on the way are loaded without their code.
Where somebody has loaded the whole library already, its modules are used as they are.
"""

import importlib
import importlib.util
import sys
from types import ModuleType

_LIBRARY = "kubernetes_asyncio"
#: Folders of the library that nothing here needs, so that an image can go without.
UNUSED = ("client/api", "client/models", "dynamic", "leaderelection", "stream", "utils", "watch")
#: Packages whose own code would load everything.
_BARE = (_LIBRARY, f"{_LIBRARY}.client", f"{_LIBRARY}.client.models", f"{_LIBRARY}.config")

_USED = (
    f"{_LIBRARY}.client.configuration",
    f"{_LIBRARY}.client.api_client",
    f"{_LIBRARY}.client.exceptions",
    f"{_LIBRARY}.config.incluster_config",
)


def _load() -> list[ModuleType]:
    """Return the used modules, loaded without the code of the packages that they are in."""
    if _LIBRARY in sys.modules:
        return list(map(importlib.import_module, _USED))
    try:
        for name in _BARE:
            _add_bare(name)
        first, *rest = _USED
        configuration = importlib.import_module(first)
        # The others import it from the package.
        vars(sys.modules[f"{_LIBRARY}.client"])["Configuration"] = configuration.Configuration
        return [configuration, *map(importlib.import_module, rest)]
    finally:
        # Whoever imports the library later gets all of it.
        for name in _BARE:
            sys.modules.pop(name, None)


def _add_bare(name: str) -> None:
    """Make a package importable as the place of its modules, without running its code."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        # An image from which the models are deleted.
        module = ModuleType(name)
        module.__path__ = []
    else:
        module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)


_configuration, _api_client, _exceptions, incluster_config = _load()
Configuration = _configuration.Configuration
ApiClient = _api_client.ApiClient
ApiException = _exceptions.ApiException
