"""The English words that several tasks draw from, and the filters that keep what fits.

Lists are ordered from common to rare, so that a small vocabulary can take the head of each; the
heads stand here, the rest in word_lists/. They are disjoint where one prompt draws from several of
them, and objects start with a consonant ("a book").

A third of the long lists' words, and of every task's sentence frames, is held out: drawn only where
a capability asks for it (`Fits.held_out`), so that what a model does on prompts that are public can
be compared with what it does on words and frames that no prompt at hand has held. Light: no torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from string import Formatter
from typing import Protocol, TypeVar

from forgetguard.errors import CapabilityError


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    """Mary John Anna Tom Sarah James Alice David Emma Peter Laura Paul Julia Mark Susan Robert
    Kate Michael Linda Daniel Rachel Steven Helen Kevin Maria Brian Karen Eric Jane Adam Lisa
    Simon Amy Scott Emily Andrew Rebecca Thomas Megan Richard Jessica Joseph Nancy Matthew Claire
    Ryan Diana Patrick Sophie Martin Nicole Henry Victoria Charles Rose Edward Martha Arthur Lucy
    Oliver Hannah Samuel Sandra Gary Julie Alan Maggie Carl Ruth Jack Elizabeth George Kelly Alex"""
)

PLACES = _words(
    """store park school garden house market station library kitchen hospital beach church farm
    museum river theater bar restaurant harbor cafe hotel bank castle forest lake bridge village
    stadium gym temple prison cinema"""
)

OBJECTS = _words(
    """book key ring ball cup letter drink phone coin hat map bag box pen lamp camera bottle
    knife watch ticket flower guitar shirt towel candle plate blanket mirror necklace hammer basket
    pencil sword radio chair brush rope wallet jacket helmet"""
)

COLORS = _words("""red blue green white black yellow brown pink gray purple golden silver""")

NOUNS = _words(
    """dog tree fish bird horse stone cloud bread milk road wall glass paper wind snow metal
    cat sugar salt leaf sand gold iron wood rain star moon sun hand head foot door window table
    mouse bear wolf cow sheep duck king queen soldier doctor farmer teacher engine wheel
    boat train plane truck bus hill mountain valley island ocean desert storm fire smoke ice
    music song dance game story poem picture movie dream winter summer spring night morning
    silk cotton leather rubber plastic copper steel oil butter cheese rice corn apple lemon
    potato onion pepper honey wine beer coffee tea juice soup cake pie seed root branch
    shoulder finger tooth bone blood skin hair heart brain"""
)

NUMBERS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14,
    "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20,
    "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo",
    "China": "Beijing", "Russia": "Moscow", "Greece": "Athens", "Poland": "Warsaw",
    "Portugal": "Lisbon", "Sweden": "Stockholm", "Norway": "Oslo", "Hungary": "Budapest",
    "Denmark": "Copenhagen", "Finland": "Helsinki", "Turkey": "Ankara", "Egypt": "Cairo",
    "England": "London", "Austria": "Vienna", "Ireland": "Dublin", "Thailand": "Bangkok",
    "Vietnam": "Hanoi", "Iran": "Tehran", "Belgium": "Brussels", "Cuba": "Havana",
    "Iraq": "Baghdad", "Syria": "Damascus", "Canada": "Ottawa", "Peru": "Lima",
    "Kenya": "Nairobi", "Lebanon": "Beirut", "Libya": "Tripoli", "Afghanistan": "Kabul",
    "Chile": "Santiago", "Serbia": "Belgrade", "Venezuela": "Caracas", "Pakistan": "Islamabad",
}  # fmt: skip

# One country a language, so that two countries of a pair never share their answer.
LANGUAGES = {
    "France": "French", "Germany": "German", "Italy": "Italian", "Spain": "Spanish",
    "Japan": "Japanese", "China": "Chinese", "Russia": "Russian", "Greece": "Greek",
    "Poland": "Polish", "Portugal": "Portuguese", "Sweden": "Swedish", "Norway": "Norwegian",
    "Hungary": "Hungarian", "Denmark": "Danish", "Finland": "Finnish", "Turkey": "Turkish",
    "Egypt": "Arabic", "England": "English", "Thailand": "Thai", "Vietnam": "Vietnamese",
    "Iran": "Persian",
}  # fmt: skip


LISTS: Mapping[str, tuple[str, ...]] = {
    "names": NAMES,
    "places": PLACES,
    "objects": OBJECTS,
    "colors": COLORS,
    "nouns": NOUNS,
    "numbers": tuple(NUMBERS),
}
PUBLIC, HELD_OUT = "[public]", "[held out]"  # the parts of a file of word_lists/


class Fits(Protocol):
    """How a generator asks the tokenizer at hand about a word.

    What forgetguard hands to a task has, besides, `held_out` (whether held-out words and frames are
    drawn), `knows(text)` (whether no piece of a text is unknown) and `chat` (whether a chat
    template will wrap the prompts). A plain function will do: it has none of them.
    """

    def __call__(self, word: str, before: str | None = None, /) -> int:
        """How many tokens `word` is after a space in running text or, where `before` is given,
        right after that text, as written. 0 where it cannot be used: unknown, merged with what
        stands before it, or of several tokens although the readout needs one."""


def listed(kinds: str, fits: Fits | Callable[[str], int]) -> tuple[str, ...]:
    """The words of the lists named (`LISTS`, separated by spaces), list by list; without those held
    out unless `fits` asks for them."""
    every: list[str] = []
    for kind in kinds.split():
        public, held_out = _further(kind)
        every += (*LISTS[kind], *public, *(held_out if getattr(fits, "held_out", False) else ()))
    return tuple(every)


@cache
def _further(kind: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words of a list after its head: those that are public, and those held out."""
    file = files(__package__) / "word_lists" / f"{kind}.txt"
    if not file.is_file():
        return (), ()
    public, held_out = file.read_text("utf-8").split(PUBLIC)[1].split(HELD_OUT)
    return _words(public), _words(held_out)


