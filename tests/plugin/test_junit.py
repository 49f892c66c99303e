"""JUnit has the verdict's numbers and a short message, under xdist too."""

from __future__ import annotations

from xml.etree import ElementTree


def test_the_numbers_are_properties_of_the_test_case(project, workers: int) -> None:
    project.circuit("bad.circuit.yaml")
    project.gate("--junitxml=junit.xml", workers=workers)
    [case] = ElementTree.parse(project.path / "junit.xml").getroot().iter("testcase")
    properties = {each.get("name"): each.get("value") for each in case.iter("property")}
    assert properties["forgetguard.outcome"] == "fail"
    assert properties["forgetguard.limit"] == "dcv.circuit"
    assert float(properties["forgetguard.bound"]) == 0.1
    assert float(properties["forgetguard.low"]) == 0.5
    assert properties["forgetguard.worst"] == "L2H2"
    assert properties["forgetguard.code"] == "beyond"
    [failure] = case.iter("failure")
    assert failure.get("message").startswith("FAIL: DCV 0.55 [0.5, 0.6]")
    assert "worst heads" in failure.text
    assert case.get("name") == "dcv.circuit"
