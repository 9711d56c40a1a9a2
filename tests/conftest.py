"""What all tests share: the conformance figures at the end of a run."""

from collections import Counter
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

# ``make fuzz`` takes the long one: about a minute on two cores.
# A slow machine is not a failure.
settings.register_profile(
    "default", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fuzz", settings.get_profile("default"), max_examples=6_000)
settings.load_profile("default")

#: The property of a test that holds the counts of a suite: its name, (family, outcome) -> number.
FIGURES = "conformance figures"


def figures(suite: str, counts: Counter[tuple[str, str]]) -> tuple[str, object]:
    """Return what ``record_property`` takes to show the counts of a suite at the end."""
    return FIGURES, (suite, list(counts.items()))


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, object, object]:
    """Make what a worker sends of its reports such that it can be sent."""
    return encodable((yield))


def encodable(value: object) -> object:
    """Return a value of a report without the lone surrogates of hostile input."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {encodable(key): encodable(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(encodable, value))
    return value


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
    ]
    found = [
        value for report in reports for name, value in report.user_properties if name == FIGURES
    ]
    for suite, numbers in sorted(found):
        counts = Counter({(family, what): number for (family, what), number in numbers})
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
