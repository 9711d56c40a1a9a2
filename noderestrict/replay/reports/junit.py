"""JUnit XML for CI."""

from xml.etree import ElementTree as ET

from noderestrict.policy.text import printable
from noderestrict.replay.report import Options, Report, verdict
from noderestrict.replay.results import Result, Summary


class JUnitReport(Report):
    """One test case per case; those with another verdict than expected are failures."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._suite = ET.Element("testsuite", name="noderestrict replay")
        self._failures = 0

    def write(self, result: Result) -> None:
        """Keep one test case."""
        case = ET.SubElement(
            self._suite, "testcase", name=printable(result.id), classname=printable(result.what)
        )
        if result.ok is False or (self._options.fail_on_denied and not result.allowed):
            self._failures += 1
            failure = ET.SubElement(case, "failure", message=verdict(result), type=result.rule)
            failure.text = printable(result.explanation)

    def end(self, summary: Summary) -> None:
        """Write the document."""
        self._suite.set("tests", str(summary.total))
        self._suite.set("failures", str(self._failures))
        self._suite.set("errors", str(summary.unreadable))
        text = ET.tostring(self._suite, encoding="unicode")
        self._out.write(f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n')


REPORT = JUnitReport
