"""Verdicts on the literature's claims, from made-up results where each is true, false or open."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from forgetguard.errors import SpecificationError
from forgetguard.recipes.reference import claims, collecting, figures, page, suite
from forgetguard.recipes.reference.intervals import over_seeds
from forgetguard.recipes.reference.plan import Plan, read_plan

PLAN = read_plan(
    "tiny",
    ["recipes=sft,rl,sft-replay,sft-rl", "tolerance=0.05", "compared=sft vs rl"],
    out=Path("out"),
)
TASKS = {"ioi": 10.0, "induction": 4.0}


def point(
    recipe: str,
    seed: int,
    step: int = 40,
    *,
    score: float = 0.9,
    kept: float = 0.9,
    dcv: float = 0.1,
    kl: float = 0.5,
    start: int | None = None,
    final: bool = True,
) -> dict:
    """A checkpoint; seeds differ a little, as they do."""
    kept, dcv, kl = kept + 0.002 * seed, dcv + 0.002 * seed, kl + 0.002 * seed
    place = "" if start is None else f"-from{start}"
    return {
        "run": f"{recipe}{place}-{seed}", "recipe": recipe, "learning_rate": 0.1, "seed": seed,
        "start": start, "after": None if start is None else f"sft-{seed}", "step": step,
        "final": final,
        "new": {"validation": score, "evaluation": score, "probability": score},
        "prior": {
            name: {"accuracy": kept, "readout": value * kept, "probability": kept * 0.9}
            for name, value in TASKS.items()
        },
        "kl": {
            "new": {"forward": kl, "reverse": kl / 2},
            "prior": {"forward": kl / 10, "reverse": kl / 20},
        },
        "dcv": {
            "ioi": {"value": dcv, "low": 0.0, "high": 1.0, "heads": {"L0H1": dcv, "L2H0": None}}
        },
        "drift": 0.02,
    }  # fmt: skip


BASE = {
    "new": {"validation": 0.2, "evaluation": 0.2, "probability": 0.2},
    "prior": {
        name: {"accuracy": 1.0, "readout": value, "probability": 0.9}
        for name, value in TASKS.items()
    },
}


def comparison(seed: int, sft: float, rl: float, abstained: str | None = None) -> dict:
    def column(corrected: float) -> dict:
        return {
            "able": True, "sizes": [4, 5], "faithfulness": 1.0, "transfer": 0.9,
            "retention": {
                "value": 0.7, "chance": 0.4, "corrected": corrected, "abstained": abstained
            },
        }  # fmt: skip

    return {
        "task": "ioi", "pair": ["sft", "rl"], "seed": seed,
        "ceiling": {"value": 0.9, "chance": 0.4, "corrected": 0.8},
        "columns": {"tuned": column(sft), "reference": column(rl)},
        "vulnerable": {"members": ["L0H1"], "delta": 0.5},
    }  # fmt: skip


def as_claimed() -> list[dict]:
    """A family in which the claims hold."""
    family = []
    for seed in (0, 1, 2):
        family += [
            point("sft", seed, 10, score=0.4, kept=0.95, dcv=0.05, kl=0.2, final=False),
            point("sft", seed, 20, score=0.6, kept=0.70, dcv=0.2, kl=0.6, final=False),
            point("sft", seed, 40, kept=0.60, dcv=0.3, kl=0.7),
            point("rl", seed, 40, kept=0.58 + 0.4, dcv=0.02, kl=0.75 + 0.3),
            point("sft-replay", seed, 40, kept=0.9, dcv=0.1, kl=0.3),
            point("sft-rl", seed, 40, kept=0.90, dcv=0.1, kl=0.4, start=10),
            point("sft-rl", seed, 40, kept=0.70, dcv=0.2, kl=0.5, start=40),
        ]
    return family


def results(records: list[dict], comparisons: list[dict] | None = None, plan: Plan = PLAN) -> dict:
    found = collecting.table(plan, BASE, records, comparisons or [])
    found["claims"] = claims.judge(found)
    return found


def verdicts(found: Mapping) -> dict[str, str]:
    return {one["key"]: one["verdict"] for one in found["claims"]}


HELD = [comparison(seed, 0.2 + 0.01 * seed, 0.6) for seed in (0, 1, 2)]


# --- verdicts ----------------------------------------------------------------------------------


def test_a_family_made_as_the_papers_say_reproduces_their_claims() -> None:
    found = verdicts(results(as_claimed(), HELD))
    for key in (
        "circuit-kept", "retention", "larger-kl", "peaks-early", "forgets-early", "rl-restores",
        "within-bounds", "mass-collapses", "replay-keeps-mass",
    ):  # fmt: skip
        assert found[key] == claims.REPRODUCED, key
    assert found["drift-by-overlap"] == claims.UNTESTED


def test_a_family_made_the_other_way_round_refutes_them() -> None:
    """SFT and RL change places, and SFT forgets late."""
    swapped = {"sft": "rl", "rl": "sft"}
    family = [
        {**one, "recipe": swapped[one["recipe"]], "run": f"{swapped[one['recipe']]}-{one['seed']}"}
        for one in as_claimed()
        if one["recipe"] in swapped and one["final"]
    ]
    for seed in (0, 1, 2):
        family.append(point("sft", seed, 20, score=0.5, kept=1.2, final=False))
    away = [comparison(seed, 0.6, 0.2 + 0.01 * seed) for seed in (0, 1, 2)]
    found = verdicts(results(family, away))
    for key in ("circuit-kept", "retention", "larger-kl", "mass-collapses", "forgets-early"):
        assert found[key] == claims.REFUTED, key


def test_seeds_that_disagree_leave_a_claim_undecided() -> None:
    family = as_claimed()
    for one in family:
        if one["recipe"] == "sft" and one["final"] and one["seed"] == 2:
            one["dcv"]["ioi"]["value"] = -0.5
    found = results(family)
    assert verdicts(found)["circuit-kept"] == claims.UNDECIDED
    (one,) = [claim for claim in found["claims"] if claim["key"] == "circuit-kept"]
    assert one["numbers"][0]["low"] < 0 < one["numbers"][0]["high"]


def test_one_seed_decides_nothing() -> None:
    """Of the claims that rest on seeds; checkpoints of many runs can speak without."""
    alone = replace(PLAN, seeds=(0,))
    found = verdicts(results([one for one in as_claimed() if one["seed"] == 0], plan=alone))
    assert found["circuit-kept"] == claims.UNDECIDED
    assert {key for key, one in found.items() if one == claims.REPRODUCED} <= {"kl-predicts"}


def test_what_was_not_measured_is_not_tested() -> None:
    found = verdicts(results([one for one in as_claimed() if one["recipe"] == "sft"]))
    for key in ("circuit-kept", "retention", "larger-kl", "rl-restores", "within-bounds"):
        assert found[key] == claims.UNTESTED, key


def test_a_part_that_is_refuted_refutes_the_whole() -> None:
    above, below = over_seeds([1.0, 1.1, 1.2]), over_seeds([-1.0, -1.1, -1.2])
    both = [claims.Part("a", above), claims.Part("b", below)]
    assert claims.verdict(both) == claims.REFUTED
    assert claims.verdict(both[:1]) == claims.REPRODUCED
    assert claims.verdict([]) == claims.UNTESTED


def test_retention_that_abstains_is_no_evidence() -> None:
    away = [comparison(seed, 0.2, 0.6, abstained="the base is unstable") for seed in (0, 1, 2)]
    assert verdicts(results(as_claimed(), away))["retention"] == claims.UNTESTED


def test_divergence_that_goes_with_loss_predicts_it_and_one_that_does_not_does_not() -> None:
    with_it, against_it = [], []
    for seed in (0, 1, 2):
        for step, lost in ((10, 0.05), (20, 0.2), (30, 0.3), (40, 0.4)):
            for recipe in ("sft", "rl"):
                one = {"score": 0.9, "kept": 1 - lost, "final": step == 40}
                with_it.append(point(recipe, seed, step, kl=lost, **one))
                against_it.append(point(recipe, seed, step, kl=1 - lost, **one))
    assert verdicts(results(with_it))["kl-predicts"] == claims.REPRODUCED
    assert verdicts(results(against_it))["kl-predicts"] == claims.REFUTED


def test_every_claim_names_its_paper_and_says_how_it_is_judged() -> None:
    for claim in claims.CLAIMS:
        assert "arXiv" in claim.paper
        assert claim.here
    assert len(claims.BY_KEY) == len(claims.CLAIMS)


# --- the page and the figures ------------------------------------------------------------------


@pytest.fixture(scope="module")
def found() -> dict:
    return results(as_claimed(), HELD)


def test_the_page_shows_every_verdict_seed_and_table(found: dict) -> None:
    text = page.bare(found)
    assert text.count("**reproduced**") == len(
        [one for one in found["claims"] if one["verdict"] == claims.REPRODUCED]
    )
    assert "| sft-rl from 10 | 2 | 0.1 | 40 |" in text
    assert "| ioi | 0 | sft | 4/5 | 0.700 | 0.400 | 0.200 |" in text
    assert page.fill(text, found) == text


def test_a_changed_number_changes_the_page_and_prose_stays(found: dict) -> None:
    text = page.bare(found).replace("## Claims", "## Claims\n\nPeople wrote this.")
    other = results(as_claimed()[:-2], HELD)
    filled = page.fill(text, other)
    assert filled != text
    assert "People wrote this." in filled


def test_a_recipe_that_misses_the_score_is_said_to(found: dict) -> None:
    family = [one for one in as_claimed() if one["recipe"] != "sft-replay"]
    low = [point("sft-replay", seed, score=0.3) for seed in (0, 1, 2)]
    assert "| sft-replay | 1 | does not reach it |" in page.bare(results([*family, *low]))


def test_a_page_without_a_place_for_the_numbers_is_refused(found: dict) -> None:
    with pytest.raises(SpecificationError, match="blocks are missing"):
        page.fill("# Nothing\n", found)
    with pytest.raises(SpecificationError, match="blocks are weather"):
        page.fill("<!-- reference: weather -->\n<!-- end -->", found)


def test_results_figures_and_page_are_written_together_and_the_same_again(
    found: dict, tmp_path: Path
) -> None:
    at = suite.write(found, tmp_path, figures=True, say=lambda _: None)
    files = sorted(one for one in (tmp_path / "reference").iterdir())
    before = {one.name: one.read_bytes() for one in (*files, at)}
    assert set(before) == {"reference.md", suite.RESULTS, *(f"{one}.svg" for one in page.FIGURES)}
    assert set(page.FIGURES) == set(figures.FIGURES)
    suite.write(found, tmp_path, figures=True, say=lambda _: None)
    assert {one.name: one.read_bytes() for one in (*files, at)} == before
    read = json.loads(before[suite.RESULTS])
    assert page.fill(at.read_text("utf-8"), read) == at.read_text("utf-8")


def test_nothing_matched_still_draws_and_tells(tmp_path: Path) -> None:
    family = [point("sft", seed) for seed in (0, 1)] + [point("rl", 0, score=0.3)]
    at = suite.write(results(family), tmp_path, figures=True, say=lambda _: None)
    assert "so nothing is matched" in at.read_text("utf-8")


def test_a_claim_about_sft_and_rl_is_judged_on_each_pair_that_is_compared() -> None:
    plan = read_plan(
        "tiny",
        [
            "recipes=sft,rl,sft-replay,sft-rl",
            "tolerance=0.05",
            "compared=[sft vs rl, sft vs sft-rl from 40, rl vs sft]",
            "target=0.9",
        ],
        out=Path("out"),
    )
    judged = [
        one
        for one in claims.judge(results(as_claimed(), plan=plan))
        if one["key"] == "circuit-kept"
    ]
    assert [one["pair"] for one in judged] == [
        ["sft", "rl"],
        ["sft", "sft-rl from 40"],
        ["rl", "sft"],
    ]
    first, second, third = (one["numbers"][0]["value"] for one in judged)
    assert (first, second, third) == pytest.approx((0.28, 0.1, -0.28))


def test_retention_is_read_from_the_pair_that_is_judged() -> None:
    other = {**comparison(0, 0.1, 0.9), "pair": ["sft", "sft-rl from 40"]}
    found = results(as_claimed(), [comparison(0, 0.5, 0.6), other])
    (judged,) = [one for one in claims.judge(found) if one["key"] == "retention"]
    assert judged["numbers"][0]["value"] == pytest.approx(0.1)
