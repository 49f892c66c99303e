"""`lm_eval.drop` and `lm_eval.flips` from YAML: lm-eval's own numbers, paired, and its errors."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import sys
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eval_tasks import lm_eval_alone, rows, write_tasks
from plain_tiny import plain_model, plain_tokenizer
from tiny_copies import copy_of_base

from forgetguard.anatomy.locate import locate
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.errors import ForgetguardError, MeasurementError
from forgetguard.gate.declaration import GateSpec
from forgetguard.gate.schema import load_gate_file
from forgetguard.gate.session import GateSession
from forgetguard.gate.verdict import Code, Outcome, Verdict
from forgetguard.measures import harness
from forgetguard.measures.documents import CHANCE, SCORE, EvalTasks
from forgetguard.measures.measure import Opened
from forgetguard.measures.samples import BASE, TUNED, Samples

pytestmark = pytest.mark.slow
LIMITS = "limits:\n  lm_eval.drop: {max: 0.05}\n  lm_eval.flips: {max: 0.10}\n"
CHOICE, NORM, SAY = "tiny_choice acc", "tiny_choice acc_norm", "tiny_say exact_match stripped"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("tasks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(where / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield write_tasks(where / "given", 48)


def spec_of(folder: Path, tasks: str, limits: str = LIMITS) -> GateSpec:
    file = folder / "a.gate.yaml"
    file.write_text(f"forgetguard: 2\nlm_eval: {{{tasks}}}\n{limits}", "utf-8")
    return load_gate_file(file)


def gated(
    spec: GateSpec, tuned: str | Path, base: str | Path = "tiny:base", *, cache: Path | None = None
) -> tuple[dict[str, Verdict], Samples]:
    where = {"base": str(base), "tuned": str(tuned)}
    with ModelPair({role: resolve(one, role) for role, one in where.items()}) as pair:
        session = GateSession(pair, [spec], keep=cache is not None, cache=cache)
        return {one.key: session.judge(spec, one) for one in spec.limits}, session.measurement(spec)


def error_of(spec: GateSpec, tuned: str | Path = "tiny:sft") -> str:
    """Of the limits on tasks; what else the file gates is judged all the same."""
    with ModelPair(
        {"base": resolve("tiny:base", "base"), "tuned": resolve(str(tuned), "tuned")}
    ) as pair:
        session = GateSession(pair, [spec])
        said = []
        for limit in spec.limits:
            if limit.key.startswith("lm_eval"):
                with pytest.raises(MeasurementError) as caught:
                    session.judge(spec, limit)
                said.append(str(caught.value))
            else:
                assert session.judge(spec, limit).outcome is Outcome.FAIL
    assert said
    assert "\n" not in said[0]
    return said[0]


WITH_WEIGHTS = "limits: {lm_eval.drop: {max: 0.05}, drift.weights: {max: 0.001}}\n"


@pytest.fixture(scope="module")
def both(folder: Path) -> tuple[dict[str, Verdict], Samples]:
    return gated(spec_of(folder, "tasks: [tiny_choice, tiny_say], include: ."), "tiny:sft")


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, dict[str, Any]]:
    """What lm-eval itself reads on base and sft."""
    with pytest.MonkeyPatch.context() as patch:
        return {
            name: lm_eval_alone(["tiny_choice", "tiny_say"], folder, name, patch)
            for name in ("base", "sft")
        }


def of_task(samples: Samples, subject: str, role: str) -> np.ndarray:
    """A subject's scores in the order of its documents."""
    name = subject.split(" ")[0]
    found = {
        int(unit.clean.split("#")[1].split(" ")[0]): value
        for unit, value in zip(samples.units, samples.need(SCORE, subject, role), strict=True)
        if unit.clean.startswith(f"{name} #")
    }
    return np.array([found[place] for place in sorted(found)])


