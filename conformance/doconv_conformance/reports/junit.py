"""The report as JUnit XML, the form that continuous integration shows: one suite per port, one test per case and operation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from doconv_conformance.reports.build import agrees

# What XML 1.0 has no way to write.
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: Mapping[str, Any]) -> str:
    """JUnit XML. A mismatch or a contradicted claim is a failure, a crash or a timeout an error, "unsupported" is skipped."""
    root = ElementTree.Element("testsuites", name="doconv")
    names = dict.fromkeys(row["backend"] for row in report["results"])
    for name in names:
        rows = [row for row in report["results"] if row["backend"] == name]
        suite = ElementTree.SubElement(root, "testsuite", name=name)
        kinds = [_test(suite, row) for row in rows]
        for attribute, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(attribute, str(kinds.count(kind)))
        suite.set("tests", str(len(rows)))
        suite.set("time", f"{sum(row['seconds'] for row in rows):.3f}")
    for element in root.iter():
        for name, value in element.attrib.items():
            element.set(name, FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", value))
    ElementTree.indent(root)
    return ElementTree.tostring(root, "unicode", xml_declaration=True) + "\n"


def _test(suite: ElementTree.Element, row: Mapping[str, Any]) -> str:
    test = ElementTree.SubElement(
        suite, "testcase", classname=f"{row['backend']}.{row['stage']}", name=f"{row['operation']} {row['case']}",
        time=f"{row['seconds']:.3f}",
    )  # fmt: skip
    reason = FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", row["reason"] or row["contradicts"])
    if row["verdict"] == "unsupported" and agrees(row):
        ElementTree.SubElement(test, "skipped", message=reason)
        return "skipped"
    if not agrees(row):
        kind = "error" if row["verdict"] in ("crashed", "timeout") else "failure"
        ElementTree.SubElement(test, kind, type=row["verdict"], message=reason).text = reason
        return kind
    numbers = ", ".join(f"{name} {row[name]:.3g}" for name in ("bound_fraction", "r") if row[name] is not None)
    ElementTree.SubElement(test, "system-out").text = f"{row['verdict']}: {numbers}"
    return "passed"
