"""Whether links of the documents to other sites lead somewhere."""

import re
import urllib.error
import urllib.request
from enum import Enum
from pathlib import Path

_LINK = re.compile(r"\]\((https?://[^)\s]+)\)")
_SECONDS = 20
#: What a site answers for a page that it does not have.
_GONE = (404, 410)


class Answer(Enum):
    """What a site says of a page."""

    THERE = "there"
    DEAD = "dead"
    #: It may be there for a browser.
    UNKNOWN = "unknown"
    #: Nobody answers, which may be due to this machine.
    UNREACHABLE = "unreachable"


def links(text: str) -> set[str]:
    """Return the links to other sites in a Markdown document."""
    return set(_LINK.findall(text))


def asked(url: str) -> Answer:
    """Ask for a page."""
    request = urllib.request.Request(url, headers={"User-Agent": "noderestrict-links"})
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS):
            return Answer.THERE
    except urllib.error.HTTPError as error:
        return Answer.DEAD if error.code in _GONE else Answer.UNKNOWN
    except OSError:
        return Answer.UNREACHABLE


def documents(root: Path) -> list[Path]:
    """Return the documents of a checkout."""
    return [*root.glob("*.md"), *root.glob("docs/**/*.md")]
