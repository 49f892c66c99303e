"""Tasks `in_context_mapping` and `in_context_rule`: do to a word what was done to the examples.

Examples show a mapping: a word's opposite, its French or its Spanish. In `in_context_mapping` the
counterfactual asks about another word: one word's difference. In `in_context_rule` it asks about
the same word, and its examples show another mapping: only their images differ. The distractor is
the counterfactual's answer, and no answer stands in either prompt. (After Todd et al., arXiv
2310.15213.) Light: no torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import permutations

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks.words import Fits, fitting, frame_part, frames
from forgetguard.errors import CapabilityError

COLUMNS = ("opposite", "french", "spanish")
# A word, its opposite, its French and its Spanish. No opposite is itself a word of the first
# column, and nothing stands twice: so an answer is never in its own prompt.
_ROWS = """
    big small grand grande; hot cold chaud caliente; fast slow rapide rápido; good bad bon bueno;
    new old nouveau nuevo; high low haut alto; rich poor riche rico; strong weak fort fuerte;
    clean dirty propre limpio; full empty plein lleno; black white noir negro;
    happy sad heureux feliz; hard soft dur duro; open closed ouvert abierto;
    easy difficult facile fácil; dry wet sec seco; sweet bitter doux dulce;
    first last premier primero; true false vrai verdadero; day night jour día;
    north south nord norte; love hate amour amor; war peace guerre guerra; life death vie vida;
    king queen roi rey; man woman homme hombre; boy girl garçon niño; left right gauche izquierda;
    inside outside dedans dentro; before after avant antes; always never toujours siempre;
    everything nothing tout todo; win lose gagner ganar; buy sell acheter comprar;
    give take donner dar; enter leave entrer entrar; begin end commencer empezar;
    summer winter été verano; friend enemy ami amigo; father mother père padre;
    brother sister frère hermano; husband wife mari marido; deep shallow profond profundo;
    safe dangerous sûr seguro; early late tôt temprano; near far près cerca; more less plus más;
    yes no oui sí; rise fall monter subir; push pull pousser empujar; live die vivre vivir
