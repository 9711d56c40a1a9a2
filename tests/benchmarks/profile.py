"""Where an API server spends CPU time, by its own profile (``/debug/pprof/profile``)."""

import gzip
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

REQUESTS, REST = "requests", "the rest"
#: What the time of a sample counts as: the first whose text is part of a function on its stack.
#: The watches come first: they run apart from requests, and most of what they call others call too.
PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("watch encoding", ("handlers.(*WatchServer)", "handlers.(*watchEncoder)")),
    ("CEL conversion", ("admission/plugin/cel.objectToResolveVal",
                        "admission/plugin/cel.convertObjectToUnstructured")),
    ("CEL evaluation", ("admission/plugin/cel.", "webhook/matchconditions.", "google/cel-go/")),
    ("webhook dispatch", ("plugin/webhook/validating.(*validatingDispatcher).callHook",
                          "plugin/webhook/validating.(*validatingDispatcher).Dispatch")),
    ("policies", ("apiserver/pkg/admission/plugin/policy/",)),
    ("authorization webhook", ("plugin/pkg/authorizer/webhook.",)),
    ("authorization", ("plugin/pkg/auth/authorizer/", "apiserver/pkg/authorization/")),
    ("admission", ("apiserver/pkg/admission.", "apiserver/pkg/admission/",
                   "plugin/pkg/admission/")),
    ("watch cache", ("cacher.(*Cacher).dispatchEvent", "cacher.(*Cacher).startCaching",
                     "cacher.(*cacheWatcher)", "cacher.(*watchCache).processEvent")),
    # Of both webhooks: their connections' own goroutines.
    ("calls of webhooks", ("net/http.(*persistConn)", "net/http.(*http2ClientConn)",
                           "net/http.(*http2clientConnReadLoop)")),
    ("garbage collection", ("runtime.gcBgMarkWorker", "runtime.bgsweep", "runtime.bgscavenge")),
    (REQUESTS, ("net/http.(*conn).serve", "net/http.(*http2serverConn)",
                  "filters.(*timeoutHandler)", "handlers/finisher.")),
    ("etcd client", ("google.golang.org/grpc", "etcd/client/v3")),
    ("scheduler", ("runtime.schedule", "runtime.mstart", "runtime.mcall")),
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """A stack, the called function first, and the seconds of CPU time that it took."""

    functions: tuple[str, ...]
    seconds: float


def parts(profile: bytes) -> dict[str, float]:
    """Return the seconds of CPU time of each part, and of the rest.

    Args:
        profile: as an API server sends it: gzip over protobuf (github.com/google/pprof).
    """
    found = dict.fromkeys([*(name for name, _ in PARTS), REST], 0.0)
    for sample in samples(profile):
        found[part_of(sample.functions)] += sample.seconds
    return found


def part_of(functions: tuple[str, ...]) -> str:
    """Return the part that a stack counts as."""
    for name, marks in PARTS:
        if any(mark in function for function in functions for mark in marks):
            return name
    return REST


def samples(profile: bytes) -> Iterator[Sample]:
    """Yield the samples of a CPU profile."""
    fields = list(_fields(gzip.decompress(profile)))
    strings = [bytes(value).decode() for number, value in fields if number == 6]
    names: dict[int, str] = {}
    for function in _messages(fields, 5):
        names[_int(function, 1)] = strings[_int(function, 2)]
    locations: dict[int, tuple[str, ...]] = {}
    for location in _messages(fields, 4):
        # The innermost of inlined functions first.
        lines = [dict(_fields(value)) for number, value in location if number == 4]  # type: ignore[arg-type]
        locations[_int(location, 1)] = tuple(names[int(line[1])] for line in lines)
    for sample in _messages(fields, 2):
        stack = [one for at in _ints(sample, 1) for one in locations[at]]
        # Number of samples, and nanoseconds.
        yield Sample(tuple(stack), _ints(sample, 2)[1] / 1e9)


_Field = tuple[int, int | bytes]


def _messages(fields: list[_Field], wanted: int) -> Iterator[list[_Field]]:
    for number, value in fields:
        if number == wanted and isinstance(value, bytes):
            yield list(_fields(value))


def _int(fields: list[_Field], wanted: int) -> int:
    return next((value for number, value in fields if number == wanted), 0)  # type: ignore[return-value]


def _ints(fields: list[_Field], wanted: int) -> list[int]:
    found: list[int] = []
    for number, value in fields:
        if number == wanted:
            found += [value] if isinstance(value, int) else _varints(value)
    return found


def _fields(data: bytes) -> Iterator[_Field]:
    """Yield number and value of each field of a protobuf message."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                value, at = _varint(data, at)
                yield key >> 3, value
            case 2:
                length, at = _varint(data, at)
                yield key >> 3, data[at : at + length]
                at += length
            case kind:
                raise ValueError(f"field {key >> 3} has wire type {kind}")


def _varints(data: bytes) -> list[int]:
    found, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        found.append(value)
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def table(found: Mapping[str, Mapping[str, float]], show: Callable[[str], None]) -> None:
    """Show the parts of several profiles, one column each; of two, also the difference.

    Args:
        found: microseconds of each part for one request, by what was profiled.
        show: called for each line.
    """
    columns = dict(found)
    if len(found) == 2:
        first, second = found.values()
        columns["difference"] = {part: second[part] - first[part] for part in first}
    show(f"  {'µs of the API server':<24}" + "".join(f"{name:>16}" for name in columns))
    for name in [*(part for part, _ in PARTS), REST]:
        if any(round(one[name]) for one in columns.values()):
            cells = "".join(f"{one[name]:>16.0f}" for one in columns.values())
            show(f"  {name:<24}{cells}")
    show(f"  {'sum':<24}" + "".join(f"{sum(one.values()):>16.0f}" for one in columns.values()))
    if len(found) == 2:
        share = explained(columns["difference"])
        show(f"  {share:.0%} of the difference is in parts that isolation causes")


def explained(difference: Mapping[str, float]) -> float:
    """Return which share of a difference is in parts that isolation causes, or what follows.

    Args:
        difference: microseconds by part.
    """
    return 1 - (difference[REQUESTS] + difference[REST]) / sum(difference.values())