@pytest.mark.parametrize(("name", "role"), [("base", BASE), ("sft", TUNED)])
def test_the_numbers_are_lm_evals_own_to_the_digit(
    both: tuple[dict[str, Verdict], Samples],
    alone: dict[str, dict[str, Any]],
    name: str,
    role: str,
) -> None:
    theirs = alone[name]
    for subject in (CHOICE, NORM, SAY):
        task, metric, *given = subject.split(" ")
        ours = of_task(both[1], subject, role)
        their_rows = sorted(theirs["samples"][task], key=lambda row: row["doc_id"])
        assert ours.tolist() == [float(row[metric]) for row in their_rows]
        assert ours.mean() == theirs["results"][task][f"{metric},{(given or ['none'])[0]}"]
    assert {0.0, 1.0} == set(of_task(both[1], SAY, TUNED))


def test_the_drop_is_paired_and_the_flips_are_less_what_guessing_would_flip(
    both: tuple[dict[str, Verdict], Samples],
) -> None:
    verdicts, samples = both
    drop, flips = (
        {one.subject: one.value for one in verdicts[f"lm_eval.{key}"].subjects}
        for key in ("drop", "flips")
    )
    for subject in (CHOICE, NORM, SAY):
        before, now = (of_task(samples, subject, role) for role in (BASE, TUNED))
        net, lost = (before - now).mean(), ((before == 1) & (now == 0)).mean()
        by_chance = 0.0 if subject == SAY else (1 - before).mean() / 2
        assert drop[subject].value == pytest.approx(net, abs=1e-12)
        held = lost if subject == SAY else max(net, lost - by_chance)
        assert flips[subject].value == pytest.approx(held, abs=1e-12)
        assert drop[subject].low < net < drop[subject].high
        assert drop[subject].n == 48
    assert samples.need(CHANCE, CHOICE, BASE).max() == 0.5


def test_equal_models_read_exactly_0(folder: Path, tmp_path: Path) -> None:
    spec = spec_of(
        folder,
        "tasks: [tiny_choice, tiny_say], include: .",
        "limits: {lm_eval.drop: {max: 0}, lm_eval.flips: {max: 0}}\n",
    )
    verdicts, samples = gated(spec, copy_of_base(tmp_path))
    for verdict in verdicts.values():
        assert not samples.need(verdict.limit, CHOICE, TUNED).any()
        found = {one.subject: one.value for one in verdict.subjects}
        assert all(one.value == 0 for one in found.values())
        # Equal log-likelihoods, bit for bit; equal texts are no proof that all would be.
        assert found[CHOICE].high == found[NORM].high == 0
        assert found[SAY].high == pytest.approx(1 - 0.05 ** (1 / 48))


