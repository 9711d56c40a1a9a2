"""docs/authorizer.md, as tests follow it."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "authorizer.md"


def commands(section: str, step: int | None = None) -> list[str]:
    """Return what a section of the page types, in its order.

    Args:
        section: its heading, without signs.
        step: the number of one of its steps; None for all of the section.
    """
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    if step is not None:
        text = text.partition(f"\n{step}. ")[2].partition(f"\n{step + 1}. ")[0]
    typed = [
        line.strip().removeprefix("# ")
        for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
    ]
    assert typed, f"docs/authorizer.md has no commands in {section}, step {step}"
    return typed


def variables(typed: list[str]) -> list[str]:
    """Return those of some commands that later ones in another shell need."""
    return [one for one in typed if re.match(r"export |[A-Z]+=", one)]
