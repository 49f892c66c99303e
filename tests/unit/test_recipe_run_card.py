"""Run cards and the checkpoints along the way: what counts as whole, and what is said of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_copies import copy_of_base

from forgetguard.checkpoints.fingerprint import Fingerprint
from forgetguard.errors import CheckpointError
from forgetguard.recipes.data.question import Question
from forgetguard.recipes.training.run_card import (
    CARD,
    RunCard,
    final_fingerprint,
    hash_questions,
    read_card,
    summarise,
    verify_card,
    write_card,
)
from forgetguard.recipes.training.saved_states import (
    MARKER,
    mark,
    newest,
    remove_incomplete,
    saved_states,
    strip,
)

ONE = Question("a", " b", frozenset({"b"}), "text")


def _card(final: Fingerprint) -> RunCard:
    return RunCard(
        settings={"recipe": "sft"},
        data="0" * 64,
        base=Fingerprint("1", "2", "3"),
        final=final,
        versions={"python": "3.11"},
        steps=6,
        seconds=1.5,
        losses={"loss": {"first": 2.0, "last": 1.0, "lowest": 1.0, "highest": 2.0}},
        seed=0,
        notes={"rows": 4},
    )


def test_a_card_comes_back_as_it_was_written(tmp_path: Path) -> None:
    for card in (
        _card(Fingerprint("4", "5", "6")),
        replace(_card(Fingerprint("4", "5", "6")), start=Fingerprint("7", "8", "9")),
    ):
        write_card(tmp_path, card)
        assert read_card(tmp_path) == card


def test_a_card_vouches_for_the_weights_beside_it_alone(tmp_path: Path) -> None:
    folder = copy_of_base(tmp_path)
    write_card(folder, _card(final_fingerprint(folder)))
    assert verify_card(folder).steps == 6
    (tmp_path / "b").mkdir()
    other = copy_of_base(tmp_path / "b", lambda tensors: tensors["model.norm.weight"].add_(1e-3))
    write_card(other, read_card(folder))
    with pytest.raises(CheckpointError, match="its weights are not those of its run_card"):
        verify_card(other)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "other", "schema_version": 1}'])
def test_what_is_no_card_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / CARD).write_text(text)
    with pytest.raises(CheckpointError, match="is not a run card"):
        read_card(tmp_path)


def test_a_folder_without_a_card_is_no_finished_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no run_card\.json"):
        read_card(tmp_path)


def test_a_card_of_another_version_is_refused(tmp_path: Path) -> None:
    write_card(tmp_path, _card(Fingerprint("4", "5", "6")))
    read = json.loads((tmp_path / CARD).read_text())
    (tmp_path / CARD).write_text(json.dumps({**read, "schema_version": 2}))
    with pytest.raises(CheckpointError, match="version 2"):
        read_card(tmp_path)


@pytest.mark.parametrize(
    "other",
    [
        replace(ONE, prompt="c"),
        replace(ONE, answer=" c"),
        replace(ONE, valid=frozenset({"b", "c"})),
        replace(ONE, kind="choice", options=("b", "c")),
    ],
)
def test_the_hash_of_the_data_tells_questions_apart(other: Question) -> None:
    assert hash_questions([ONE]) != hash_questions([other])


def test_the_hash_of_the_data_goes_by_order_and_set_and_not_by_where_they_were_read() -> None:
    other = replace(ONE, prompt="c")
    assert hash_questions([ONE, other]) != hash_questions([other, ONE])
    assert hash_questions([ONE], [other]) != hash_questions([ONE, other])
    assert hash_questions([ONE]) == hash_questions([replace(ONE, where="f:1", group="g")])


def test_losses_are_summed_up_term_by_term() -> None:
    records = [
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": 1.0, "kl": 0.5},
        {"step": 3, "loss": 2},
    ]
    assert summarise(records) == {
        "loss": {"first": 3.0, "last": 2.0, "lowest": 1.0, "highest": 3.0},
        "kl": {"first": 0.5, "last": 0.5, "lowest": 0.5, "highest": 0.5},
    }


def _checkpoint(run: Path, step: int, *, whole: bool = True) -> Path:
    folder = run / f"checkpoint-{step}"
    folder.mkdir()
    for name in ("model.safetensors", "config.json", "optimizer.pt", "rng_state.pth"):
        (folder / name).write_text(name)
    if whole:
        mark(folder, step, seconds=step / 2)
    return folder


def test_the_newest_whole_checkpoint_is_found_by_its_number(tmp_path: Path) -> None:
    for step in (2, 10, 9):
        _checkpoint(tmp_path, step)
    _checkpoint(tmp_path, 12, whole=False)
    found = newest(tmp_path)
    assert found is not None
    assert (found.step, found.seconds, found.resumable) == (10, 5.0, True)


@pytest.mark.parametrize("damage", ["cut", "gone", "marker"])
def test_a_checkpoint_that_is_not_as_it_was_marked_does_not_count(
    damage: str, tmp_path: Path
) -> None:
    _checkpoint(tmp_path, 2)
    folder = _checkpoint(tmp_path, 4)
    if damage == "cut":
        (folder / "optimizer.pt").write_text("opt")
    elif damage == "gone":
        (folder / "rng_state.pth").unlink()
    else:
        (folder / MARKER).write_text('{"step": 4')
    assert [state.step for state in saved_states(tmp_path)] == [2]


def test_what_is_incomplete_is_removed_and_nothing_else(tmp_path: Path) -> None:
    _checkpoint(tmp_path, 2)
    _checkpoint(tmp_path, 4, whole=False)
    (tmp_path / "checkpoint-notes").mkdir()
    (tmp_path / "losses.jsonl").write_text("")
    remove_incomplete(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"checkpoint-2", "checkpoint-notes", "losses.jsonl"}


def test_older_checkpoints_keep_their_model_alone(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        _checkpoint(tmp_path, step)
    strip(tmp_path, keep=2)
    assert [state.resumable for state in saved_states(tmp_path)] == [False, True, True]
    left = {path.name for path in (tmp_path / "checkpoint-2").iterdir()}
    assert left == {"model.safetensors", "config.json", MARKER}
    strip(tmp_path, keep=0)
    assert newest(tmp_path) is None
    assert len(saved_states(tmp_path)) == 3


def test_thinning_out_that_was_cut_short_leaves_a_true_checkpoint(tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path, 2)
    mark(folder, 2, 1.0, resumable=False)  # the first half of it; optimizer.pt is still there
    assert [state.resumable for state in saved_states(tmp_path)] == [False]
    strip(tmp_path, keep=0)
    assert not (folder / "optimizer.pt").exists()


def test_the_files_of_the_model_leave_out_what_training_alone_needs(tmp_path: Path) -> None:
    _checkpoint(tmp_path, 2)
    (state,) = saved_states(tmp_path)
    assert [path.name for path in state.model_files()] == ["config.json", "model.safetensors"]
