"""The AdmissionConfiguration: what an API server gives its admission plugins."""

from collections.abc import Iterable, Mapping
from typing import Any

from noderestrict.render.load import Object

_GROUP = "apiserver.config.k8s.io/"
_VERSION = f"{_GROUP}v1"
_WEBHOOKS, _POLICIES = "ValidatingAdmissionWebhook", "ValidatingAdmissionPolicy"
_KINDS = {
    _WEBHOOKS: "WebhookAdmissionConfiguration",
    _POLICIES: "ValidatingAdmissionPolicyConfiguration",
}
#: The plugins that load objects from files.
PLUGINS = frozenset(_KINDS)


def admission_configuration(
    *,
    kubeconfig: str | None = None,
    webhooks: str | None = None,
    policies: str | None = None,
    given: Mapping[str, Any] | None = None,
) -> Object:
    """Return an AdmissionConfiguration.

    Args:
        kubeconfig: absolute path, on the API server's machine, of the ``client_kubeconfig``, which
            gives webhooks client credentials; None for what is given.
        webhooks: absolute path of the folder of static webhooks; None for what is given.
        policies: absolute path of the folder of static policies; None for what is given.
        given: the AdmissionConfiguration to add to; None for none.

    Raises:
        ValueError: what is given is unusable or says something else; the message says where.
    """
    written: Object = {
        "apiVersion": _VERSION,
        "kind": "AdmissionConfiguration",
        **(given or {}),
    }
    plugins = _plugins(written)
    fields = {"kubeConfigFile": kubeconfig, "staticManifestsDir": webhooks}
    _set(plugins, _WEBHOOKS, fields)
    _set(plugins, _POLICIES, {"staticManifestsDir": policies})
    return {**written, "plugins": list(plugins.values())}


def find_admission_configuration(documents: Iterable[Any]) -> Object:
    """Return the AdmissionConfiguration among documents.

    Args:
        documents: that YAML holds.

    Raises:
        ValueError: there is none, or a path in it depends on where its file is.
    """
    for one in documents:
        if not isinstance(one, dict) or one.get("kind") != "AdmissionConfiguration":
            continue
        if str(one.get("apiVersion")).startswith(_GROUP):
            for name, plugin in _plugins(one).items():
                path = str(plugin.get("path") or "/")
                if not path.startswith("/"):
                    raise ValueError(f"plugins[{name}].path {path}: give the absolute path")
            return one
    raise ValueError(f"there is no AdmissionConfiguration of {_GROUP}")


def _plugins(configuration: Mapping[str, Any]) -> dict[str, Object]:
    plugins = configuration.get("plugins") or []
    if not isinstance(plugins, list) or not all(isinstance(one, dict) for one in plugins):
        raise ValueError("plugins are no list of objects")
    return {str(one.get("name")): one for one in plugins}


def _set(plugins: dict[str, Object], name: str, fields: Mapping[str, str | None]) -> None:
    """Set fields of a plugin's configuration that are not None."""
    wanted = {field: value for field, value in fields.items() if value is not None}
    if not wanted:
        return
    plugin = plugins.get(name, {"name": name})
    if plugin.get("path"):
        raise ValueError(f"plugins[{name}].path: put what that file holds into configuration")
    configuration = plugin.get("configuration") or {}
    if not isinstance(configuration, dict):
        raise ValueError(f"plugins[{name}].configuration is no object")  # noqa: TRY004 (it is input)
    if configuration.get("kind", _KINDS[name]) != _KINDS[name]:
        raise ValueError(f"plugins[{name}].configuration.kind is not {_KINDS[name]}")
    for field, value in wanted.items():
        if configuration.get(field) not in (None, "", value):
            raise ValueError(
                f"plugins[{name}].configuration.{field} is {configuration[field]}, not {value}"
            )
    plugins[name] = {
        **plugin,
        "configuration": {"apiVersion": _VERSION, "kind": _KINDS[name], **configuration, **wanted},
    }
