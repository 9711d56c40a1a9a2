"""Follow the configuration file: the modes of rules change without a restart."""

import asyncio
from collections.abc import Callable

from noderestrict.policy.hostile import brief, is_failure
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
        read: returns the modes, beside the event loop; what it raises refuses the file.
        seconds: between looks.
    """
    problem = ""
    while True:
        await asyncio.sleep(seconds)
        try:
            modes = await asyncio.to_thread(read)
        except BaseException as error:
            if not is_failure(error):
                raise
            if brief(error) != problem:
                problem = brief(error)
                metrics.config_refused.inc()
                LOGGER.error(
                    "configuration not taken",
                    extra={"problem": problem, "in_effect": "the last good one"},
                )
            continue
        problem = ""
        if modes != app.state.modes:
            app.state.modes = modes
            metrics.config_loaded.inc()
            LOGGER.info(
                "rule modes", extra={"default": modes.default, "by_rule": dict(modes.by_rule)}
            )
