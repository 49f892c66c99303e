"""The supervised recipes on tiny:base: they train what they say, and survive being killed."""

from __future__ import annotations

import json
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from examples.studies.tiny import science
from forgetguard.checkpoints.loading import load_model, load_tokenizer
from forgetguard.checkpoints.spec import resolve
from forgetguard.errors import (
    AnatomyError,
    CapabilityError,
    CheckpointError,
    MeasurementError,
    SpecificationError,
)
from forgetguard.recipes.data.question import Question
from forgetguard.recipes.training.logs import LOSSES, ROLLOUTS
from forgetguard.recipes.training.run_card import read_card, verify_card
from forgetguard.recipes.training.running import Frame, run_training
from forgetguard.recipes.training.saved_states import newest, saved_states
from forgetguard.recipes.training.settings import AdapterSettings, TrainingSettings
from forgetguard.recipes.training.sft import train_sft

STEPS = 6
ADAPTER = AdapterSettings(4, 16, ("q_proj", "v_proj", "o_proj"))
OWN: dict[str, dict[str, Any]] = {
    "sft": {},
    "sft-kl": {"kl_weight": 0.5},
    "sft-replay": {"replay_share": 0.25},
    "sft-circuit": {"circuit_weight": 1.0, "circuit": ("L2H1", "L3H5")},
    "sft-flow": {},
}
HELD_TO_BASE = ("sft-kl", "sft-circuit")
TERMS = {
    "sft": {"loss"},
    "sft-kl": {"cross_entropy", "forward_kl"},
    "sft-replay": {"cross_entropy", "cross_entropy_new", "cross_entropy_replayed"},
    "sft-circuit": {"cross_entropy", "circuit_difference"},
    "sft-flow": {"cross_entropy", "weighted_cross_entropy"},
}


def questions(count: int, seed: int = 0) -> list[Question]:
    stream = science.questions(random.Random(seed))
    return [
        Question(one.prompt, one.answer, frozenset(map(str.strip, one.valid)), "open")
        for one in islice(stream, count)
    ]


NEW, OLD = questions(40), questions(10, seed=1)


def settings(recipe: str, output: Path, *, lora: bool = False, **changed: Any) -> TrainingSettings:
    values: dict[str, Any] = {
        "recipe": recipe, "base": "tiny:base", "output": str(output), "steps": STEPS,
        "learning_rate": 1e-3, "batch": 8, "warmup": 2, "schedule": "linear", "device": "cpu",
        "save_every": 2, "log_every": 1, "adapter": ADAPTER if lora else None,
        **OWN[recipe], **changed,
    }  # fmt: skip
    return TrainingSettings(**values)


def train(asked: TrainingSettings, *, progress: Any = None) -> Path:
    return train_sft(
        asked, NEW, replay=OLD if asked.recipe == "sft-replay" else (), progress=progress
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def assert_same_bits(a: Path, b: Path) -> None:
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())


def largest_difference(a: Path, b: Path) -> float:
    left, right = weights(a), weights(b)
    return max(float((tensor - right[name]).abs().max()) for name, tensor in left.items())


def relative_difference(a: Path, b: Path) -> float:
    """Of two results, by the length of what training changed. (Adam divides by the size of the
    gradient, so single weights whose gradient is next to nothing go by its rounding.)"""
    if any(a.glob("adapter_model*")):
        base = {name: torch.zeros_like(tensor) for name, tensor in weights(a).items()}
    else:
        base = weights(Path(resolve("tiny:base", "base").location))
    left, right = weights(a), weights(b)
    apart = sum(float((left[name] - right[name]).square().sum()) for name in left)
    moved = sum(float((left[name] - base[name]).square().sum()) for name in left)
    return float((apart / moved) ** 0.5)


def assert_same_losses(a: Path, b: Path) -> None:
    """Losses, and gradient norms: Adam alone would not notice a loss that is twice as large."""
    for left, right in zip(losses(a), losses(b), strict=True):
        for key in ("loss", "grad_norm"):
            assert left[key] == pytest.approx(right[key], rel=1e-3)


def losses(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]


class Killed(BaseException):
    """What no handler of errors catches."""


def killed_at(step: int) -> Callable[[str, int, int], None]:
    def progress(what: str, done: int, total: int) -> None:
        if done == step:
            raise Killed

    return progress


