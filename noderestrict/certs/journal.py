"""What a command did and found: told line by line to people, and kept for programs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Journal:
    """Collects what a command did and found.

    Attributes:
        note: tells people a line, also of what programs see from the rest.
        done: what was done.
        problems: what is wrong.
        warnings: what is odd.
    """

    note: Callable[[str], None]
    done: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def did(self, text: str) -> None:
        """Tell what was done."""
        self.done.append(text)
        self.note(text)

    def problem(self, text: str, lead: str = "") -> None:
        """Tell what is wrong.

        Args:
            text: says it.
            lead: stands before it for people.
        """
        self.problems.append(text)
        self.note(f"{lead}{text}")

    def warning(self, text: str) -> None:
        """Tell what is odd."""
        self.warnings.append(text)
        self.note(f"warning: {text}")

    def value(self, action: str, code: int) -> dict[str, Any]:
        """Return all of it as JSON values.

        Args:
            action: of the command.
            code: its exit code.
        """
        return {
            "action": action,
            "exitCode": code,
            "done": self.done,
            "problems": self.problems,
            "warnings": self.warnings,
        }
