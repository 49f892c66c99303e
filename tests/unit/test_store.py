"""What discovery keeps: whole or not at all, under a name for all that it depends on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_pairs import random_capability

from forgetguard.anatomy.members import Head, Member, Mlp
from forgetguard.cache_folder import cache_folder
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.capabilities.variants import exchange_answers, exchange_prompts, take
from forgetguard.discovery.circuit import Found, Stability
from forgetguard.discovery.curve import Curve
from forgetguard.discovery.ranking import Ranking
from forgetguard.discovery.store import Store, identity
from forgetguard.errors import MeasurementError

FLOATS = st.floats(allow_nan=False)
MEMBERS = st.one_of(
    st.builds(Head, st.integers(0, 99), st.integers(0, 99)), st.builds(Mlp, st.integers(0, 99))
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def results(draw: st.DrawFn) -> Found:
    members = draw(st.lists(MEMBERS, min_size=1, max_size=12, unique=True))
    n = len(members)
    scores = dict(zip(members, draw(st.lists(FLOATS, min_size=n, max_size=n)), strict=True))
    size = draw(st.integers(1, n))
    selected = draw(st.none() | st.just(tuple(sorted(members[:size]))))
    plain = st.dictionaries(st.text(), PLAIN, max_size=3)
    patched = frozenset(members[: draw(st.integers(0, n))])
    ranking = Ranking(scores, draw(st.text()), draw(plain), selected, draw(plain), patched)
    curve = Curve(
        tuple(range(1, n + 1)),
        tuple(draw(st.lists(FLOATS, min_size=n, max_size=n))),
        tuple(draw(st.lists(FLOATS, min_size=n, max_size=n))),
        n,
        draw(st.sampled_from(["counterfactual", "mean", "zero"])),
        draw(FLOATS),
        draw(st.integers(8, 999)),
    )
    circuit = tuple(sorted(members[:size]))
    numbers = draw(FLOATS), draw(FLOATS), draw(st.integers(8, 999)), draw(st.integers(0))
    stability = draw(st.none() | st.builds(Stability, st.integers(), st.integers(), FLOATS, FLOATS))
    chosen = draw(st.none() | st.just({"exact_seconds": 1.5, "within": 300.0}))
    return Found(ranking, curve, circuit, *numbers, draw(st.booleans()), stability, chosen)


def some_result() -> Found:
    members: tuple[Member, ...] = (Head(1, 0), Mlp(0))
    ranking = Ranking(dict.fromkeys(members, 0.5), "activation_patching", {"direction": "noising"})
    curve = Curve((1, 2), (0.9, 1.0), (0.8, 1.0), 2, "counterfactual", 3.0, 8)
    return Found(ranking, curve, members[:1], 0.8, 1.0, 8, 0)


@settings(max_examples=150, deadline=None)
@given(results())
def test_a_result_is_read_back_as_it_was_kept(
    tmp_path_factory: pytest.TempPathFactory, found: Found
) -> None:
    store = Store.open("name", tmp_path_factory.mktemp("cache"))
    store.save_found(found)
    read = store.load_found()
    assert read is not None
    assert read == found
    assert read.ranking.order == found.ranking.order
    assert read.faithfulness == found.faithfulness


def test_a_store_gives_back_what_was_saved(tmp_path: Path) -> None:
    store = Store.open("name", tmp_path)
    assert store.load("part") is None
    assert store.load_found() is None
    assert not store.folder.exists(), "nothing is made before there is something to keep"
    values = np.array([[0.1, np.nan, np.inf], [-0.0, 1e-300, 2.0]])
    store.save("part", values)
    read = store.load("part")
    assert read is not None
    assert read.dtype == np.float64
    assert read.tobytes() == values.tobytes()
    assert store.load("another") is None
    assert Store.open("another", tmp_path).load("part") is None


def test_a_finished_result_stands_alone(tmp_path: Path) -> None:
    store = Store.open("name", tmp_path)
    store.save("part", np.zeros(3))
    store.save_found(some_result())
    assert store.load_found() == some_result()
    assert store.load("part") is None
    assert [path.name for path in store.folder.iterdir()] == ["found.json"]


def failing(error: BaseException) -> Callable[..., None]:
    def save(file: Any, *args: Any, **kwargs: Any) -> None:
        file.write(b"half")
        raise error

    return save


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failing_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    store = Store.open("name", tmp_path)
    store.save("part", np.ones(3))
    monkeypatch.setattr(np, "save", failing(error))
    expected = MeasurementError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        store.save("part", np.zeros(3))
    with pytest.raises(expected):
        store.save("other", np.zeros(3))
    read = store.load("part")
    assert read is not None
    assert read.tolist() == [1.0, 1.0, 1.0]
    assert store.load("other") is None
    assert len(list(store.folder.iterdir())) == 1, "nothing half written is left behind"


def test_a_result_that_cannot_be_written_leaves_the_old_one_and_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open("name", tmp_path)
    store.save_found(some_result())
    store.save("part", np.zeros(3))

    def fail(self: Path, target: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(MeasurementError, match="Read-only file system"):
        store.save_found(replace(some_result(), seed=9))
    monkeypatch.undo()
    assert store.load_found() == some_result()
    assert store.load("part") is not None
    assert sorted(path.suffix for path in store.folder.iterdir()) == [".json", ".npy"]


def test_a_cache_that_cannot_be_written_is_said_clearly(tmp_path: Path) -> None:
    """A file stands where the folder should be, which stops even root."""
    (tmp_path / "discovery").write_text("")
    store = Store.open("name", tmp_path)
    assert store.load("part") is None
    assert store.load_found() is None
    with pytest.raises(MeasurementError, match=r"set FORGETGUARD_CACHE to a folder") as caught:
        store.save("part", np.zeros(3))
    assert str(store.folder) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', "{}"])
def test_what_is_no_result_counts_as_none(tmp_path: Path, text: str) -> None:
    store = Store.open("name", tmp_path)
    store.save_found(some_result())
    (store.folder / "found.json").write_text(text)
    assert store.load_found() is None


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("ranking", "scores", {"nonsense": 1.0}),
        ("ranking", "scores", []),
        ("ranking", "scores", {"L0H0": "x"}),
        ("ranking", "patched", None),
        ("curve", "sizes", 3),
        (None, "circuit", ["L0"]),
        (None, "curve", {"sizes": [1]}),
        (None, "curve", 3),
        (None, "pairs", None),
    ],
)
def test_a_damaged_result_counts_as_none(
    tmp_path: Path, part: str | None, key: str, value: object
) -> None:
    store = Store.open("name", tmp_path)
    store.save_found(some_result())
    file = store.folder / "found.json"
    content = json.loads(file.read_text())
    (content if part is None else content[part])[key] = value
    file.write_text(json.dumps(content))
    assert store.load_found() is None


def test_bytes_that_are_no_text_count_as_none(tmp_path: Path) -> None:
    store = Store.open("name", tmp_path)
    store.save_found(some_result())
    (store.folder / "found.json").write_bytes(b"\xff\xfe\x00")
    assert store.load_found() is None


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_part_cut_or_changed_anywhere_never_raises(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    store = Store.open("name", tmp_path_factory.mktemp("cache"))
    store.save("part", np.arange(6.0).reshape(2, 3))
    (file,) = store.folder.iterdir()
    content = bytearray(file.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        place = data.draw(st.integers(0, 127))  # its header
        content[place] = data.draw(st.integers(0, 255))
    file.write_bytes(bytes(content))
    read = store.load("part")
    assert read is None or read.dtype == np.float64


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("FORGETGUARD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == tmp_path / ".cache" / "forgetguard"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert cache_folder() == tmp_path / "shared" / "forgetguard"
    monkeypatch.setenv("FORGETGUARD_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    assert Store.open("name").folder == tmp_path / "own" / "discovery" / "name"


# --- The identity ---------------------------------------------------------------------------------

BASE = {"weights": "abc", "dtype": "torch.float32", "device": "cpu"}
SETTINGS = {"method": "activation_patching", "faithful": 0.8, "seed": 0, "method.direction": "n"}
HEADS: tuple[Member, ...] = (Head(0, 0), Head(0, 1))


def name(
    base: dict[str, str] = BASE,
    capability: EncodedCapability | None = None,
    members: tuple[Member, ...] = HEADS,
    settings: dict[str, Any] = SETTINGS,
) -> str:
    return identity(base, capability or random_capability(8), members, settings)


def test_every_ingredient_changes_the_identity() -> None:
    pairs = random_capability(8)
    names = [
        name(),
        *(name(base={**BASE, key: "other"}) for key in BASE),
        name(capability=random_capability(8, seed=3)),
        name(capability=random_capability(8, readout="logprob")),
        name(capability=random_capability(9)),
        name(capability=take(pairs, [1, 0, 2, 3, 4, 5, 6, 7])),
        name(capability=exchange_prompts(pairs)),
        name(capability=exchange_answers(pairs)),
        name(members=HEADS[:1]),
        name(members=(*HEADS, Mlp(0))),
        *(name(settings={**SETTINGS, key: "other"}) for key in SETTINGS),
        name(settings={**SETTINGS, "seed": 1}),
        name(settings={**SETTINGS, "method.more": True}),
    ]
    assert len(set(names)) == len(names)


def test_the_order_in_which_settings_are_given_does_not_matter() -> None:
    turned = dict(reversed(SETTINGS.items()))
    assert name(settings=turned, base=dict(reversed(BASE.items()))) == name()


def test_the_version_of_forgetguard_is_a_part_of_the_identity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = name()
    monkeypatch.setattr("forgetguard.discovery.store.metadata.version", lambda _: "99")
    assert name() != before


def test_an_identity_is_a_folder_name() -> None:
    assert len(name()) == 32
    assert os.sep not in name()
    assert name() == name(), "the same in every process"
