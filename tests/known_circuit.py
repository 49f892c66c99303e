"""A GPT-2 whose circuit is known because its weights are set by hand: ground truth for discovery.

It continues "Words a b c d b" with " c". One previous-token head (L0H2) writes which word stood
before each place, one induction head (L2H1) looks there for the current word and copies what it
finds to the output; with `mlp=True`, the MLP of layer 1 must first carry the one's message to where
the other reads. Everything else is as active, and writes where neither the circuit nor the
unembedding reads. Among it are two decoys that attend exactly as the circuit's heads do.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from jaxtyping import Float
from placement import DEVICE
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from forgetguard.anatomy.members import Head, Member, Mlp
from forgetguard.capabilities.capability import Capability
from forgetguard.capabilities.pairs import PromptPair

CIRCUIT: tuple[Head, ...] = (Head(0, 2), Head(2, 1))
CIRCUIT_WITH_MLP: tuple[Member, ...] = (Head(0, 2), Mlp(1), Head(2, 1))
DECOYS: tuple[Head, ...] = (Head(1, 0), Head(3, 3))  # previous token, induction

WORDS = tuple(
    "amber basket candle desert engine feather garden hammer island jacket kettle ladder "
    "magnet needle orchard pencil quarry ribbon saddle timber umbrella violin window yellow".split()
)
FRAME, END, UNKNOWN = "Words", "<end>", "<unk>"
LENGTHS = (8, 9, 10)  # words in the first copy

_PIECES = (END, UNKNOWN, FRAME, *(f" {word}" for word in WORDS))
_LAYERS, _HEADS, _HEAD_DIM, _POSITIONS, _NEURONS = 4, 4, 40, 16, 64
_WIDTH = _HEADS * _HEAD_DIM

# With this constant in every residual stream LayerNorm is nearly the identity: the rest adds about
# 40 to the squared norm of 1600, which moves the scale by 1 %.
_CONSTANT = 40.0
# Of the attention scores. High enough to answer, low enough that the softmax passes gradients: the
# place before gets 0.97 to 0.99, the answer's place 0.92 to 0.95.
_PREVIOUS_SHARPNESS = 6.0
_INDUCTION_SHARPNESS = 5.2
_LOGIT = 6.5  # of a word copied with attention 1
_DETECTION = 3.0  # input of the needed MLP's neurons: this for the word that is there, minus else


@dataclass(frozen=True, slots=True, eq=False)
class Spaces:
    """Orthonormal, mean-free codes of the residual stream, one in each column.

    token, previous, key, output: [d_model, token]: the word here; the word before, where L0H2
    writes it and where L1MLP carries it; the word to answer. position: [d_model, position].
    constant: [d_model, 1]. unread: [d_model, rest]: what neither circuit nor unembedding reads.
    """

    constant: Float[Tensor, "d_model 1"]
    position: Float[Tensor, "d_model position"]
    token: Float[Tensor, "d_model token"]
    previous: Float[Tensor, "d_model token"]
    key: Float[Tensor, "d_model token"]
    output: Float[Tensor, "d_model token"]
    unread: Float[Tensor, "d_model rest"]

    def read_at_random(self, columns: int) -> Float[Tensor, "d_model column"]:
        """Random readings of all but the constant, each of size 1 for a code of norm 1. What the
        model itself has written is read weakly: else activity would double from layer to layer."""
        embedded = torch.cat([self.position, self.token], dim=1)
        written = torch.cat([self.previous, self.key, self.output, self.unread], dim=1)
        read = torch.cat([embedded, 0.15 * written], dim=1)
        return read @ torch.randn(read.shape[1], columns)

    def write_unread(self, rows: int) -> Float[Tensor, "row d_model"]:
        """Random codes of norm about 1 where nothing reads."""
        rest = self.unread.shape[1]
        return torch.randn(rows, rest) @ self.unread.T / rest**0.5


@dataclass(frozen=True, slots=True, eq=False)
class _HeadWeights:
    """One head's maps from and to the residual stream."""

    query: Float[Tensor, "d_model head_dim"]
    key: Float[Tensor, "d_model head_dim"]
    value: Float[Tensor, "d_model head_dim"]
    output: Float[Tensor, "head_dim d_model"]


