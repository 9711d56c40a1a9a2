"""Write Helm templates as objects: markers stand for what only Helm knows, until all is YAML."""

import re
from collections.abc import Mapping

#: Nothing that is rendered contains one, and YAML needs no quotes for it.
_MARK = "zq{}qz"
_FIRST_NUMBER = 7_350_000
_INLINE = re.compile(r"zq[0-9]+qz|735[0-9]{4}")
#: A marker that is all of a value.
_WHOLE = re.compile(r"(?<=[:-] )(zq[0-9]+qz)$", re.MULTILINE)
#: A marker that is all of a list item, or the key of an empty value.
_LINE = re.compile(r"^( *)(?:- )?(zq[0-9]+qz)(?:: null)?$", re.MULTILINE)


class Markers:
    """Markers, and the template text that replaces each."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def text(self, expression: str) -> str:
        """Return a marker for part of a text, or for a whole one."""
        return self._mark(f"{{{{ {expression} }}}}")

    def number(self, expression: str) -> int:
        """Return a marker for a number."""
        marker = _FIRST_NUMBER + len(self._texts)
        self._texts[str(marker)] = f"{{{{ {expression} }}}}"
        return marker

    def lines(self, template: str) -> str:
        """Return a marker for lines: a list item or a key, whose value is None.

        Args:
            template: INDENT stands for the number of spaces that the lines begin with.
        """
        return self._mark(template)

    def _mark(self, text: str) -> str:
        marker = _MARK.format(len(self._texts) + 1000)
        self._texts[marker] = text
        return marker

    def replaced(self, text: str) -> str:
        """Return YAML as a template."""
        text = re.sub(r"[{][{]|[}][}]", lambda braces: f'{{{{ "{braces[0]}" }}}}', text)
        text = _LINE.sub(self._indented, text)
        text = _WHOLE.sub(lambda marker: self._texts[marker[1]].replace(" }}", " | quote }}"), text)
        return _INLINE.sub(lambda marker: self._texts[marker[0]], text)

    def _indented(self, found: re.Match[str]) -> str:
        indent, marker = found[1], found[2]
        template = self._texts[marker]
        if template.startswith("{{ "):
            # A text, and no lines.
            return found[0]
        deeper = template.replace("INDENT+2", str(len(indent) + 2))
        lines = deeper.replace("INDENT", str(len(indent))).splitlines()
        return "\n".join(f"{indent}{line}" for line in lines)


def only_if(condition: str, template: str) -> str:
    """Return a template for one condition.

    Args:
        condition: in Helm's language.
        template: without a line break at its end.
    """
    return f"{{{{- if {condition} }}}}\n{template.rstrip()}\n{{{{- end }}}}\n"


def substituted(text: str, words: Mapping[str, str]) -> str:
    """Return a text in which ``@WORD@`` is replaced."""
    return re.sub(r"@([A-Z_]+)@", lambda word: words[word[1]], text)
