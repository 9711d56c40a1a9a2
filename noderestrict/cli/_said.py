"""What a command tells of its work: line by line for people, or at the end for programs."""

import json
from dataclasses import dataclass, field


@dataclass
class Said:
    """Collects what a command did and found.

    Args:
        as_json: print nothing until the end.
    """

    as_json: bool = False
    done: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def did(self, text: str) -> None:
        """Tell what was done."""
        self._say(self.done, text, text)

    def problem(self, text: str, lead: str = "") -> None:
        """Tell what is wrong.

        Args:
            text: says it.
            lead: stands before it for people.
        """
        self._say(self.problems, text, f"{lead}{text}")

    def warning(self, text: str) -> None:
        """Tell what is odd."""
        self._say(self.warnings, text, f"warning: {text}")

    def note(self, text: str) -> None:
        """Tell people what programs see from the rest."""
        if not self.as_json:
            print(text, flush=True)

    def _say(self, kept: list[str], text: str, line: str) -> None:
        kept.append(text)
        self.note(line)

    def end(self, action: str, code: int) -> None:
        """Print all of it, for programs.

        Args:
            action: of the command.
            code: exit code.
        """
        if self.as_json:
            value = {
                "action": action,
                "exitCode": code,
                "done": self.done,
                "problems": self.problems,
                "warnings": self.warnings,
            }
            print(json.dumps(value, indent=2))
