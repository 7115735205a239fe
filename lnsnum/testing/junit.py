"""A report of laws as JUnit XML, which CI systems read: a test case for each law and operation."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

from lnsnum.testing.report import LawReport


def junit_xml(report: LawReport) -> str:
    """The XML text.

    >>> from lnsnum import lns4f1
    >>> print(junit_xml(LawReport("arithmetic", lns4f1, (), (), 256, True)))
    <?xml version="1.0" encoding="utf-8"?>
    <testsuite name="lnsnum check lns4f1" tests="0" failures="0" errors="0" />
    """
    counts = {"tests": len(report.results), "failures": len(report.violations), "errors": 0}
    suite = ElementTree.Element(
        "testsuite", {"name": f"lnsnum check {report.subject}"} | {name: str(n) for name, n in counts.items()}
    )
    for result in report.results:
        place = {"classname": f"lnsnum.{report.subject}.{result.operation}", "name": result.law}
        case = ElementTree.SubElement(suite, "testcase", place)
        if result.violation is not None:
            ElementTree.SubElement(case, "failure", {"message": result.violation.line})
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode")


def write_junit(report: LawReport, path: str | os.PathLike[str]) -> None:
    """Write the report to a file."""
    Path(path).write_text(junit_xml(report) + "\n", encoding="utf-8")
