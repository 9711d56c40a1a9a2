"""What the largest objects cost: the longest that one review holds a processor."""

import gc
import time
from collections.abc import Callable
from functools import partial

import msgspec

from noderestrict import admission
from noderestrict.api.resources import RESOURCES
from noderestrict.policy.records import RECORDS
from noderestrict.policy.settings import Settings
from tests import largest
from tests.builders import LISTERS

REPEATS = 3


def milliseconds(call: Callable[[], object]) -> float:
    """Return the shortest of a few times."""
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def figures() -> dict[str, dict[str, float]]:
    """Measure each review: its envelope, its objects with all rules; and each pod's reduction."""
    thresholds = gc.get_threshold()
    # As the server does.
    gc.set_threshold(20_000, 50, 100)
    found = {}
    print(f"\n{'largest objects':<52}{'MB':>6}{'decode':>10}{'judge ms':>10}")
    for name, body, chosen in largest.reviews():
        settings = chosen or Settings.for_version()
        request = admission.decode(body)
        found[name] = {
            "decode": milliseconds(partial(admission.decode, body)),
            "judge": milliseconds(partial(admission.evaluate, request, settings, LISTERS)),
        }
        _print(name, len(body), found[name])
    print(f"\n{'largest pods':<52}{'MB':>6}{'decode':>10}{'reduce ms':>10}")
    struct, reduce = RESOURCES["pods"].struct, RECORDS["pods"]
    decoder = msgspec.json.Decoder(struct)
    for name, pod in largest.pods():
        raw = msgspec.json.encode(pod)
        found[f"pod, {name}"] = {
            "decode": milliseconds(partial(decoder.decode, raw)),
            "reduce": milliseconds(partial(reduce, decoder.decode(raw))),
        }
        _print(name, len(raw), found[f"pod, {name}"])
    gc.set_threshold(*thresholds)
    return found


def _print(name: str, size: int, measured: dict[str, float]) -> None:
    row = "".join(f"{value:>10.1f}" for value in measured.values())
    print(f"{name:<52}{size / 1e6:>6.1f}{row}")
