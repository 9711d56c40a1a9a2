from tests.release.changelog import ROOT, section

TEXT = """# Changelog

## Unreleased

- Next.

## 0.2.0 (2026-03-04)

### Admission

- Second.

## 0.1.0 (2026-01-02)

- First.
"""


def test_a_release_has_the_text_of_its_version_alone() -> None:
    assert section(TEXT, "0.2.0") == "### Admission\n\n- Second."
    assert section(TEXT, "0.1.0", unreleased=True) == "- First."


def test_only_a_dry_run_takes_what_is_not_released() -> None:
    assert section(TEXT, "0.3.0") == ""
    assert section(TEXT, "0.3.0", unreleased=True) == "- Next."


def test_the_changelog_has_text_for_the_next_release() -> None:
    assert section((ROOT / "CHANGELOG.md").read_text(), "9.9.9", unreleased=True)