def test_a_shared_cache_would_give_tuned_the_bases_numbers_and_none_is_used(
    folder: Path,
    both: tuple[dict[str, Verdict], Samples],
    alone: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answers(found: dict[str, Any]) -> list[float]:
        return [row["filtered_resps"][0][0] for row in found["samples"]["tiny_choice"]]

    assert answers(alone["sft"]) != answers(alone["base"])
    cache = str(tmp_path / "responses")
    one, other = (
        lm_eval_alone(["tiny_choice"], folder, name, monkeypatch, use_cache=cache)
        for name in ("base", "sft")
    )
    assert answers(one) == answers(other)  # the trap
    ours = [both[1].need("lm_eval.likelihood", CHOICE, role) for role in (BASE, TUNED)]
    assert not np.array_equal(*ours)


def test_what_the_base_answered_is_kept_for_that_base_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.models.huggingface import HFLM

    asked: list[tuple[str, int]] = []

    def counting(kind: str) -> Callable[..., Any]:
        ask = getattr(HFLM, kind)

        def counted(self: Any, requests: Any) -> Any:
            asked.append((kind, len(requests)))
            return ask(self, requests)

        return counted

    for kind in ("loglikelihood", "generate_until"):
        monkeypatch.setattr(HFLM, kind, counting(kind))
    spec = spec_of(folder, "tasks: [tiny_choice, tiny_say], include: ., limit: 24")
    cache = tmp_path / "cache"
    first = gated(spec, "tiny:sft", cache=cache)[1]
    both_models = sorted(2 * [("generate_until", 24), ("loglikelihood", 48)])
    assert sorted(asked) == both_models
    asked.clear()
    again = gated(spec, "tiny:sft", cache=cache)[1]
    assert len(asked) == 2  # tuned's
    assert first.arrays.keys() == again.arrays.keys()
    for key, values in first.arrays.items():
        assert np.array_equal(again.arrays[key], values)
    asked.clear()
    swapped = gated(spec, "tiny:base", "tiny:sft", cache=cache)[1]
    assert sorted(asked) == both_models
    for subject in (CHOICE, NORM, SAY):
        theirs = swapped.need(SCORE, subject, BASE)
        assert np.array_equal(theirs, first.need(SCORE, subject, TUNED))
    asked.clear()
    gated(spec_of(folder, "tasks: [tiny_choice], include: ., limit: 12"), "tiny:sft", cache=cache)
    assert len(asked) == 2  # other requests


def test_a_limit_that_allows_all_there_is_to_lose_is_not_judged(folder: Path) -> None:
    limits = "limits: {lm_eval.drop: {max: 0.50}, lm_eval.flips: {max: 0.49}}\n"
    verdicts, _ = gated(spec_of(folder, "tasks: [tiny_choice], include: .", limits), "tiny:sft")
    nothing, something = verdicts["lm_eval.drop"], verdicts["lm_eval.flips"]
    assert nothing.code is Code.NOTHING_TO_LOSE
    assert nothing.outcome is Outcome.ABSTAIN
    assert (nothing.facts["before"], nothing.facts["chance"]) == (1.0, 0.5)
    assert something.outcome is Outcome.PASS


def test_more_damage_of_one_kind_reads_more(folder: Path, tmp_path: Path) -> None:
    spec = spec_of(folder, "tasks: [tiny_choice], include: ., metrics: [acc]")
    found = []
    for size in (0.0, 0.5, 2.0):

        def damage(tensors: dict[str, torch.Tensor], size: float = size) -> None:
            draw = torch.Generator().manual_seed(0)
            for name in sorted(tensors):
                if "o_proj" in name:
                    noise = torch.randn(tensors[name].shape, generator=draw)
                    tensors[name] += size * tensors[name].std() * noise

        (tmp_path / str(size)).mkdir()
        verdicts, _ = gated(spec, copy_of_base(tmp_path / str(size), damage))
        found.append(verdicts["lm_eval.drop"].subjects[0].value.value)
    assert found[0] == 0
    assert found == sorted(found)
    assert found[-1] > 0.2
    assert verdicts["lm_eval.drop"].code is Code.BEYOND


def test_calibration_is_what_lm_evals_likelihoods_give_and_blind_to_what_accuracy_sees(
    folder: Path, alone: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    limits = "limits: {lm_eval.calibration: {max: 0.02}, lm_eval.drop: {max: 0.02}}\n"
    spec = spec_of(folder, "tasks: [tiny_choice], include: ., metrics: [acc]", limits)

    def error(name: str) -> float:
        """Ten bins of the documents, from the rows that lm-eval itself gives."""
        bins: dict[int, list[float]] = {}
        for row in alone[name]["samples"]["tiny_choice"]:
            nats = [float(one[0]) for one in row["filtered_resps"]]
            sure = max(float(torch.tensor(nats).double().softmax(0)[at]) for at in (0, 1))
            bins.setdefault(min(int(sure * 10), 9), []).append(sure - row["acc"])
        pairs = [
            (len(gaps), one * other)
            for gaps in bins.values()
            for one, other in permutations(gaps, 2)
        ]
        return sum(product / (count - 1) for count, product in pairs) / 48

    verdict = gated(spec, "tiny:sft")[0]["lm_eval.calibration"]
    (found,) = verdict.subjects
    assert found.subject == "tiny_choice calibration"
    assert found.value.value == pytest.approx(error("sft") - error("base"), abs=1e-6)

    read = []
    for scale in (1.0, 0.3, 0.03):  # of the final norm: likelihoods flatten, and keep their order

        def flatten(tensors: dict[str, torch.Tensor], scale: float = scale) -> None:
            tensors["model.norm.weight"] *= scale

        (tmp_path / str(scale)).mkdir()
        verdicts, _ = gated(spec, copy_of_base(tmp_path / str(scale), flatten))
        assert verdicts["lm_eval.drop"].subjects[0].value.value == pytest.approx(0, abs=0.03)
        read.append(verdicts["lm_eval.calibration"].subjects[0].value.value)
    assert read[0] == 0
    assert read == sorted(read)
    assert verdicts["lm_eval.calibration"].code is Code.BEYOND
    for key, said in (("lm_eval.drop", True), ("lm_eval.calibration", False)):
        assert any(one.code == "scores" for one in verdicts[key].notes) is said


def test_documents_are_drawn_by_seed_and_paired(folder: Path) -> None:
    drawn = []
    for seed in (0, 0, 1):
        spec = spec_of(folder, f"tasks: [tiny_choice], include: ., limit: 12, seed: {seed}")
        verdicts, samples = gated(spec, "tiny:sft")
        drawn.append({int(one.clean.split("#")[1].split(" ")[0]) for one in samples.units})
        assert verdicts["lm_eval.drop"].subjects[0].value.n == 12
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] != set(range(12))


def test_questions_of_ones_own_need_no_task_file(
    folder: Path, both: tuple[dict[str, Verdict], Samples]
) -> None:
    by_task = both[1]
    given = rows()[:48]
    (folder / "mine.jsonl").write_text("\n".join(map(json.dumps, given)), "utf-8")
    _, samples = gated(spec_of(folder, "questions: mine.jsonl"), "tiny:sft")
    assert of_task(samples, "mine acc", TUNED).tolist() == of_task(by_task, CHOICE, TUNED).tolist()
    plain = [{"question": one["question"], "answer": one["answer"]} for one in given]
    (folder / "plain.jsonl").write_text("\n".join(map(json.dumps, plain)), "utf-8")
    _, samples = gated(spec_of(folder, "questions: plain.jsonl"), "tiny:sft")
    assert of_task(samples, "plain acc", BASE).tolist() == of_task(by_task, SAY, BASE).tolist()


def test_random_states_are_as_they_were(folder: Path) -> None:
    spec = spec_of(folder, "tasks: [tiny_choice], include: ., limit: 8")
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    gated(spec, "tiny:sft")
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert after == states


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ("tasks: [tiny_choise], include: .", "'tiny_choice'"),
        ("tasks: [tiny_choice], include: ., chat_template: true", "no chat template"),
        ("tasks: [tiny_bleu], include: .", "is of all documents together"),
        ("tasks: [tiny_f1], include: ., metrics: [f1]", "gate acc of it"),
        ("tasks: [tiny_choice], include: ., metrics: [rouge]", "rouge"),
        ("tasks: [tiny_choice, tiny_say], include: ., metrics: [acc]", "nothing of tiny_say:"),
        ("tasks: [tiny_far], include: .", "include: FOLDER"),
    ],
)
def test_what_lm_eval_cannot_do_is_one_line_and_other_limits_are_judged(
    folder: Path, tasks: str, words: str
) -> None:
    assert words in error_of(spec_of(folder, tasks, WITH_WEIGHTS))


