"""The statistics study: a small one runs end to end, and the page says what its data say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.studies.statistics import doses, families, page, scenarios, sequences, whole_runs
from examples.studies.statistics.__main__ import lines, main
from examples.studies.statistics.intervals import INTERVALS
from examples.studies.statistics.jobs import carry_out
from examples.studies.statistics.scenarios import RATIO, SCENARIOS
from examples.studies.statistics.settings import Settings
from examples.studies.statistics.tables import select
from examples.studies.statistics.tiny_family import read, shapes
from forgetguard.errors import SpecificationError
from forgetguard.gate import spending, studentised

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def published() -> dict:
    return json.loads((DOCS / "statistics" / "study.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORGETGUARD_CACHE", str(folder / "cache"))
        asked = ["--small", "--large", str(folder / "large.npz"), "--out", str(folder)]
        assert main(asked) == 0
        yield folder


def test_the_published_tables_are_what_the_published_data_give(published: dict) -> None:
    text = (DOCS / "statistics.md").read_text("utf-8")
    assert page.fill(text, published) == text
    readme = (DOCS.parent / "README.md").read_text("utf-8")
    assert page.fill(readme, published) == readme
    both = text + readme
    missing = [name for name in page.BLOCKS if f"<!-- statistics: {name} -->" not in both]
    assert not missing


def test_a_changed_number_changes_the_page(published: dict) -> None:
    text = (DOCS / "statistics.md").read_text("utf-8")
    published["tiny_gates"][0]["any"] += 1
    assert page.fill(text, published) != text
    published["tiny_gates"][0]["any"] -= 1


def test_the_published_study_has_the_default_size_and_shows_every_figure(published: dict) -> None:
    settings = Settings().times(published["settings"]["repeated"])
    assert published["settings"] == json.loads(lines(_plain(settings)))
    text = (DOCS / "statistics.md").read_text("utf-8")
    for name in page.FIGURES:
        drawn = DOCS / "statistics" / f"{name}.svg"
        assert f"(statistics/{name}.svg)" in text
        assert drawn.stat().st_size < 150_000
        assert "<text" in drawn.read_text("utf-8")


def _plain(settings: Settings) -> dict:
    return {name: getattr(settings, name) for name in Settings.__dataclass_fields__}


def test_what_the_issue_asked_for_holds_on_the_published_tiny_family(published: dict) -> None:
    for one in published["tiny_gates"]:
        if one["way"] != "alone":
            assert one["any"] <= 5.0
    for one in select(published["tiny_coverage"], resampled="pairs", what="circuit"):
        assert page.WIDTH[0] <= one["holds"] <= page.WIDTH[1]


def test_a_head_that_lost_70_percent_fails_and_intact_heads_pass(published: dict) -> None:
    for one in select(published["lost_heads"], whole=False):
        assert one["seen"] >= 90
        assert one["passed"] >= 90
        assert one["false"] <= 3  # of 100, nominal 0.33


def test_what_is_detectable_however_damage_is_spread_holds(published: dict) -> None:
    cells = [share for one in published["detectable"] for share in one["sparse"]]
    assert len(cells) > 50
    assert sum(share >= 72 for share in cells) >= 0.9 * len(cells)


def test_the_table_of_worst_cases_takes_the_largest_rate_of_its_cells(published: dict) -> None:
    text = page.fill("<!-- statistics: worst -->\n<!-- end -->", published)
    guarded = [
        one["passes"][0]
        for one in published["guards"]
        if one["data"] in ("tenth", "fifth", "twentieth")
    ]
    assert f"| wrong pass, few pairs carry all | **{max(guarded):.1f}** |" in text


@pytest.mark.slow
def test_a_small_study_runs_end_to_end(small: Path) -> None:
    data = json.loads((small / "statistics" / "study.json").read_text("utf-8"))
    assert len(data["coverage"]) == len(SCENARIOS) * len(INTERVALS)
    assert {one["data"] for one in data["tiny_gates"]} == {"tiny:sft"}
    assert {one["circuit"] for one in data["detectable"]} <= {"ioi"}
    drawn = sorted(path.stem for path in (small / "statistics").glob("*.svg"))
    assert drawn == sorted(page.FIGURES)
    assert "| normal |" in (small / "statistics.md").read_text("utf-8")


@pytest.mark.slow
def test_a_large_set_that_is_kept_is_not_measured_again(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (small / "statistics" / "study.json").read_text("utf-8")
    capsys.readouterr()
    asked = ["--small", "--large", str(small / "large.npz"), "--out", str(small), "--no-plots"]
    assert main(asked) == 0
    assert "pairs of ioi" not in capsys.readouterr().err
    assert (small / "statistics" / "study.json").read_text("utf-8") == before


@pytest.mark.slow
def test_a_kept_large_set_is_that_of_the_gate(small: Path) -> None:
    (one,) = read(small / "large.npz")
    assert (one.circuit, one.checkpoint) == ("ioi", "tiny:sft")
    (shape,) = shapes(small / "large.npz")
    assert shape["pairs"] == 48
    found = studentised.ratios(one.damage[:1], one.importance[:1]).estimates[0]
    assert shape["dcv"] == pytest.approx(found.value, abs=1e-4)


def test_a_page_without_a_place_for_the_numbers_is_refused(published: dict) -> None:
    with pytest.raises(SpecificationError, match="blocks are missing"):
        page.fill("# Statistics\n", published)


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_a_scenario_has_the_ratio_that_its_coverage_is_counted_against(name: str) -> None:
    damage, importance = SCENARIOS[name].draw(np.random.default_rng(0), 400, 500)
    assert damage.shape == importance.shape == (400, 500)
    ratio = damage.mean() / importance.mean()
    # At the floor the larger of two noisy denominators is taken, so the ratio reads a little less.
    assert ratio == pytest.approx(RATIO, rel=0.04 if name == "at_floor" else 0.02)


@pytest.mark.parametrize("kind", sorted(families.KINDS))
def test_every_imagined_head_stands_at_its_limit(kind: str) -> None:
    damage, importance = families.heads(kind, np.random.default_rng(0), 300, 500)
    ratios = damage.mean(axis=(0, 2)) / importance.mean(axis=(0, 2))
    assert ratios == pytest.approx([families.HEAD_LIMIT] * families.HEADS, rel=0.02)


def _squares(start: int) -> partial[Any]:
    """A job that no process has to import this module for."""
    return partial(json.loads, json.dumps([{"start": start, "square": start**2}]))


def test_how_many_processes_there_are_changes_no_record() -> None:
    sections = {"one": [_squares(3), _squares(4)], "two": [_squares(5)]}
    told: list[tuple[int, int]] = []
    alone, together = (
        carry_out(sections, workers, lambda *done: told.append(done)) for workers in (1, 2)
    )
    assert alone == together
    assert together["one"][1] == {"start": 4, "square": 16}
    assert told[:3] == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("edge", [True, False])
def test_a_whole_run_is_judged_by_the_gate_itself(edge: bool) -> None:
    (one,) = whole_runs._records("normal", 64, 5, edge, 2)
    assert set(one["fails"]) == set(whole_runs.LIMITS)
    if not edge:
        assert one["any"] == 0
        assert one["passes"]["dcv.circuit"] == 100


@pytest.mark.parametrize("kind", sorted(whole_runs.KINDS))
def test_in_a_whole_run_every_true_value_stands_at_its_limit(kind: str) -> None:
    rng = np.random.default_rng(3)
    scale = 3 * np.exp(0.4 * rng.standard_normal((4, 40_000)) - 0.08)
    damage = whole_runs._damage(kind, rng, scale, 0.1, rng.standard_normal(scale.shape))
    assert damage.sum(axis=1) / scale.sum(axis=1) == pytest.approx([0.1] * 4, rel=0.06)


def test_a_gate_that_is_far_within_its_limits_never_fails() -> None:
    def gate(rng: np.random.Generator, runs: int) -> list[families.Sample]:
        damage, importance = families.heads("normal", rng, runs, 32)
        nobody = np.zeros(runs, dtype=np.int64)
        limits = np.full(families.HEADS, 9.0)
        return [families.Sample(damage, importance, limits, nobody, nobody, 0.1)]

    assert families.false_alarms(gate, 25, 499, 0)["any"] == 0.0


def test_a_gate_beyond_its_limits_always_fails() -> None:
    def gate(rng: np.random.Generator, runs: int) -> list[families.Sample]:
        damage, importance = families.heads("normal", rng, runs, 64)
        all_lost = np.full(runs, 64)
        limits = np.full(families.HEADS, 0.01)
        return [families.Sample(damage, importance, limits, all_lost, 0 * all_lost, 0.1)]

    found = families.false_alarms(gate, 25, 499, 0)
    assert found["circuit"] == found["head"] == found["accuracy"] == 100.0


def test_the_power_dose_is_read_between_the_doses_that_were_tried() -> None:
    rows = [{"dose": dose, "fails": fails} for dose, fails in ((0.1, 5), (0.2, 70), (0.3, 90))]
    assert doses.dose_of(rows, "fails") == pytest.approx(0.25)
    assert doses.dose_of(rows[:2], "fails") is None
    falling = [{"dose": dose, "passes": 100 - 200 * dose} for dose in (0.0, 0.2, 0.4)]
    assert doses.dose_of(falling, "passes") == pytest.approx(0.1)


def test_a_sequence_ends_at_one_of_its_stages() -> None:
    passed, failed, used = sequences._decide("pocock", 0.0, 0, 20, 499)
    assert passed.all()
    assert not failed.any()
    assert set(used.tolist()) <= set(map(float, spending.stages(sequences.FIRST, sequences.MOST)))
    assert used.mean() < sequences.MOST / 2


def test_uneven_templates_are_nine_of_all_sizes() -> None:
    counts = np.bincount(scenarios._uneven(64))
    assert counts.tolist() == [1, 2, 4, 6, 8, 9, 10, 12, 12]
