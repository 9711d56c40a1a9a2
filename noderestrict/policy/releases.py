"""Releases of Kubernetes, and in which of them the plugin has a rule."""

import re
import sys

import msgspec

OLDEST_MINOR = 25
LATEST_MINOR = 37

_VERSION = re.compile(r"v?1\.(\d{1,4})(?:\.(\d{1,4}))?(?:[-+][0-9A-Za-z.+-]*)?", re.ASCII)
_NEWEST_PATCH = sys.maxsize


class Release(msgspec.Struct, frozen=True, order=True, cache_hash=True):
    """A release of Kubernetes 1.

    Attributes:
        minor: version.
        patch: version; the newest one if none is given.
    """

    minor: int
    patch: int = _NEWEST_PATCH

    def __str__(self) -> str:
        """Return ``1.NN`` or ``1.NN.P``."""
        patch = "" if self.patch == _NEWEST_PATCH else f".{self.patch}"
        return f"1.{self.minor}{patch}"


LATEST = Release(LATEST_MINOR)
#: Annotation of rendered policies: the release whose rules they hold.
RULES_ANNOTATION = "noderestrict.io/rules"


class Since(msgspec.Struct, frozen=True):
    """Since when the in-tree plugin or authorizer has something.

    Attributes:
        minor: the first minor version, as measured from 1.25 on: 25 means "1.25 or older".
        backports: the first patch releases of older minor versions that have it, too.
    """

    minor: int = OLDEST_MINOR
    backports: tuple[Release, ...] = ()

    def includes(self, release: Release) -> bool:
        """Return whether a release has it."""
        return release.minor >= self.minor or any(
            release.minor == first.minor and release.patch >= first.patch
            for first in self.backports
        )

    def __str__(self) -> str:
        """Return it as the documentation shows it, such as ``1.34, 1.33.4``."""
        first = "1.25 or older" if self.minor == OLDEST_MINOR else f"1.{self.minor}"
        return ", ".join((first, *map(str, self.backports)))


#: What every known release has.
ALWAYS = Since()


class Part(msgspec.Struct, frozen=True):
    """A part of a rule that is newer than the rule.

    Attributes:
        demands: what it requires of a request, for the tables in the documentation.
        since: which releases have it.
    """

    demands: str
    since: Since


def since(minor: int, *backports: tuple[int, int]) -> Since:
    """Return since when something is there.

    Args:
        minor: the first minor version.
        backports: minor and patch version of the first patch releases that have it, too.
    """
    return Since(minor, tuple(Release(*one) for one in backports))


def parse_release(text: str) -> Release:
    """Return the release of ``1.NN``, ``1.NN.P`` or what an API server calls itself.

    Raises:
        ValueError: the text is not a version of Kubernetes 1, or is older than 1.25.
    """
    found = _VERSION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a version; write it as 1.{LATEST_MINOR}")
    minor, patch = found.groups()
    if int(minor) < OLDEST_MINOR:
        raise ValueError(f"{text!r}: the oldest version known is 1.{OLDEST_MINOR}")
    return Release(int(minor)) if patch is None else Release(int(minor), int(patch))


def parse_rules(text: str) -> Release | None:
    """Return the release of ``1.NN`` or ``1.NN.P``, which must be known; None for ``latest``.

    Raises:
        ValueError: it is not, or it is no version.
    """
    if text == "latest":
        return None
    release = parse_release(text)
    if release.minor > LATEST_MINOR:
        raise ValueError(f"{text!r}: the newest rules known are those of 1.{LATEST_MINOR}")
    return release