COMMON, LESS_COMMON, HELD_OUT_PART = "common", "less common", "held out"


def labels(kinds: str, **slots: str) -> dict[str, str]:
    """The classes of a pair (`PromptPair.classes`) by the words that fill its slots: for each, of
    which of the lists named it is, and whether of its common head, what follows, or what is held
    out."""
    found: dict[str, str] = {}
    for slot, word in slots.items():
        kind, part = _places(kinds).get(word, ("", ""))
        found |= {slot: kind, f"{slot} word": part} if kind else {}
    return found


@cache
def _places(kinds: str) -> dict[str, tuple[str, str]]:
    """By word: the list, and the part of it."""
    found: dict[str, tuple[str, str]] = {}
    for kind in kinds.split():
        parts = zip(
            (COMMON, LESS_COMMON, HELD_OUT_PART), (LISTS[kind], *_further(kind)), strict=True
        )
        for part, words in parts:
            found |= {word: (kind, part) for word in words if word not in found}
    return found


def frame_part(name: str, held_out: Mapping[str, object]) -> dict[str, str]:
    """The class of a pair by its sentence frame."""
    return {"frame": HELD_OUT_PART if name in held_out else "public"}


def place_of(at: int, count: int) -> str:
    """`first`, `last` or `middle` of so many."""
    return "first" if at == 0 else "last" if at == count - 1 else "middle"


Frame = TypeVar("Frame")


def frames(
    task: str,
    public: Mapping[str, Frame],
    held_out: Mapping[str, Frame],
    fits: Fits | Callable[[str], int],
    texts: Callable[[Frame], Iterable[str]] = lambda frame: (str(frame),),
) -> dict[str, Frame]:
    """The sentence frames to draw from, by name: the public ones, with those held out where `fits`
    asks for them; of these the ones whose every piece the tokenizer knows. `texts` gives a frame's
    texts, with their slots.

    Raises CapabilityError when it knows none.
    """
    chosen = {**public, **(held_out if getattr(fits, "held_out", False) else {})}
    knows: Callable[[str], bool] = getattr(fits, "knows", lambda text: True)
    known = {
        key: frame
        for key, frame in chosen.items()
        if all(knows(piece) for text in texts(frame) for piece in _fixed(text))
    }
    if not known:
        raise CapabilityError(
            f"Task {task!r}: none of its {len(chosen)} sentence frames fits this tokenizer: each "
            "has a word that is unknown to it. Give this capability its own prompt pairs as "
            "`pairs: {file: ...}`, or choose another task."
        )
    return known


def _fixed(text: str) -> Iterator[str]:
    """What stands between the slots of a frame."""
    return (piece.rstrip(" ") for piece, *_ in Formatter().parse(text) if piece.strip())


def fitting(
    task: str, kind: str, words: Sequence[str], fits: Callable[[str], int], at_least: int
) -> tuple[str, ...]:
    """The words that fit, in their order, all of one number of tokens (the one that most of them
    have), so that any of them can take another's place in a prompt.

    Raises CapabilityError when fewer than `at_least` are left.
    """
    by_length = defaultdict(list)
    for word in words:
        by_length[int(fits(word))].append(word)
    by_length.pop(0, None)
    left = max(by_length.values(), key=len, default=[])
    if len(left) < at_least:
        raise CapabilityError(
            f"Task {task!r}: {len(left)} of {len(words)} {kind} fit this tokenizer, and at least "
            f"{at_least} are needed. Words fit that it knows as one token for readout logit_diff, "
            "and as one and the same number of tokens for readout logprob. Try the other readout, "
            "give this capability its own prompt pairs as `pairs: {file: ...}`, or choose another "
            "task."
        )
    return tuple(left)


def usable(
    task: str, kinds: str, fits: Fits | Callable[[str], int], at_least: int
) -> tuple[str, ...]:
    """The words of the lists named (as of `listed`) that fit (as of `fitting`)."""
    return fitting(task, kinds.split()[-1], listed(kinds, fits), fits, at_least)
