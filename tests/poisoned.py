"""Objects that the API server stores and a decoder chokes on."""

import json
from typing import Any

#: The deepest that an API server stores in ``metadata.managedFields[].fieldsV1``.
LEVELS = 9_995

_DEEP = '{"f:a":' * LEVELS + "{}" + "}" * LEVELS

#: What ``fieldsV1`` may be, as the API server writes it.
FIELDS = {
    "deep": _DEEP,
    "half a surrogate pair": r'{"f:\ud800":{"v:\"\udfff":{}}}',
    "no utf-8": '{"f:\udcff\udcfe":{}}',
    "large": "{" + ",".join(f'"f:{number}":{{}}' for number in range(90_000)) + "}",
    "large and deep": '{"f:x":' + _DEEP + ',"f:y":"' + "[" * 1_300_000 + '"}',
}


def poisoned(value: Any, fields: str = _DEEP) -> bytes:
    """Return the JSON of an object with managedFields."""
    entry = {"manager": "m", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": "@"}
    metadata = {**value["metadata"], "managedFields": [entry]}
    text = json.dumps({**value, "metadata": metadata}).replace('"@"', fields)
    return text.encode(errors="surrogateescape")
