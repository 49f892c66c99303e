"""JUnit has the verdict's numbers and a short message, under xdist too."""

from __future__ import annotations

from xml.etree import ElementTree

from known_samples import HEADS, changed, measured, read, spec

from forgetguard.gate.declaration import Limit
from forgetguard.gate.rule import judge
from pytest_forgetguard.items import verdict_properties


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
    assert "forgetguard.subject" not in properties  # a limit on the whole circuit
    assert properties["forgetguard.code"] == "beyond"
    [failure] = case.iter("failure")
    assert failure.get("message").startswith("FAIL: DCV 0.55 [0.5, 0.6]")
    assert "worst heads" in failure.text
    assert case.get("name") == "dcv.circuit"


def test_the_head_that_does_the_damage_and_fails_is_a_property() -> None:
    data = measured(heads={HEADS[0]: 0.5, HEADS[1]: 0.8})
    own = {HEADS[0]: read(data, "head_damage", HEADS[0])}
    found = judge(spec(), Limit("dcv.head", 0.25), changed(data, head_own_damage=own))
    properties = dict(verdict_properties(found))
    assert properties["forgetguard.outcome"] == "fail"
    assert properties["forgetguard.subject"] == str(HEADS[0])
    assert found.estimate is not None
    assert properties["forgetguard.value"] == str(found.estimate.value)
