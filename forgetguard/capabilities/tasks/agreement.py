"""Task `agreement`: the verb agrees with its subject, whatever noun stands in between.

"The keys near the cup" continues with are. The counterfactual has the subject in the other number:
one word's difference. In most frames another noun (an attractor) stands between subject and verb;
its number is a fair coin, so the last noun says nothing about the verb. (After Linzen et al., arXiv
1611.01368.) Light: no torch.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks.words import Fits, fitting, frame_part, frames, labels, usable
from forgetguard.errors import CapabilityError

PLURALS = {
    "key": "keys", "book": "books", "ring": "rings", "ball": "balls", "cup": "cups",
    "letter": "letters", "phone": "phones", "hat": "hats", "map": "maps", "bag": "bags",
    "box": "boxes", "lamp": "lamps", "camera": "cameras", "bottle": "bottles", "knife": "knives",
    "watch": "watches", "ticket": "tickets", "flower": "flowers", "shirt": "shirts",
    "mirror": "mirrors", "car": "cars", "boat": "boats", "train": "trains", "plane": "planes",
    "truck": "trucks", "bus": "buses", "engine": "engines", "wheel": "wheels", "tree": "trees",
    "bird": "birds", "horse": "horses", "dog": "dogs", "cat": "cats", "stone": "stones",
    "wall": "walls", "door": "doors", "window": "windows", "table": "tables", "chair": "chairs",
    "picture": "pictures", "doctor": "doctors", "teacher": "teachers", "farmer": "farmers",
    "soldier": "soldiers", "student": "students", "writer": "writers", "child": "children",
    "man": "men", "woman": "women", "mouse": "mice", "house": "houses", "tower": "towers",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Frame:
    """A sentence up to its verb, and the verb in both numbers."""

    sentence: str
    singular: str
    plural: str


NUMBERS = ("singular", "plural")
FRAMES = {
    "near": Frame("Right now the {subject} near the {attractor}", "is", "are"),
    "behind": Frame("Today the {subject} behind the {attractor}", "is", "are"),
    "says": Frame("These days, {name} says, the {subject}", "is", "are"),
    "beside": Frame("Yesterday the {subject} beside the {attractor}", "was", "were"),
    "under": Frame("Last night the {subject} under the {attractor}", "was", "were"),
    "remembers": Frame("Years ago, {name} remembers, the {subject}", "was", "were"),
    "with": Frame("Since last year the {subject} with the {attractor}", "has", "have"),
    "saw": Frame("Ever since {name} saw the {attractor}, the {subject}", "has", "have"),
    "above": Frame("At this moment the {subject} above the {attractor}", "is", "are"),
    "thinks": Frame("As far as {name} knows, the {subject}", "is", "are"),
    "against": Frame("Nowadays the {subject} against the {attractor}", "is", "are"),
    "across": Frame("A week ago the {subject} across from the {attractor}", "was", "were"),
    "told": Frame("Back in those days, {name} told us, the {subject}", "was", "were"),
    "below": Frame("Last summer the {subject} below the {attractor}", "was", "were"),
    "without": Frame("For many years the {subject} without the {attractor}", "has", "have"),
    "noticed": Frame("Until now, {name} noticed, the {subject}", "has", "have"),
}
HELD_OUT_FRAMES = {
    "facing": Frame("This morning, as always, the {subject} facing the {attractor}", "is", "are"),
    "photo": Frame("In this photo that {name} likes, the {subject}", "is", "are"),
    "inside": Frame("At present the {subject} inside the {attractor}", "is", "are"),
    "touching": Frame("In those old days the {subject} touching the {attractor}", "was", "were"),
    "wrote": Frame("In 1990, {name} wrote, the {subject}", "was", "were"),
    "opposite": Frame("Long ago the {subject} opposite the {attractor}", "was", "were"),
    "past": Frame("Over this past month the {subject} around the {attractor}", "has", "have"),
    "according": Frame("More recently, according to {name}, the {subject}", "has", "have"),
}


def generate(rng: random.Random, fits: Fits) -> Iterator[PromptPair]:
    """Endless pairs; the numbers of the subject and of the other noun are two fair coins.

    The subjects of a pair are one noun in its two numbers where 8 nouns have equally many tokens in
    both; else they are a singular and a plural of any two nouns, again of one length.

    Raises CapabilityError when fewer than 8 singulars or 8 plurals fit in that way, fewer than 4
    names, or no frame's two verbs.
    """
    names = usable("agreement", "names", fits, at_least=4)
    known = frames("agreement", FRAMES, HELD_OUT_FRAMES, fits, lambda frame: (frame.sentence,))
    sentences = {
        key: frame for key, frame in known.items() if fits(frame.singular) and fits(frame.plural)
    }
    if not sentences:
        raise CapabilityError(
            "Task 'agreement': none of the verbs is, are, was, were, has, have fits this "
            "tokenizer; choose another task."
        )
    subjects = _subjects(fits)
    while True:
        key, number = rng.choice(tuple(sentences)), rng.choice((0, 1))
        frame = sentences[key]
        subject, other = rng.sample(subjects, 2)
        attractor = rng.choice(other)
        if attractor in subject:
            continue
        slots = {"attractor": attractor, "name": rng.choice(names)}
        prompts = [frame.sentence.format(**slots, subject=form) for form in subject]
        verbs = f" {frame.singular}", f" {frame.plural}"
        yield PromptPair(
            clean=prompts[number],
            counterfactual=prompts[1 - number],
            answer=verbs[number],
            distractor=verbs[1 - number],
            template=key,
            classes={
                **frame_part(key, HELD_OUT_FRAMES),
                "number": NUMBERS[number],
                "verb": frame.singular,
                "other noun": NUMBERS[other.index(attractor)]
                if "{attractor}" in frame.sentence
                else "none",
                **(labels("names", name=slots["name"]) if "{name}" in frame.sentence else {}),
            },
        )


def _subjects(fits: Fits) -> tuple[tuple[str, str], ...]:
    """The singulars and plurals that can stand in one another's place."""
    length = {form: fits(form) for form in (*PLURALS, *PLURALS.values())}
    same = _of_one_length(PLURALS.items(), length)
    if len(same) >= 8:
        return same
    # A small vocabulary has "keys" in more tokens than "key", but another plural in as many.
    mixed = _of_one_length(product(PLURALS, PLURALS.values()), length)
    for kind, words in (("singular", PLURALS), ("plural", PLURALS.values())):
        found = {form for pair in mixed for form in pair}
        fitting("agreement", f"{kind} nouns", tuple(words), found.__contains__, at_least=8)
    return mixed


def _of_one_length(
    pairs: Iterable[tuple[str, str]], length: Mapping[str, int]
) -> tuple[tuple[str, str], ...]:
    return tuple((a, b) for a, b in pairs if length[a] == length[b] > 0)