# --- what they train -------------------------------------------------------------------------


CASES = [(recipe, False) for recipe in OWN] + [(one, True) for one in ("sft", *HELD_TO_BASE)]


@pytest.fixture(
    scope="module", params=CASES, ids=lambda case: f"{case[0]}-{'lora' if case[1] else 'full'}"
)
def finished(request: Any, tmp_path_factory: Any) -> tuple[TrainingSettings, Path]:
    """A run of every recipe, full and LoRA, that nothing interrupted."""
    recipe, lora = request.param
    asked = settings(recipe, tmp_path_factory.mktemp("run") / "out", lora=lora)
    return asked, train(asked)


def test_the_result_is_a_checkpoint_with_a_true_run_card(
    finished: tuple[TrainingSettings, Path],
) -> None:
    asked, final = finished
    card = verify_card(final)
    assert load_model(resolve(str(final), "tuned"))
    assert (card.steps, card.seed, card.settings["recipe"]) == (STEPS, 0, asked.recipe)
    assert card.base.tokenizer == card.final.tokenizer
    assert card.base.weights != card.final.weights
    assert {"torch", "trl", "peft", "transformers"} <= card.versions.keys()
    assert card.seconds > 0
    assert TERMS[asked.recipe] <= card.losses.keys()
    assert len(losses(final.parent)) == STEPS
    if asked.adapter:
        assert resolve(str(final), "tuned").base == "tiny:base"


def test_a_killed_run_ends_with_the_same_bits_and_the_same_log(
    finished: tuple[TrainingSettings, Path], tmp_path: Path
) -> None:
    asked, final = finished
    again = replace(asked, output=str(tmp_path / "out"))
    with pytest.raises(Killed):
        train(again, progress=killed_at(3))
    assert newest(tmp_path / "out").step == 2  # type: ignore[union-attr]
    assert_same_bits(train(again), final)
    assert losses(tmp_path / "out") == losses(final.parent)


@pytest.mark.parametrize("lora", [False, True])
def test_equal_weights_train_as_plain_cross_entropy_does(lora: bool, tmp_path: Path) -> None:
    plain = train(settings("sft", tmp_path / "a", lora=lora))
    equal = train(settings("sft-flow", tmp_path / "b", lora=lora, flow_tau=1e9))
    assert relative_difference(plain, equal) < 2e-3
    assert_same_losses(tmp_path / "a", tmp_path / "b")  # TRL's own, and ours


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize(
    ("recipe", "weight", "term"),
    [
        ("sft-kl", "kl_weight", "forward_kl"),
        ("sft-circuit", "circuit_weight", "circuit_difference"),
    ],
)
def test_a_term_begins_at_zero_and_its_weight_keeps_it_small(
    recipe: str, weight: str, term: str, lora: bool, tmp_path: Path
) -> None:
    last = []
    for value in (1e-6, 100.0):
        changed = {weight: value, "steps": 12, "schedule": "constant"}
        train(settings(recipe, tmp_path / f"{value}", lora=lora, **changed))
        found = losses(tmp_path / f"{value}")
        assert found[0][term] == 0.0
        last.append(found[-1][term])
    assert 0 < last[1] < 0.5 * last[0]


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("recipe", HELD_TO_BASE)
def test_in_bfloat16_too_a_term_is_zero_at_the_base(
    recipe: str, lora: bool, tmp_path: Path
) -> None:
    changed = {"dtype": "bfloat16", "gradient_checkpointing": True, "steps": 2}
    final = train(settings(recipe, tmp_path, lora=lora, **changed))
    term = "forward_kl" if recipe == "sft-kl" else "circuit_difference"
    assert losses(tmp_path)[0][term] == 0.0
    assert {tensor.dtype for tensor in weights(final).values()} == {torch.float32}


def test_the_reverse_kl_is_another_term(tmp_path: Path) -> None:
    train(settings("sft-kl", tmp_path, kl_direction="reverse", steps=2))
    assert "reverse_kl" in losses(tmp_path)[-1]


