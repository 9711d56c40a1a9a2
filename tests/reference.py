"""The pages of docs/reference, made from the code: ``make docs``."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from noderestrict.cli import build_parser
from noderestrict.cli._config import PREFIX, plain
from noderestrict.telemetry.metrics import Metrics

FOLDER = Path(__file__).parent.parent / "docs" / "reference"


def flags() -> str:
    """Return the page of serve's flags."""
    parser = build_parser()[1]["serve"]
    rows = []
    for name, action in parser.flags().items():
        default = plain(name, action.default)
        shown = "" if default in (None, [], "", {}) else f"`{str(default).lower()}`"
        if isinstance(default, str):
            shown = f"`{default}`"
        values = f" ({', '.join(action.choices)})" if action.choices else ""
        variable = PREFIX + name.upper().replace("-", "_")
        text = (action.help or "").replace("|", "\\|")
        rows.append(f"| `--{name}` | `{variable}` | {shown} | {text}{values} |")
    return "\n".join(
        (
            "# Flags of `noderestrict serve`",
            "",
            "Every flag may also be set in the environment, or in the YAML file of `--config` with "
            "its name",
            "as key. A flag wins over the environment, which wins over the file. Unknown keys and",
            "variables are refused by name; the variables that Kubernetes sets for a Service named",
            "`noderestrict` are left alone. `--print-config` prints what is in effect as such a "
            "file.",
            "",
            "| Flag | Variable | Default | Meaning |",
            "|---|---|---|---|",
            *rows,
            "",
        )
    )


def described_metrics() -> Iterator[tuple[str, str, Sequence[str], str]]:
    """Yield name, type, labels and meaning of each of our metrics."""
    for collector in Metrics().registry._collector_to_names:
        for family in collector.collect():
            if family.name.startswith("noderestrict_"):
                total = "_total" if family.type == "counter" else ""
                labels = getattr(collector, "label_names", getattr(collector, "_labelnames", ()))
                yield family.name + total, family.type, labels, family.documentation


def metrics() -> str:
    """Return the page of metrics."""
    rows = [
        f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {meaning} |"
        for name, kind, labels, meaning in described_metrics()
    ]
    return "\n".join(
        (
            "# Metrics",
            "",
            "At `/metrics` of `--metrics-address`, in Prometheus' text format, beside those of the",
            "process (`process_*`, `python_info`). No label carries the name of a node, pod or "
            "user.",
            "",
            "| Metric | Type | Labels | Meaning |",
            "|---|---|---|---|",
            *rows,
            "",
        )
    )


PAGES = {"flags.md": flags, "metrics.md": metrics}

if __name__ == "__main__":
    for page, text in PAGES.items():
        (FOLDER / page).write_text(text())
