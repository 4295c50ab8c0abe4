"""A check as JUnit XML, which every service that runs pipelines shows: a test case a layer.

After the schema of Apache Ant's tasks, the strictest in use: children in its order, and every
attribute that it requires (https://github.com/windyroad/JUnit-Schema).
"""

import platform
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime

from wwopt.gate.checks import GateResult
from wwopt.gate.history import Drift
from wwopt.gate.thresholds import Thresholds

# What XML 1.0 cannot hold, however it is written (https://www.w3.org/TR/xml/#charsets).
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SUITE = "wwopt check"


def format_junit(
    result: GateResult,
    drifts: Sequence[Drift] = (),
    *,
    before: str = "",
    after: str = "",
    seconds: float = 0.0,
) -> str:
    """Write a check: a test case for each layer, which fails where the layer broke or drifted.

    Args:
        result: of the check.
        drifts: what of it is unlike the past.
        before: what the sides are called.
        after: the same of the other side.
        seconds: that the check took.
    """
    drifted: dict[str, list[str]] = {}
    for drift in drifts:
        drifted.setdefault(drift.layer, []).append(drift.words)
    cases = []
    for layer in result.layers:
        case = _case(layer.name)
        why = [finding.words for finding in layer.findings]
        unlike = drifted.get(layer.name, [])
        if why or unlike:
            kind = "broken" if why else "drift"
            said = layer.how or "; ".join(unlike)
            failure = ET.SubElement(case, "failure", message=_clean(said), type=kind)
            failure.text = _clean("\n".join([*why, *unlike]))
        cases.append(case)
    limits = {
        f"max-{f.name.replace('_', '-')}": getattr(result.thresholds, f.name)
        for f in fields(Thresholds)
    }
    kind = "" if result.change is None else result.change.kind.value
    facts = {"before": before, "after": after, "change": kind, **limits}
    return _write(cases, facts, seconds=seconds, failures=sum(len(case) for case in cases))


def format_junit_error(reason: str, *, before: str = "", after: str = "") -> str:
    """Write a check that could not be done: one test case with an error."""
    case = _case("check")
    error = ET.SubElement(case, "error", message=_clean(reason), type="not checked")
    error.text = _clean(reason)
    return _write([case], {"before": before, "after": after}, errors=1)


def _case(name: str) -> ET.Element:
    return ET.Element("testcase", name=_token(name), classname=_SUITE, time="0")


def _write(
    cases: Sequence[ET.Element],
    facts: Mapping[str, object],
    *,
    seconds: float = 0.0,
    failures: int = 0,
    errors: int = 0,
) -> str:
    suites = ET.Element("testsuites")
    suite = ET.SubElement(
        suites,
        "testsuite",
        name=_SUITE,
        package="wwopt",
        id="0",
        timestamp=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        hostname=_token(platform.node() or "localhost"),
        tests=str(len(cases)),
        failures=str(failures),
        errors=str(errors),
        time=f"{seconds:.3f}",
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in facts.items():
        ET.SubElement(properties, "property", name=name, value=_clean(str(value)))
    suite.extend(cases)
    for stream in ("system-out", "system-err"):
        ET.SubElement(suite, stream)
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _clean(text: str) -> str:
    return _FORBIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _token(text: str) -> str:
    """A name as XML's tokens are: no white space but single blanks, and never empty."""
    return " ".join(_clean(text).split()) or "-"