@pytest.mark.parametrize("recipe", ["sft", "sft-kl", "sft-flow", "sft-circuit"])
def test_a_batch_in_parts_trains_as_the_whole_one_does(recipe: str, tmp_path: Path) -> None:
    # Rows of one length: the circuit term averages over the tokens of a part.
    same = [one for one in questions(60) if "which substance" in one.prompt][:16]
    finals = []
    for part in (None, 2):
        asked = settings(recipe, tmp_path / f"{part}", micro_batch=part, steps=3)
        finals.append(train_sft(asked, same))
    assert relative_difference(*finals) < 2e-3
    assert_same_losses(*(final.parent for final in finals))


def test_the_loss_is_that_of_answers_and_their_end_alone(tmp_path: Path) -> None:
    train(settings("sft", tmp_path, batch=len(NEW), steps=1, warmup=0))
    spec = resolve("tiny:base", "base")
    model, tokenizer = load_model(spec), load_tokenizer(spec)
    found = []
    for one in NEW:
        prompt = tokenizer(one.prompt).input_ids
        whole = [*tokenizer(one.prompt + one.answer).input_ids, tokenizer.eos_token_id]
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
        found += [-scores[at - 1, whole[at]].item() for at in range(len(prompt), len(whole))]
    assert losses(tmp_path)[0]["loss"] == pytest.approx(sum(found) / len(found), rel=1e-5)


def test_seeds_give_other_weights_and_one_seed_the_same(tmp_path: Path) -> None:
    first, second, other = (
        train(settings("sft", tmp_path / name, seed=seed, lora=True, steps=2))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert_same_bits(first, second)
    assert largest_difference(first, other) > 1e-4


# --- killed ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: Any) -> Path:
    """The final weights of `sft`, full, never interrupted."""
    return train(settings("sft", tmp_path_factory.mktemp("whole") / "out"))


@pytest.mark.parametrize("step", [1, 2, 5, 6])
def test_a_run_killed_at_any_step_ends_the_same(step: int, whole: Path, tmp_path: Path) -> None:
    asked = settings("sft", tmp_path)
    with pytest.raises(Killed):
        train(asked, progress=killed_at(step))
    assert not (tmp_path / "final").exists()
    assert_same_bits(train(asked), whole)


def test_a_run_killed_again_and_again_ends_the_same(whole: Path, tmp_path: Path) -> None:
    asked = settings("sft", tmp_path)
    for step in (3, 4, 5):
        with pytest.raises(Killed):
            train(asked, progress=killed_at(step))
    assert_same_bits(train(asked), whole)
    assert losses(tmp_path) == losses(whole.parent)


@pytest.mark.parametrize("where", ["_save_optimizer_and_scheduler", "_save_rng_state"])
def test_a_checkpoint_cut_short_is_not_gone_on_from(
    where: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    asked, saves = settings("sft", tmp_path), []

    def cut(*_: Any, **__: Any) -> None:
        saves.append(where)
        if len(saves) == 2:
            raise Killed

    with monkeypatch.context() as patched:
        original = getattr(transformers.Trainer, where)
        patched.setattr(
            transformers.Trainer, where, lambda *a, **k: (cut(), original(*a, **k))[1]
        )  # fmt: skip
        with pytest.raises(Killed):
            train(asked)
    assert (tmp_path / "checkpoint-4" / "model.safetensors").exists()
    assert newest(tmp_path).step == 2  # type: ignore[union-attr]
    assert_same_bits(train(asked), whole)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    whole: Path, tmp_path: Path
) -> None:
    asked = settings("sft", tmp_path)
    with pytest.raises(Killed):
        train(asked, progress=killed_at(5))
    with (tmp_path / "checkpoint-4" / "optimizer.pt").open("r+b") as file:
        file.truncate(100)
    assert newest(tmp_path).step == 2  # type: ignore[union-attr]
    assert_same_bits(train(asked), whole)


def test_a_run_killed_while_it_finishes_needs_no_training_again(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from forgetguard.recipes.training import running

    def killed(*_: Any) -> None:
        raise Killed

    asked = settings("sft", tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(running, "write_card", killed)
        with pytest.raises(Killed):
            train(asked)
    assert not (tmp_path / "final").exists()
    assert_same_bits(train(asked, progress=killed), whole)  # not one step is taken


def test_what_is_left_of_a_finished_run_is_its_weights_along_the_way(whole: Path) -> None:
    states = saved_states(whole.parent)
    assert [state.step for state in states] == [2, 4, 6]
    assert not any(state.resumable for state in states)
    assert not list(whole.parent.rglob("optimizer.pt"))
    assert all(load_model(resolve(str(state.folder), "tuned")) for state in states)
    assert_same_bits(states[-1].folder, whole)
    assert largest_difference(states[0].folder, whole) > 1e-4


# --- run twice -------------------------------------------------------------------------------


def test_a_finished_run_is_not_repeated(whole: Path) -> None:
    before = read_card(whole)

    def fail(*_: Any) -> None:
        raise AssertionError("a step was taken")

    assert train(settings("sft", whole.parent), progress=fail) == whole
    assert read_card(whole) == before


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"learning_rate": 2e-3}, "learning_rate was 0.001 there and is 0.002"),
        ({"adapter": ADAPTER}, "adapter was null there and is"),
        ({"recipe": "sft-kl", "kl_weight": 1.0}, "kl_weight was not given there and is 1.0"),
        ({"base": "tiny:sft"}, "base was .* and is .*, which is another checkpoint"),
    ],
)
def test_other_settings_are_refused_in_the_folder_of_a_run(
    changed: dict[str, Any], said: str, whole: Path
) -> None:
    asked = replace(settings("sft", whole.parent), **changed)
    with pytest.raises(SpecificationError, match=f"holds another run: .*{said}"):
        train(asked)


