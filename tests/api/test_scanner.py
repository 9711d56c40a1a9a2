"""The scanner takes JSON apart as a decoder would, at any depth."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noderestrict.api import scanner
from noderestrict.api.scanner import ListSplitter, ScanError

MANAGED = (b"metadata", b"managedFields")
DEEP = b'{"f:a":' * 9_995 + b"{}" + b"}" * 9_995

text = st.text(st.sampled_from('ab"\\/{}[],: \n\u00e9\U0001f600'), max_size=5)
names = st.sampled_from(["items", "metadata", "managedFields", "name"]) | text
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=15,
)
spaces = st.sampled_from(["", " ", "\n\t\r "])


def wrap(value: Any, levels: int) -> Any:
    for level in range(levels):
        value = [value] if level % 2 else {"f": value, "g": "}"}
    return value


@st.composite
def written(draw: st.DrawFn, value: Any) -> bytes:
    """Write a value in any of the ways that JSON leaves open."""
    space = draw(spaces)
    dumped = json.dumps(
        value, ensure_ascii=draw(st.booleans()), separators=(f"{space},{space}", f"{space}:{space}")
    )
    return f"{space}{dumped}{space}".encode()


def split(data: bytes, size: int) -> tuple[list[bytes], bytes | None]:
    splitter = ListSplitter()
    items = []
    for start in range(0, len(data), size):
        splitter.add(data[start : start + size])
        items += splitter.split()
    return items + splitter.split(last=True), splitter.metadata


@given(st.data(), st.lists(values, max_size=4), values, st.integers(1, 20), st.booleans())
@settings(deadline=None, max_examples=300)
def test_a_list_is_split_wherever_its_pieces_end(
    data: st.DataObject, items: list[Any], metadata: Any, size: int, last: bool
) -> None:
    ends = {"kind": "PodList", "z": data.draw(values)}
    body = {"metadata": metadata, **ends} if last else ends
    whole = {**body, "items": items, **({} if last else {"metadata": metadata})}
    encoded = data.draw(written(whole))
    for found, own in (split(encoded, size), split(encoded, len(encoded))):
        assert [json.loads(item) for item in found] == items
        assert json.loads(own or b"") == metadata


@given(st.data(), values, values, values, st.integers(0, 12))
@settings(deadline=None, max_examples=300)
def test_cutting_leaves_all_else(
    data: st.DataObject, fields: Any, meta: Any, other: Any, levels: int
) -> None:
    metadata = {"name": meta, "managedFields": wrap(fields, levels), "z": other}
    value = {"a": other, "metadata": metadata, "managedFields": other}
    encoded = data.draw(written(value))
    for key in ("metadata", "managedFields"):
        if data.draw(st.booleans()):
            escaped = key.replace("a", "\\u0061")
            encoded = encoded.replace(f'"{key}"'.encode(), f'"{escaped}"'.encode())
    expected = json.loads(encoded)
    expected["metadata"]["managedFields"] = None
    assert json.loads(scanner.cut(encoded, [MANAGED])) == expected
    found = scanner.members(encoded, [b"a", b"metadata"])
    assert {key.decode(): json.loads(raw) for key, raw in found.items()} == {
        "a": json.loads(encoded)["a"],
        "metadata": json.loads(encoded)["metadata"],
    }


@given(st.data(), values, st.integers(0, 30))
@settings(deadline=None, max_examples=500)
def test_what_is_no_json_is_not_taken(data: st.DataObject, value: Any, levels: int) -> None:
    encoded = bytearray(data.draw(written(wrap(value, levels))))
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(encoded) - 1))
        encoded[at : at + data.draw(st.integers(0, 1))] = data.draw(
            st.sampled_from([b"", b"{", b"]", b"}", b",", b'"', b"\\", b"1", b":", b"\\u00"])
        )
    try:
        json.loads(encoded.decode(errors="replace"), parse_constant=lambda _: 1 / 0)
    except (ValueError, ZeroDivisionError):
        with pytest.raises(ScanError):
            scanner.check(bytes(encoded))
    else:
        scanner.check(bytes(encoded))


def test_the_deepest_that_the_api_server_stores_is_taken_and_checked() -> None:
    scanner.check(DEEP)
    for broken in (DEEP[:-1], DEEP + b"}", DEEP.replace(b"{}", b"{]"), DEEP.replace(b"{}", b"tru")):
        with pytest.raises(ScanError):
            scanner.check(broken)
    middle = DEEP.index(b":{", len(DEEP) // 4) + 2
    with pytest.raises(ScanError):
        scanner.check(DEEP[:middle] + b"," + DEEP[middle:])


def test_what_the_api_server_cannot_store_is_refused_before_it_costs_memory() -> None:
    for data in (b"[" * 10**6, b'{"a":' * 10**6):
        with pytest.raises(ScanError):
            scanner.check(data)
        with pytest.raises(ScanError):
            scanner.cut(b'{"x":' + data, [MANAGED])


def test_half_a_surrogate_pair_is_json() -> None:
    scanner.check(rb'{"\ud800":"\udfff\\ud800 \u00e9"}')
    for broken in (rb'"\ud80"', rb'"\ud80x"', rb'"\x"', rb'"\u"'):
        with pytest.raises(ScanError):
            scanner.check(broken)


def test_every_member_of_a_name_is_cut() -> None:
    data = (
        rb'{"metadata":{"managedFields":1,"a":2,"managed\u0046ields":[]},'
        rb'"metadata":{"managedFields":3}}'
    )
    assert scanner.cut(data, [MANAGED]) == (
        rb'{"metadata":{"managedFields":null,"a":2,"managed\u0046ields":null},'
        rb'"metadata":{"managedFields":null}}'
    )


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b'{"a":1', b'{"a":1}}', b'{"a":1}x', b'{"a" 1}', b'{"a":1,}',
     b"{,}", b"\xef\xbb\xbf{}", b'{"metadata":{"managedFields":[}]}}',
     b'{"metadata":{"managedFields":[}}', b'{"metadata":{"managedFields":"x}}'],
)  # fmt: skip
def test_an_object_that_is_none_is_not_cut(data: bytes) -> None:
    with pytest.raises(ScanError):
        scanner.cut(data, [MANAGED])


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b'{"items":[1', b'{"items":[1]', b'{"items":[1,]}', b'{"items":[1]}x',
     b'{"items":[],"items":[]}', b'{"items":5}', b'{"items":[1 2]}', b'{"items":[1],}',
     b'{"metadata":{]},"items":[]}', b'{"kind":tru,"items":[]}'],
)  # fmt: skip
def test_a_list_that_is_none_is_not_split(data: bytes) -> None:
    with pytest.raises(ScanError):
        split(data, len(data) or 1)


def test_a_list_without_items_has_none() -> None:
    for data in (b'{"items":null}', b'{"metadata":{}}', b"{}", b'{"items":[ ]}'):
        assert split(data, len(data))[0] == []


def test_an_item_without_end_is_given_up() -> None:
    splitter = ListSplitter(longest=2**23)
    splitter.add(b'{"items":["')
    while not splitter.add(b"x" * 2**16):
        pass
    assert splitter.split() == []
    # It is looked at again when there is twice as much.
    while not splitter.add(b"x" * 2**16):
        pass
    with pytest.raises(ScanError, match="longer than"):
        splitter.split()
