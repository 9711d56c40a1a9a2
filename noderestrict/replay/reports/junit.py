"""JUnit XML for CI."""

from xml.etree import ElementTree as ET

from noderestrict.policy.text import printable
from noderestrict.replay.report import Options, Report, explanation, place, verdict
from noderestrict.replay.results import NotJudged, Result, Summary, Undecided


class JUnitReport(Report):
    """One test case per case.

    Those that are denied fail, unless the denial is expected, and so do those with another verdict
    than expected. What is undecided is skipped.
    """

    on_unencodable = "xmlcharrefreplace"

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._suite = ET.Element("testsuite", name="noderestrict replay")
        self._failures = self._skipped = 0

    def write(self, result: Result) -> None:
        """Keep one test case."""
        case = self._case(result)
        unwanted = not result.allowed and not result.already_refused
        if result.ok is False or (
            unwanted and (result.expect is None or self._options.fail_on_denied)
        ):
            self._failures += 1
            failure = ET.SubElement(case, "failure", message=verdict(result), type=result.rule)
            failure.text = printable(result.explanation)

    def leave(self, left: Undecided | NotJudged) -> None:
        """Keep what is undecided."""
        if isinstance(left, Undecided):
            self._skipped += 1
            ET.SubElement(self._case(left), "skipped", message=printable(explanation(left)))

    def _case(self, found: Result | Undecided) -> ET.Element:
        case = ET.SubElement(
            self._suite, "testcase", name=printable(found.id), classname=printable(found.what)
        )
        if found.file:
            case.set("file", printable(place(found)))
        return case

    def end(self, summary: Summary) -> None:
        """Write the document."""
        self._suite.set("tests", str(len(self._suite)))
        self._suite.set("failures", str(self._failures))
        self._suite.set("skipped", str(self._skipped))
        self._suite.set("errors", str(summary.unreadable))
        text = ET.tostring(self._suite, encoding="unicode")
        self._out.write(f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n')


REPORT = JUnitReport
