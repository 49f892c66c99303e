"""The study of verdicts on a pretrained model: which copies it declares, how it goes on where it
was stopped, and how its tables count. (The copies are gated by hand: docs/real.md.)"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from examples.studies.real_verdicts import page, study
from examples.studies.real_verdicts.changes import Change, Shape, head_plants

SMOLLM2 = Shape(layers=30, heads=9, groups=3, width=64)


def test_seventy_heads_parts_are_damaged_and_each_head_is_worth_a_quarter() -> None:
    specs = study.circuits()
    made = [
        one
        for name in study.PLANTED
        for one in head_plants(SMOLLM2, name, study.important(specs[name]))
    ]
    assert Counter(one.capability for one in made) == dict.fromkeys(study.PLANTED, 10)
    assert len({one.name for one in made}) == 70
    for one in made:
        found, head = specs[one.capability].found, one.head
        assert found is not None
        assert head is not None
        assert found["scores"]["L{}H{}".format(*head)] >= 0.25 * found["whole_effect"]


class _Now:
    """A pool that does the work at once, in this process."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> _Now:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, do: Callable[[str], object], name: str) -> Future[object]:
        future: Future[object] = Future()
        try:
            future.set_result(do(name))
        except InterruptedError as error:
            future.set_exception(error)
        return future


def test_a_run_that_was_stopped_goes_on_and_keeps_what_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {name: Change(name, "head", None) for name in ("a: one", "a: two", "b: one")}
    plan = study.Plan(tmp_path, {}, {}, {}, 36, changes)
    asked: list[str] = []

    def judge(name: str) -> dict[str, Any]:
        asked.append(name)
        if asked == ["a: one", "a: two"]:
            raise InterruptedError
        return {"limits": [{"outcome": "pass"}], "behaviour": {}, "number": len(asked)}

    known: list[dict[str, Any]] = []

    def of(_: Path, base: dict[str, Any], chosen: list[str]) -> study.Plan:
        assert chosen == ["b: one"]
        known.append(base)
        return plan

    monkeypatch.setattr(study.Plan, "of", of)
    monkeypatch.setattr(study, "ProcessPoolExecutor", _Now)
    monkeypatch.setattr(study, "as_completed", list)
    monkeypatch.setattr(study, "_judge", judge)
    out, told = tmp_path / "found.json", list[str]()
    before = {"number": 0, "behaviour": {"c": {"base": {"margin": 3.0}, "tuned": {}}}}
    out.write_text(json.dumps({"before": before}))
    (tmp_path / study.CHOICE).write_text(json.dumps({"chosen": ["b: one"]}))
    with pytest.raises(InterruptedError):
        study.run(tmp_path, out, told.append, ["a: "])
    assert list(json.loads(out.read_text())) == ["a: one", "before"]
    study.run(tmp_path, out, told.append, ["a: t", "b"])
    assert asked == ["a: one", "a: two", "a: two", "b: one"]
    assert told[-1] == "2 of 2, b: one: pass"
    assert known == [{"c": {"margin": 3.0}}] * 2  # the base is not measured again
    found = json.loads(out.read_text())
    assert list(found) == ["a: one", "a: two", "b: one", "before"]
    assert [one["number"] for one in found.values()] == [1, 3, 4, 0]
    assert [name for name, one in found.items() if "chosen" in one] == ["b: one"]


def test_plants_are_chosen_by_turns_among_those_that_cost_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = study.circuits()
    found = {
        name: [one for one in study.candidates(SMOLLM2, specs) if one.capability == name]
        for name in study.WHOLE
    }
    known = {
        one.name
        for name in study.WHOLE
        for one in head_plants(SMOLLM2, name, study.important(specs[name]))
    }
    assert not known & {one.name for each in found.values() for one in each}
    costs = {
        one.name: 0.24 if "zeroed" in one.name else 0.25 for each in found.values() for one in each
    }

    def damaged(_: object, one: Change, prompts: dict[str, Any]) -> dict[str, Any]:
        return {name: {"margin": 2 * (1 - costs[one.name])} for name in prompts}

    monkeypatch.setattr(study, "Shape", SimpleNamespace(of=lambda _: SMOLLM2))
    monkeypatch.setattr(study, "other_prompts", lambda *_: None)
    monkeypatch.setattr(study, "plainly_loaded", lambda _: None)
    monkeypatch.setattr(
        study, "behaviour", lambda _, prompts: {name: {"margin": 2.0} for name in prompts}
    )
    monkeypatch.setattr(study, "_with", damaged)
    (tmp_path / "config.json").write_text("{}")
    told: list[str] = []
    study.choose(tmp_path, tmp_path / "found.json", told.append)
    wrote = json.loads((tmp_path / study.CHOICE).read_text())
    chosen = wrote["chosen"]
    assert len({*chosen}) == len(chosen) == study.CHOSEN
    assert not any("zeroed" in name for name in chosen)
    each = Counter(name.partition(":")[0] for name in chosen)
    few = {name: sum("zeroed" not in one.name for one in found[name]) for name in study.WHOLE}
    most = max(each.values())
    assert all(each[name] in (few[name], most, most - 1) for name in study.WHOLE)
    assert len(told) == len(wrote["cost"])


def _copy(
    kind: str, margin: float, outcome: str, head: str = "", right: float = 1
) -> dict[str, Any]:
    """A copy that leaves `margin` of a margin of 1, with a verdict that names `head` first."""
    limit = {
        "circuit": "c", "limit": "dcv.circuit", "outcome": outcome,
        "value": [0.25, 0.2, 0.3], "subjects": [head] * bool(head),
    }  # fmt: skip
    behaviour = {"base": {"margin": 1, "right": 1}, "tuned": {"margin": margin, "right": right}}
    damaged = [1, 4] if kind == "head" else []
    return {"kind": kind, "head": damaged, "limits": [limit], "behaviour": {"c": behaviour}}


def test_the_summary_tells_large_losses_from_small_ones() -> None:
    found = {
        "large, found": _copy("head", 0.79, "fail", "L1H4"),
        "large, missed": _copy("head", 0.5, "pass", "L1H4"),
        "chosen": _copy("head", 0.5, "abstain", "L1H4") | {"chosen": True},
        "small": _copy("head", 0.81, "abstain", "L1H4"),
        "only its group": _copy("head", 0.81, "fail", "L1H3"),
        "none": _copy("harmless", 1.0, "pass"),
        "elsewhere": _copy("outside", 0.1, "fail"),
        "elsewhere, ten points": _copy("outside", 1.0, "abstain", right=0.9),
    }
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")][1:]
        for line in page.BLOCKS["summary"](found, SMOLLM2).splitlines()[2:]
    ]
    assert rows == [
        ["1", "0", "1", "0", "0 of 1"],
        ["4", "2", "1", "1", "1 of 4"],
        ["2", "1", "0", "1", "1 of 2"],
        ["2", "1", "1", "0", "0 of 2"],
        ["1", "0", "0", "1", ""],
        ["2", "1", "1", "0", ""],
        ["1", "0", "1", "0", ""],
    ]


def test_a_copys_row_holds_the_largest_estimate_of_each_limit() -> None:
    one = _copy("outside", 0.5, "fail")
    one["limits"].append(one["limits"][0] | {"circuit": "d", "value": [0.5, 0.4, 0.6]})
    one["limits"].append(one["limits"][0] | {"limit": "dcv.head", "value": None})
    assert [page.largest(one, limit) for limit in page.ESTIMATES] == [
        "-", "0.50 [0.40, 0.60]", "-",
    ]  # fmt: skip
