"""Work, counted: no clock tells the same twice."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

_T = TypeVar("_T")


def steps(call: Callable[[], _T]) -> tuple[_T, int]:
    """Return what a call returns, and the bytecodes of this package's code that it took."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        if event == "call" and "noderestrict" not in frame.f_globals.get("__name__", ""):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        result = call()
    finally:
        sys.settrace(before)
    return result, count