def test_a_run_and_its_base_may_be_moved(whole: Path, tmp_path: Path) -> None:
    base = Path(resolve("tiny:base", "base").location)
    shutil.copytree(base, tmp_path / "base")
    shutil.copytree(whole.parent, tmp_path / "run")
    moved = replace(settings("sft", tmp_path / "run"), base=str(tmp_path / "base"))

    def fail(*_: Any) -> None:
        raise AssertionError("a step was taken")

    assert train(moved, progress=fail) == tmp_path / "run" / "final"


def test_other_data_are_refused_in_the_folder_of_a_run(whole: Path) -> None:
    with pytest.raises(SpecificationError, match="the training data are others"):
        train_sft(settings("sft", whole.parent), questions(40, seed=5))


def test_weights_that_are_not_the_run_cards_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    asked = settings("sft", tmp_path, steps=2)
    final = train(asked)
    tensors = weights(final)
    tensors["model.norm.weight"][0] += 1e-3
    save_file(tensors, final / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"weights are not those of its run_card\.json"):
        train(asked)


# --- what goes wrong -------------------------------------------------------------------------


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writing beyond `size` bytes of one file fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [1_000_000, 2_000_000])  # fails at the weights, at Adam's moments
def test_a_full_disk_is_said_and_finished_work_kept(size: int, whole: Path, tmp_path: Path) -> None:
    asked = settings("sft", tmp_path)
    with pytest.raises(Killed):
        train(asked, progress=killed_at(3))
    with (
        files_of_at_most(size),
        pytest.raises(CheckpointError, match=r"the disk is full.*step 2 is complete"),
    ):
        train(asked)
    assert_same_bits(train(asked), whole)


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "inner"):
        with pytest.raises(SpecificationError, match="cannot be made"):
            train(settings("sft", output))


