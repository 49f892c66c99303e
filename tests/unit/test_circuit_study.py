"""The circuit study: a small one runs end to end, and the page says what its data say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.studies.circuits import page, summary
from examples.studies.circuits.__main__ import lines, main
from examples.studies.circuits.study import VARIANTS, chosen
from forgetguard.discovery.methods import METHODS
from forgetguard.errors import SpecificationError

DOCS = Path(__file__).parents[2] / "docs"
SMALL = [
    "--tasks", "ioi", "--pairs", "24", "--seeds", "1", "--methods", "activation", "random"
]  # fmt: skip


@pytest.fixture(scope="module")
def published() -> dict:
    return json.loads((DOCS / "circuits" / "study.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORGETGUARD_CACHE", str(folder / "cache"))
        assert main([*SMALL, "--out", str(folder)]) == 0
        yield folder


def record(variant: str, order: list[int], size: int, seed: int = 0, **more: object) -> dict:
    """A result on four heads whose first `size` are the circuit."""
    scores = [1.0 - place / 4 for place in range(4)]
    given = {"variant": variant, "seed": seed, "exchanged": False, "order": order, "size": size}
    curve = {"sizes": [1, 2, 3, 4], "faithfulness": [0.2, 0.8, 0.9, 1.0], "cpr": 0.6, "cmd": 0.4}
    return {**given, **curve, "scores": scores, "seconds": 1.0, "seconds_curve": 2.0, **more}


def made_up(*records: dict) -> dict:
    variants = {one["variant"]: {"label": one["variant"], "method": "m"} for one in records}
    members = ["L0H0", "L0H1", "L1H0", "L1H1"]
    return {"members": members, "variants": variants, "tasks": {"t": {"records": [*records]}}}


def test_every_discovery_method_is_studied() -> None:
    assert {one.method for one in VARIANTS.values()} == set(METHODS)


def test_a_methods_name_stands_for_all_its_variants() -> None:
    assert chosen(["integrated", "activation_patching"]) == (
        "activation",
        "denoising",
        "integrated",
    )
    with pytest.raises(SpecificationError, match="'guessing'"):
        chosen(["guessing"])


def test_the_published_tables_are_what_the_published_data_give(published: dict) -> None:
    text = (DOCS / "circuits.md").read_text("utf-8")
    assert page.fill(text, published) == text
    missing = [name for name in page.BLOCKS if f"<!-- study: {name} -->" not in text]
    assert not missing


def test_a_changed_number_changes_the_page(published: dict) -> None:
    text = (DOCS / "circuits.md").read_text("utf-8")
    published = json.loads(json.dumps(published))
    published["tasks"]["ioi"]["whole"] += 1
    assert page.fill(text, published) != text


def test_the_published_study_covers_every_variant_and_shows_every_figure(published: dict) -> None:
    text = (DOCS / "circuits.md").read_text("utf-8")
    assert list(published["variants"]) == list(VARIANTS)
    for name in page.FIGURES:
        drawn = DOCS / "circuits" / f"{name}.svg"
        assert f"(circuits/{name}.svg)" in text
        assert drawn.stat().st_size < 150_000
        assert "<text" in drawn.read_text("utf-8")


def test_a_small_study_runs_end_to_end(small: Path) -> None:
    data = json.loads((small / "circuits" / "study.json").read_text("utf-8"))
    (exact,) = summary.records(data, "activation")
    assert summary.faithfulness_of(exact) >= data["faithful"] > exact["faithfulness"][0]
    others = summary.records(data, "random")
    assert exact["size"] < min(one["size"] for one in others)
    assert sorted(path.stem for path in (small / "circuits").glob("*.svg")) == sorted(page.FIGURES)
    assert "| activation patching |" in (small / "circuits.md").read_text("utf-8")


def test_a_second_run_takes_up_what_is_there(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (small / "circuits" / "study.json").read_text("utf-8")
    capsys.readouterr()
    assert main([*SMALL, "--out", str(small), "--no-plots"]) == 0
    assert "random order" not in capsys.readouterr().err
    assert (small / "circuits" / "study.json").read_text("utf-8") == before


def test_a_task_that_does_not_suit_the_base_is_named_and_left_out(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*SMALL, "--no-plots", "--out", str(tmp_path)]
    asked[2:2] = ["arithmetic"]
    assert main(asked) == 0
    assert "Left out: capability arithmetic" in (tmp_path / "circuits.md").read_text("utf-8")
    assert main(["--tasks", "arithmetic", "--no-plots", "--out", str(tmp_path)]) == 2
    assert "nothing to study on tiny:base: capability arithmetic" in capsys.readouterr().err


def test_a_page_without_a_place_for_the_numbers_is_refused(published: dict) -> None:
    with pytest.raises(SpecificationError, match="blocks are missing"):
        page.fill("# Circuits\n", published)
    with pytest.raises(SpecificationError, match="blocks are weather"):
        page.fill("<!-- study: weather -->\n<!-- end -->", published)


def test_overlap_and_time_are_taken_split_by_split() -> None:
    data = made_up(
        record("activation", [0, 1, 2, 3], 2),
        record("activation", [0, 2, 1, 3], 2, seed=1, seconds=2.0),
        record("slow", [1, 0, 3, 2], 2, seconds=5.0),
        record("slow", [3, 2, 0, 1], 2, seed=1, seconds=6.0),
    )
    ((one, other),) = summary.seed_pairs(data, "activation")
    assert summary.shared(data, one, other).jaccard == pytest.approx(1 / 3)
    assert summary.relative_time(data, "slow") == pytest.approx((5 / 1 + 6 / 2) / 2)
    jaccard = summary.agreement(data, lambda a, b: summary.shared(data, a, b).jaccard)
    assert jaccard[0, 1] == pytest.approx((1 + 1 / 3) / 2)
    assert jaccard[0, 0] == pytest.approx(1 / 3)
    assert summary.always_and_sometimes(data, "t") == ([0], [1, 2])


def test_scores_that_work_against_the_capability_rank_by_their_size() -> None:
    forward = record("activation", [0, 1, 2, 3], 2)
    data = made_up(forward, record("slow", [0, 1, 2, 3], 2))
    against = {**forward, "scores": [-score for score in forward["scores"]]}
    assert summary.correlated(data, forward, against) == pytest.approx(1.0)
    assert summary.correlated(data, forward, {**forward, "scores": [1.0] * 4}) is None


def test_a_record_has_its_own_line_in_the_data() -> None:
    data = made_up(record("activation", [0, 1, 2, 3], 2), record("slow", [0, 1, 2, 3], 2))
    assert json.loads(lines(data)) == data
    assert lines(data).count("\n") == 3
