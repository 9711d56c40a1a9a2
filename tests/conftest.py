"""What all tests share: the conformance figures at the end of a run."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

# ``make fuzz`` takes the long one: about a minute on two cores.
# A slow machine is not a failure.
settings.register_profile(
    "default", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fuzz", settings.get_profile("default"), max_examples=6_000)
settings.load_profile("default")

#: For each suite of cases its counts: (family, outcome) -> number.
FIGURES = pytest.StashKey[dict[str, Counter[tuple[str, str]]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = {}


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for suite, counts in sorted(config.stash[FIGURES].items()):
        terminalreporter.section(f"conformance: {suite}")
        terminalreporter.line(
            f"{'family':<16}{'cases':>7}{'allowed':>9}{'denied':>8}{'as expected':>13}"
        )
        for family in sorted({family for family, _ in counts}):
            terminalreporter.line(_row(counts, family, [family]))
        families = [family for family, _ in counts]
        terminalreporter.line(_row(counts, "all", sorted(set(families))))


def _row(counts: Counter[tuple[str, str]], title: str, families: list[str]) -> str:
    def total(what: str) -> int:
        return sum(counts[family, what] for family in families)

    allowed, denied = total("allowed"), total("denied")
    return (
        f"{title:<16}{allowed + denied:>7}{allowed:>9}{denied:>8}"
        f"{total('as expected'):>13}".rstrip()
    )
