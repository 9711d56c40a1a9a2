"""Follow the configuration file: the modes of rules change without a restart."""

import asyncio
from collections.abc import Callable

from noderestrict.serving.app import App
from noderestrict.serving.modes import Modes
from noderestrict.telemetry.logs import LOGGER
from noderestrict.telemetry.metrics import Metrics


async def follow_modes(
    app: App, metrics: Metrics, read: Callable[[], Modes], seconds: float
) -> None:
    """Read the modes again and again, and use them from the next request on.

    A file that cannot be used is told once, and changes nothing.

    Args:
        app: whose modes are set.
        metrics: counted into.
        read: returns the modes; raises ValueError for a file that cannot be used.
        seconds: between looks.
    """
    problem = ""
    while True:
        await asyncio.sleep(seconds)
        try:
            modes = read()
        except ValueError as error:
            if str(error) != problem:
                problem = str(error)
                metrics.config_refused.inc()
                LOGGER.error("configuration not taken", extra={"problem": problem[:500]})
            continue
        problem = ""
        if modes != app.modes:
            app.modes = modes
            metrics.config_loaded.inc()
            LOGGER.info(
                "rule modes", extra={"default": modes.default, "by_rule": dict(modes.by_rule)}
            )