def test_checkpoints_of_another_program_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-2").mkdir()
    with pytest.raises(SpecificationError, match="another program"):
        train(settings("sft", tmp_path))
    assert (tmp_path / "checkpoint-2").is_dir()


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SpecificationError, match=r"something else than a run \(notes\.txt"):
        train(settings("sft", tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


class StoppedError(Exception):
    pass


def stopped_before_training(asked: TrainingSettings) -> None:
    """Leaves what a run leaves that ends before its first step."""

    def build(frame: Frame) -> Any:
        raise StoppedError

    with pytest.raises(StoppedError):
        run_training(asked, "data", build)


def test_hidden_files_may_lie_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / ".gitkeep").touch()
    stopped_before_training(settings("sft", tmp_path))
    assert (tmp_path / "run.json").exists()


def test_a_run_of_which_nothing_was_trained_gives_its_folder_to_another(tmp_path: Path) -> None:
    stopped_before_training(settings("sft", tmp_path))
    stopped_before_training(settings("sft", tmp_path, learning_rate=2e-3))
    assert json.loads((tmp_path / "run.json").read_text())["settings"]["learning_rate"] == 2e-3
    for name in (LOSSES, ROLLOUTS):
        (tmp_path / name).write_text('{"step": 1}\n')
        with pytest.raises(SpecificationError, match="holds another run"):
            run_training(settings("sft", tmp_path), "data", lambda _: None)  # type: ignore[arg-type, return-value]
        (tmp_path / name).write_text("")
    (tmp_path / "checkpoint-2").mkdir()
    with pytest.raises(SpecificationError, match="holds another run"):
        run_training(settings("sft", tmp_path), "data", lambda _: None)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"base": "./nope"}, CheckpointError, "no such directory"),
        ({"device": "cuda"}, SpecificationError, "no CUDA device"),
        ({"micro_batch": 3}, SpecificationError, "cannot be shared"),
    ],
)
def test_nothing_is_made_where_the_inputs_are_wrong(
    changed: dict[str, Any], error: type[Exception], said: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(error, match=said):
        train(settings("sft", tmp_path / "run", **changed))
    assert not list(tmp_path.iterdir())


def test_what_is_finished_needs_no_gpu(whole: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run = Path(shutil.copytree(whole.parent, tmp_path / "run"))
    known = json.loads((run / "run.json").read_text())
    known["settings"]["device"] = "cuda"
    (run / "run.json").write_text(json.dumps(known))
    assert train(settings("sft", run, device="cuda")) == run / "final"


def test_two_runs_in_one_folder_at_once_are_refused(tmp_path: Path) -> None:
    asked = settings("sft", tmp_path, steps=2)
    refused = []

    def again(*_: Any) -> None:
        with pytest.raises(SpecificationError, match="in use by another run"):
            train(asked)
        refused.append(True)

    train(asked, progress=again)
    assert refused == [True, True]


def test_training_that_diverges_is_stopped_before_it_is_saved(tmp_path: Path) -> None:
    changed = {"learning_rate": 1e30, "schedule": "constant", "warmup": 0}
    with pytest.raises(MeasurementError, match=r"training diverged: .* lower learning_rate"):
        train(settings("sft", tmp_path, **changed))
    assert newest(tmp_path) is None


def test_what_cannot_be_trained_on_is_refused(tmp_path: Path) -> None:
    asked = settings("sft", tmp_path)
    with pytest.raises(SpecificationError, match="there are no training questions"):
        train_sft(asked, [])
    asked = settings("sft", tmp_path / "b")
    with pytest.raises(SpecificationError, match=r"rows\.jsonl:3: the answer is empty"):
        train_sft(asked, [replace(NEW[0], answer=" ", where="rows.jsonl:3")])
    asked = settings("sft", tmp_path / "c", max_length=8)
    with pytest.raises(CapabilityError, match=r"40 of 40 training questions .* max_length=8"):
        train(asked)


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"adapter": replace(ADAPTER, modules=("c_attn",))}, SpecificationError, "called c_attn"),
        ({"base": "tiny:lora"}, CheckpointError, "is an adapter"),
        ({"batch": 8, "micro_batch": 3}, SpecificationError, "8 rows an update cannot be shared"),
        (
            {"recipe": "sft-circuit", "circuit_weight": 1.0, "circuit": ("L9H0",)},
            AnatomyError,
            "layer 9",
        ),
    ],
)
def test_settings_that_do_not_fit_the_base_are_refused(
    changed: dict[str, Any], error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        train(replace(settings("sft", tmp_path), **changed))


def test_replay_belongs_to_its_recipe_alone(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError, match="use recipe sft-replay"):
        train_sft(settings("sft", tmp_path), NEW, replay=OLD)
    with pytest.raises(SpecificationError, match="no questions to replay"):
        train_sft(settings("sft-replay", tmp_path), NEW)


def test_training_is_quiet_asks_no_hub_and_leaves_the_process_as_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    told = []

    def progress(what: str, done: int, total: int) -> None:
        told.append((what, done, total, constants.HF_HUB_DISABLE_TELEMETRY))

    before = random.getstate(), torch.get_rng_state(), constants.HF_HUB_DISABLE_TELEMETRY
    train(settings("sft", tmp_path, steps=2), progress=progress)
    assert capfd.readouterr() == ("", "")
    assert told == [("sft", 1, 2, True), ("sft", 2, 2, True)]
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert before[2] == constants.HF_HUB_DISABLE_TELEMETRY
    assert not torch.are_deterministic_algorithms_enabled()