def test_without_lm_eval_the_line_says_how_to_install_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    spec = spec_of(folder, "tasks: [tiny_choice], include: .", WITH_WEIGHTS)
    assert "pip install 'forgetguard[lm-eval]'" in error_of(spec)


@pytest.mark.parametrize(
    ("name", "words"), [("arc_easy", "arc_easy.yaml"), ("arc_esay", "did you mean 'arc_easy'")]
)
def test_one_of_lm_evals_own_tasks_is_found_without_its_whole_index(
    name: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which takes 10 to 20 s, whether there is such a task or not."""
    from lm_eval.tasks._index import TaskIndex

    built = TaskIndex.build

    def few(paths: list[Path], **given: Any) -> dict[str, Any]:
        assert Path(sys.modules["lm_eval.tasks"].__path__[0]) not in paths
        return built(paths, **given)

    monkeypatch.setattr(TaskIndex, "build", staticmethod(few))
    try:
        said = str(harness._manager(EvalTasks((name,))).task_index[name].yaml_path)
    except MeasurementError as error:
        said = str(error)
    assert words in said


def test_what_needs_the_whole_index_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group, whose tasks may lie anywhere."""
    from lm_eval.tasks._index import TaskIndex

    asked_for: list[list[Path]] = []

    def none(paths: list[Path], **_: Any) -> dict[str, Any]:
        asked_for.append(paths)
        return {}

    monkeypatch.setattr(TaskIndex, "build", staticmethod(none))
    with pytest.raises(MeasurementError, match="knows no task 'mmlu'"):
        harness._manager(EvalTasks(("mmlu",)))
    assert asked_for[-1] == [Path(sys.modules["lm_eval.tasks"].__path__[0])]


@pytest.mark.parametrize("guarded", [True, False])
def test_weights_that_were_loaded_apart_are_not_tied_by_lm_eval(
    folder: Path, guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not guarded:  # what is guarded against
        monkeypatch.setattr(harness, "_not_tied", lambda _: contextlib.nullcontext())
    model = copy.deepcopy(plain_model("base"))
    assert model.config.tie_word_embeddings
    model.lm_head.weight = torch.nn.Parameter(2 * model.get_input_embeddings().weight.detach())
    before = copy.deepcopy(model.state_dict())
    tokenizers = {"base": plain_tokenizer()}
    given = harness.documents(EvalTasks(("tiny_choice",), folder, limit=2), tokenizers)
    harness.scores(Opened("base", locate(model), (), documents=given))
    changed = [
        name for name, one in model.state_dict().items() if not torch.equal(one, before[name])
    ]
    assert changed == ([] if guarded else ["lm_head.weight"])
    assert "tie_weights" not in vars(model)


def test_prompts_that_differ_between_the_models_are_no_pairs(folder: Path, tmp_path: Path) -> None:
    copies = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        copies.append(copy_of_base(tmp_path / name))
        template = "{{ messages[0].content }} " + name + " "
        file = copies[-1] / "tokenizer_config.json"
        config = json.loads(file.read_text("utf-8")) | {"chat_template": template}
        file.write_text(json.dumps(config), "utf-8")
    spec = spec_of(folder, "tasks: [tiny_choice], include: ., limit: 8, chat_template: true")
    with pytest.raises(ForgetguardError, match="on 8 of 8 documents"):
        gated(spec, copies[1], copies[0])
    verdicts, _ = gated(spec, copies[0], copies[0])
    assert {one.subject for one in verdicts["lm_eval.drop"].subjects} == {CHOICE, NORM}


def test_a_metric_of_all_documents_together_is_named_beside_the_others(folder: Path) -> None:
    verdicts, _ = gated(spec_of(folder, "tasks: [tiny_f1], include: ., limit: 8"), "tiny:sft")
    left = [
        one.facts["metrics"] for one in verdicts["lm_eval.drop"].notes if one.code == "left_out"
    ]
    assert left == [["tiny_f1 f1"]]


def test_a_task_with_too_few_documents_is_not_judged(folder: Path, tmp_path: Path) -> None:
    few = write_tasks(tmp_path / "few", 4)
    verdicts, _ = gated(spec_of(few, "tasks: [tiny_choice], include: ."), "tiny:sft")
    assert {one.code for one in verdicts.values()} == {Code.TOO_FEW}
