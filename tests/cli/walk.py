"""All commands of the command line, for tests that hold for each."""

import argparse
import re

from noderestrict.cli import build_parser
from noderestrict.cli._parser import Parser


def flags_of(parser: Parser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.option_strings]


def shown_flags(text: str) -> set[str]:
    """Return the flags that a help lists."""
    return set(re.findall(r"^  (?:-\w, )?(--[a-z0-9-]+)", text, re.MULTILINE))


LEAVES = {parser.words: parser for parser in build_parser()[0].leaves()}
