"""JSON Schemas of Structs."""

from typing import Any

import msgspec


def json_schema(struct: type[msgspec.Struct], title: str, id_: str = "") -> dict[str, Any]:
    """Return the JSON Schema of a Struct.

    Args:
        struct: that writes or reads the JSON.
        title: of the schema.
        id_: of the schema, "" for none.
    """
    found = msgspec.json.schema(struct)
    for definition in found["$defs"].values():
        # Docstrings are about Python's names.
        definition.pop("description", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **({"$id": id_} if id_ else {}),
        "title": title,
        **found,
    }