def build(*, mlp: bool = False) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """The model, in eval mode and float32, and its tokenizer. Every call gives the same weights.

    `mlp`: the induction head reads what L1MLP has written, so the circuit is CIRCUIT_WITH_MLP;
    otherwise it reads what L0H2 has written, and the circuit is CIRCUIT.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(_config())
        spaces = _spaces()
        with torch.no_grad():
            _set_embeddings(model, spaces)
            for layer, block in enumerate(model.transformer.h):
                heads = [
                    _head(Head(layer, index), spaces, spaces.key if mlp else spaces.previous)
                    for index in range(_HEADS)
                ]
                _set_attention(block.attn, heads)
                _set_unread_mlp(block.mlp, spaces)
                if mlp and Mlp(layer) in CIRCUIT_WITH_MLP:
                    _set_carrying_mlp(block.mlp, spaces)
    return model.to(DEVICE).eval().requires_grad_(False), tokenizer()


def _vocabulary() -> dict[str, int]:
    return {piece: index for index, piece in enumerate(_PIECES)}


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, the leading space a part of it; nothing is added to a text."""
    words = Tokenizer(models.WordLevel(dict(_vocabulary()), unk_token=UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?[A-Za-z]+"), behavior="isolated")
    words.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token=UNKNOWN,
        eos_token=END,
        pad_token=END,
        padding_side="right",
        clean_up_tokenization_spaces=False,
        model_max_length=_POSITIONS,
    )


def capability(count: int, seed: int) -> Capability:
    """`count` pairs of "Words w1 ... wn wi" -> " w(i+1)".

    In the counterfactual wi has changed places with another word wj of the first copy, so that wi
    is followed by w(j+1). Both heads of the circuit see that; had the answer changed places, the
    word before the answer's place would still be wi and the previous-token head would see nothing.
    """
    rng = random.Random(seed)
    return Capability("known_circuit", pairs=tuple(_pair(rng) for _ in range(count)))


def _pair(rng: random.Random) -> PromptPair:
    length = rng.choice(LENGTHS)
    words = rng.sample(WORDS, length)
    places = range(length - 1)  # each has a successor in the first copy
    # Neighbours would move the answer or the distractor themselves.
    asked, other = rng.choice([(i, j) for i in places for j in places if abs(i - j) > 1])
    swapped = words.copy()
    swapped[asked], swapped[other] = swapped[other], swapped[asked]
    return PromptPair(
        clean=" ".join([FRAME, *words, words[asked]]),
        counterfactual=" ".join([FRAME, *swapped, words[asked]]),
        answer=f" {words[asked + 1]}",
        distractor=f" {words[other + 1]}",
        template=f"length-{length}",
    )


# --- The weights ----------------------------------------------------------------------------------


def _config() -> GPT2Config:
    end = _vocabulary()[END]
    return GPT2Config(
        vocab_size=len(_PIECES),
        n_positions=_POSITIONS,
        n_embd=_WIDTH,
        n_layer=_LAYERS,
        n_head=_HEADS,
        n_inner=_NEURONS,
        tie_word_embeddings=False,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )


def _spaces() -> Spaces:
    # LayerNorm takes the all-ones direction out; columns orthogonal to it are mean-free.
    columns = torch.randn(_WIDTH, _WIDTH, dtype=torch.float64)
    columns[:, 0] = 1.0
    basis = torch.linalg.qr(columns).Q.float()
    tokens = len(_PIECES)
    sizes = [1, 1, _POSITIONS, tokens, tokens, tokens, tokens]
    _, *parts = basis.split([*sizes, _WIDTH - sum(sizes)], dim=1)
    return Spaces(*parts)


def _set_embeddings(model: GPT2LMHeadModel, spaces: Spaces) -> None:
    model.transformer.wte.weight.copy_(spaces.token.T)
    model.transformer.wpe.weight.copy_(spaces.position.T + _CONSTANT * spaces.constant.T)
    model.lm_head.weight.copy_(_LOGIT * spaces.output.T)
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.weight.fill_(_CONSTANT / _WIDTH**0.5)  # undoes the division by the deviation
            module.bias.zero_()


def _head(head: Head, spaces: Spaces, message: Float[Tensor, "d_model token"]) -> _HeadWeights:
    """`message`: where the induction heads look for the word before."""
    if head == CIRCUIT[0]:
        return _previous_token(spaces, _padded(spaces.previous).T)
    if head == CIRCUIT[1]:
        return _induction(spaces, message, _padded(spaces.output).T)
    if head == DECOYS[0]:
        return _previous_token(spaces, spaces.write_unread(_HEAD_DIM))
    if head == DECOYS[1]:
        return _induction(spaces, message, spaces.write_unread(_HEAD_DIM))
    return _HeadWeights(
        query=spaces.read_at_random(_HEAD_DIM),
        key=spaces.read_at_random(_HEAD_DIM),
        value=spaces.read_at_random(_HEAD_DIM),
        output=0.2 * spaces.write_unread(_HEAD_DIM),
    )


def _previous_token(spaces: Spaces, output: Float[Tensor, "head_dim d_model"]) -> _HeadWeights:
    """Attends from each position's code to the code of the position before."""
    one_later = spaces.position[:, 1:]  # column p is the code of position p + 1, which asks for p
    return _HeadWeights(
        query=_PREVIOUS_SHARPNESS * _HEAD_DIM**0.5 * _padded(one_later),
        key=_padded(spaces.position),
        value=_padded(spaces.token),
        output=output,
    )


def _induction(
    spaces: Spaces,
    message: Float[Tensor, "d_model token"],
    output: Float[Tensor, "head_dim d_model"],
) -> _HeadWeights:
    """Attends from each word to where the word before, as `message` says, was that word."""
    return _HeadWeights(
        query=_INDUCTION_SHARPNESS * _HEAD_DIM**0.5 * _padded(spaces.token),
        key=_padded(message),
        value=_padded(spaces.token),
        output=output,
    )


def _padded(codes: Float[Tensor, "d_model code"]) -> Float[Tensor, "d_model head_dim"]:
    return torch.nn.functional.pad(codes, (0, _HEAD_DIM - codes.shape[1]))


def _set_attention(attention: torch.nn.Module, heads: list[_HeadWeights]) -> None:
    groups = zip(*((head.query, head.key, head.value) for head in heads), strict=True)
    attention.c_attn.weight.copy_(torch.cat([part for group in groups for part in group], dim=1))
    attention.c_attn.bias.zero_()
    attention.c_proj.weight.copy_(torch.cat([head.output for head in heads]))
    attention.c_proj.bias.zero_()


def _set_unread_mlp(mlp: torch.nn.Module, spaces: Spaces) -> None:
    mlp.c_fc.weight.copy_(spaces.read_at_random(_NEURONS))
    mlp.c_fc.bias.normal_()
    mlp.c_proj.weight.copy_(0.15 * spaces.write_unread(_NEURONS))
    mlp.c_proj.bias.zero_()


def _set_carrying_mlp(mlp: torch.nn.Module, spaces: Spaces) -> None:
    """Neuron k finds word k where L0H2 writes and says so where the induction head reads."""
    tokens = len(_PIECES)
    mlp.c_fc.weight[:, :tokens] = 2 * _DETECTION * spaces.previous
    mlp.c_fc.bias[:tokens] = -_DETECTION
    mlp.c_proj.weight[:tokens] = spaces.key.T / _DETECTION