"""
TABLE: Mapping[str, Mapping[str, str]] = {
    column: {row.split()[0]: row.split()[place] for row in _ROWS.split(";")}
    for place, column in enumerate(COLUMNS, start=1)
}
SHOTS = (3, 4, 5)


@dataclass(frozen=True, slots=True)
class Frame:
    """How an example is written, what stands between two, and the question."""

    opening: str
    example: str
    joint: str
    question: str


FRAMES = {
    "dash": Frame("", "- {word}: {image}", "\n", "- {word}:"),
    "arrow": Frame("Words:", " {word} -> {image}", ",", " {word} ->"),
    "asked": Frame("", "Q: {word}\nA: {image}", "\n\n", "Q: {word}\nA:"),
    "input": Frame("", "Input: {word} Output: {image}", "\n", "Input: {word} Output:"),
    "equals": Frame("Words:", " {word} = {image}", ",", " {word} ="),
    "double": Frame("", "1. {word} => {image}", "\n", "1. {word} =>"),
    "becomes": Frame("Here", " {word} becomes {image}", ",", " {word} becomes"),
    "bar": Frame("", "| {word} | {image} |", "\n", "| {word} |"),
    "semicolon": Frame("Pairs:", " {word}: {image}", ";", " {word}:"),
    "from": Frame("", "From {word} to {image}", "\n", "From {word} to"),
    "numbered": Frame("Examples:\n", "* {word}: {image}", "\n", "* {word}:"),
    "goes": Frame("Today", " {word} goes with {image}", ",", " {word} goes with"),
    "term": Frame("", "Term: {word}\nResult: {image}", "\n\n", "Term: {word}\nResult:"),
    "given": Frame("", "Given {word}, write {image}.", "\n", "Given {word}, write"),
    "question": Frame("Quick:", " {word}? {image}", ".", " {word}?"),
    "slash": Frame("Glossary:", " {word} / {image}", ",", " {word} /"),
}
HELD_OUT_FRAMES = {
    "tilde": Frame("Match:", " {word} ~ {image}", ",", " {word} ~"),
    "user": Frame("", "User: {word}\nBot: {image}", "\n", "User: {word}\nBot:"),
    "maps": Frame("We say", " {word} maps to {image}", ";", " {word} maps to"),
    "line": Frame("Cards:", " {word} | {image}", "\n", " {word} |"),
    "triple": Frame("Rules:", " {word} --> {image}", ".", " {word} -->"),
    "cue": Frame("", "Cue: {word}, reply: {image}", "\n", "Cue: {word}, reply:"),
    "first": Frame("", "First {word}, then {image}", "\n", "First {word}, then"),
    "answers": Frame("", "To {word} she answers {image}.", " ", "To {word} she answers"),
}


def generate(rng: random.Random, fits: Fits) -> Iterator[PromptPair]:
    """Do to a word what was done to the examples.

    Endless pairs whose query word changes; mappings, and the words of each, are uniform.

    Raises CapabilityError when no mapping has 8 words that fit together with their image.
    """
    kinds = _usable("in_context_mapping", 1, fits)
    written = _frames(fits)
    while True:
        key, kind = rng.choice(tuple(written)), rng.choice(tuple(kinds))
        query, other, *shown = rng.sample(kinds[kind], rng.choice(SHOTS) + 2)
        (image,) = (TABLE[column] for column in kind)
        yield PromptPair(
            clean=_prompt(written[key], shown, image, query),
            counterfactual=_prompt(written[key], shown, image, other),
            answer=f" {image[query]}",
            distractor=f" {image[other]}",
            template=key,
            classes={
                **frame_part(key, HELD_OUT_FRAMES),
                "mapping": kind[0],
                "examples": str(len(shown)),
            },
        )


def generate_rule(rng: random.Random, fits: Fits) -> Iterator[PromptPair]:
    """Tell from the examples what is to be done to a word.

    Endless pairs whose examples change; the two mappings of a pair, and their words, are
    uniform.

    Raises CapabilityError when no two mappings have 8 words that fit together with both images
    (which must have equally many tokens, or the examples would not align).
    """
    kinds = _usable("in_context_rule", 2, fits)
    written = _frames(fits)
    while True:
        key, kind = rng.choice(tuple(written)), rng.choice(tuple(kinds))
        image, other = (TABLE[column] for column in kind)
        query, *shown = rng.sample(kinds[kind], rng.choice(SHOTS) + 1)
        yield PromptPair(
            clean=_prompt(written[key], shown, image, query),
            counterfactual=_prompt(written[key], shown, other, query),
            answer=f" {image[query]}",
            distractor=f" {other[query]}",
            template=key,
            classes={
                **frame_part(key, HELD_OUT_FRAMES),
                "mapping": kind[0],
                "other mapping": kind[1],
                "examples": str(len(shown)),
            },
        )


def _frames(fits: Fits) -> dict[str, Frame]:
    return frames("in_context_mapping", FRAMES, HELD_OUT_FRAMES, fits, astuple)


def _usable(task: str, columns: int, fits: Fits) -> dict[tuple[str, ...], tuple[str, ...]]:
    """The ordered choices of so many columns that enough words fit in, and those words."""
    found: dict[tuple[str, ...], tuple[str, ...]] = {}
    errors = []
    for chosen in permutations(COLUMNS, columns):
        kind = f"words with their {' and '.join(chosen)}"
        try:
            words = tuple(TABLE[COLUMNS[0]])
            found[chosen] = fitting(task, kind, words, _length(chosen, fits), at_least=8)
        except CapabilityError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return found


def _length(columns: Sequence[str], fits: Fits) -> Callable[[str], int]:
    """The tokens of a word, or 0 where its images in the columns cannot replace one another."""

    def length(word: str) -> int:
        images = {fits(TABLE[column][word]) for column in columns}
        return fits(word) if len(images) == 1 and 0 not in images else 0

    return length


def _prompt(frame: Frame, shown: Sequence[str], image: Mapping[str, str], query: str) -> str:
    examples = [frame.example.format(word=word, image=image[word]) for word in shown]
    return frame.opening + frame.joint.join([*examples, frame.question.format(word=query)])
