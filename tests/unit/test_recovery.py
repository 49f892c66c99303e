"""What rows and probes bring back: relearning by hand, a planted direction, and tiny:sft."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from plain_tiny import plain_model, plain_tokenizer

from examples.studies.recovery import (
    _parts,
    dealt_anew,
    directions,
    level,
    probe,
    relearn,
)
from forgetguard.anatomy.locate import locate
from forgetguard.errors import MeasurementError
from forgetguard.measures.divergence import Passage, passage, passages_of


def planted(signal: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Streams of one layer that hold what is wanted, through a random map, in noise."""
    draw = np.random.default_rng(seed)
    words = draw.normal(size=(8, 24))
    picked = draw.integers(8, size=(200, 2))
    picked[:, 1] = (picked[:, 0] + 1 + picked[:, 1] % 7) % 8
    wanted = words[picked[:, 0]] - words[picked[:, 1]]
    mixing = draw.normal(size=(24, 32)) / 5
    streams = signal * wanted @ mixing + draw.normal(size=(200, 32))
    return streams[None].astype(np.float32), wanted


def test_a_probe_reads_what_was_planted_more_the_more_there_is_and_chance_from_noise() -> None:
    train, test = range(100), range(100, 200)
    found = [probe(*planted(signal), train, test)[0] for signal in (0.0, 0.3, 3.0)]
    assert found[0] == pytest.approx(0.5, abs=0.12)
    assert found[0] < found[1] < found[2]
    assert found[2] == 1
    with pytest.raises(MeasurementError, match="tested on others"):
        probe(*planted(1.0), train, range(99, 120))


def test_a_probe_is_ridge_regression() -> None:
    streams, wanted = planted(0.3)
    x, y = streams[0, :100].astype(np.float64), wanted[:100]
    centre, offset = x.mean(axis=0), y.mean(axis=0)
    x, new = x - centre, streams[0, 100:] - centre
    strength = 0.1 * (x**2).sum(axis=1).mean()
    weights = np.linalg.inv(x.T @ x + strength * np.eye(32)) @ x.T @ (y - offset)
    right = ((new @ weights + offset) * wanted[100:]).sum(axis=1) > 0
    assert probe(streams, wanted, range(100), range(100, 200))[0] == right.mean()


def test_a_pass_is_one_step_of_adamw_on_the_mean_loss() -> None:
    rows = [passage([3, 5, 7], [9]), passage([4, 6], [8, 2])]
    ours, theirs = (copy.deepcopy(plain_model("base")) for _ in range(2))
    passes = relearn(locate(ours), rows, 1e-3)
    assert [next(passes), next(passes)] == [0, 1]
    optimiser = torch.optim.AdamW(theirs.parameters(), lr=1e-3, weight_decay=0.0)
    one = theirs(torch.tensor([[3, 5, 7]])).logits[0, 2].log_softmax(-1)[9]
    two = theirs(torch.tensor([[4, 6, 8]])).logits[0, [1, 2]].log_softmax(-1)[[0, 1], [8, 2]].mean()
    (-(one + two) / 2).backward()
    torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
    optimiser.step()
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(weight, theirs.get_parameter(name), rtol=1e-4, atol=1e-6)
        assert not weight.requires_grad
    with pytest.raises(MeasurementError, match="an answer each"):
        next(relearn(locate(ours), [Passage((1, 2), (1,))], 1e-3))


def test_answers_that_are_dealt_anew_are_none_of_their_own() -> None:
    rows = [passage([1, at], [at]) for at in range(10)]
    found = dealt_anew(rows)
    assert [one.ids for one in found] == [row.ids for row in rows]
    assert sorted(one.targets for one in found) == sorted(row.targets for row in rows)
    assert all(one.targets != row.targets for one, row in zip(found, rows, strict=True))


def test_ten_rows_bring_back_half_of_what_tiny_sft_lost_and_wrong_answers_nothing() -> None:
    rows, held, probed = _parts("induction", plain_tokenizer(), 0)
    clean = [pair.clean for part in (rows, held, probed) for pair in part.encoded.pairs]
    assert len(set(clean)) == len(clean) == 10 + 64 + 128
    before = level(locate(plain_model("sft")), held)
    whole = level(locate(plain_model("base")), held)
    found = {}
    for name, given in (("real", passages_of(rows)), ("dealt", dealt_anew(passages_of(rows)))):
        anatomy = locate(copy.deepcopy(plain_model("sft")))
        for done in relearn(anatomy, given, 1e-3):
            if done == 10:
                found[name] = level(anatomy, held)
                break
    back = {
        name: (one.readout - before.readout) / (whole.readout - before.readout)
        for name, one in found.items()
    }
    assert 0.3 < back["real"] < 0.6
    assert back["dealt"] < 0
    weight, pair = plain_model("base").lm_head.weight, probed.encoded.pairs[5]
    apart = (weight[pair.answer[0]] - weight[pair.distractor[0]]).tolist()
    assert directions(locate(plain_model("base")), probed)[5].tolist() == pytest.approx(apart)
