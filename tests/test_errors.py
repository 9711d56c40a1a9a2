"""Every error of ours has one base."""

import importlib
import pkgutil

import noderestrict
from noderestrict.errors import NoderestrictError


def test_every_public_error_has_the_base() -> None:
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(noderestrict.__path__, "noderestrict.")
        if not found.name.endswith("__main__")
    ]
    ours = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Exception)
        and value.__module__.startswith("noderestrict.")
        and not value.__name__.startswith("_")
    }
    assert len(ours) > 10
    assert {error for error in ours if not issubclass(error, NoderestrictError)} == set()
