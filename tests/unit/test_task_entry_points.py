"""Tasks of other distributions: found by entry point, loaded when asked for, refused when wrong."""

from __future__ import annotations

import random
import sys
import tomllib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

import forgetguard
from examples.studies.tiny import vocabulary
from forgetguard.capabilities import tasks
from forgetguard.capabilities.capability import Capability
from forgetguard.capabilities.tasks import TASKS, find_task, task_names
from forgetguard.errors import CapabilityError, SpecificationError
from forgetguard.gate.schema import load_gate_file

MODULE = """
from forgetguard.capabilities.pairs import PromptPair

def reversals(rng, fits):
    names = [name for name in ("Mary", "John", "Anna", "Tom", "Sarah", "James") if fits(name)]
    while True:
        one, two, three = rng.sample(names, 3)
        yield PromptPair(
            f"Friends {one} and {two} found {one} and",
            f"Friends {one} and {three} found {one} and",
            f" {two}",
            f" {three}",
            "friends",
        )

number = 7
"""
CIRCUIT = """forgetguard: 1
capability: mine
pairs: {{task: {task}, count: 16}}
readout: logit_diff
circuit: [L0H1]
limits:
  dcv.circuit: {{max: 0.1}}
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution on the path: its metadata and, beside them, its one module."""
    site = tmp_path / "site"

    def put(points: dict[str, str], name: str = "my-tasks", source: str = MODULE) -> None:
        module = name.replace("-", "_")
        info = site / f"{module}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{point} = {target}" for point, target in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[forgetguard.tasks]", *lines, ""]))
        (site / f"{module}.py").write_text(source)
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.syspath_prepend(site)
        tasks._entry_points.cache_clear()

    yield put
    tasks._entry_points.cache_clear()


def test_without_entry_points_there_are_the_bundled_tasks() -> None:
    assert task_names() == tuple(TASKS)
    assert find_task("ioi") is TASKS["ioi"]
    with pytest.raises(CapabilityError, match=r"unknown task 'iio'; there are induction, ioi, "):
        find_task("iio")


def test_a_users_task_is_drawn_from_like_a_bundled_one(install: Install, tmp_path: Path) -> None:
    install({"reversals": "my_tasks:reversals"})
    assert task_names() == (*TASKS, "reversals")

    encoded = Capability("mine", task="reversals", count=16).encoded(vocabulary.tokenizer())
    assert encoded.n_pairs == 16

    assert forgetguard.capability("reversals", pairs=16).task == "reversals"

    file = tmp_path / "mine.circuit.yaml"
    file.write_text(CIRCUIT.format(task="reversals"))
    assert load_gate_file(file).pairs.task == "reversals"


@pytest.mark.parametrize("classes", ['{"order": 1}', '{"order": ""}', '{1: "abba"}'])
def test_a_users_task_labels_its_pairs_with_texts(install: Install, classes: str) -> None:
    given = MODULE.replace('"friends",\n', f'"friends", classes={classes},\n')
    install({"reversals": "my_tasks:reversals"}, source=given)
    with pytest.raises(CapabilityError, match="task 'reversals' must give its pairs' classes as"):
        Capability("mine", task="reversals", count=16).encoded(vocabulary.tokenizer())


def test_a_users_task_is_not_imported_before_it_is_asked_for(install: Install) -> None:
    install({"broken": "my_tasks:reversals"}, source="raise RuntimeError('no licence')")
    assert "broken" in task_names()
    find_task("ioi")
    assert "my_tasks" not in sys.modules


@pytest.mark.parametrize(
    ("target", "source", "message"),
    [
        ("my_tasks:mine", "raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("my_tasks:mine", "import not_there_at_all", "ModuleNotFoundError: .*not_there_at_all"),
        ("my_tasks:absent", MODULE, "AttributeError: .*absent"),
        ("my_tasks:number", MODULE, "must be a function .* got int"),
    ],
)
def test_a_task_that_cannot_be_loaded_names_its_distribution_and_the_error(
    install: Install, tmp_path: Path, target: str, source: str, message: str
) -> None:
    install({"mine": target}, source=source)
    message = f"task 'mine' of distribution my-tasks .*{message}"
    with pytest.raises(CapabilityError, match=message):
        Capability("mine", task="mine").encoded(vocabulary.tokenizer())
    with pytest.raises(CapabilityError, match=message):
        forgetguard.capability("mine", pairs=16)
    file = tmp_path / "mine.circuit.yaml"
    file.write_text(CIRCUIT.format(task="mine"))
    with pytest.raises(SpecificationError, match=f":3: pairs: {message}"):
        load_gate_file(file)


def test_a_users_task_may_not_take_a_bundled_ones_name(install: Install, tmp_path: Path) -> None:
    install({"ioi": "my_tasks:reversals"})
    assert task_names() == tuple(TASKS)
    message = "'ioi' is bundled with forgetguard, and distribution my-tasks"
    with pytest.raises(CapabilityError, match=message):
        find_task("ioi")
    find_task("induction")
    file = tmp_path / "mine.circuit.yaml"
    file.write_text(CIRCUIT.format(task="ioi"))
    with pytest.raises(SpecificationError, match=message):
        load_gate_file(file)


def test_two_distributions_with_one_name_are_both_named(install: Install) -> None:
    install({"mine": "my_tasks:reversals"})
    install({"mine": "other_tasks:reversals"}, name="other-tasks")
    assert task_names().count("mine") == 1
    with pytest.raises(CapabilityError, match=r"my-tasks .* and by distribution other-tasks"):
        find_task("mine")


def test_the_documented_package_works_as_it_is_written(install: Install) -> None:
    page = (Path(__file__).parents[2] / "docs" / "capabilities.md").read_text()
    project, module = (
        page.split(f"```{kind}\n# ")[1].split("```")[0] for kind in ("toml", "python")
    )
    (points,) = tomllib.loads("# " + project)["project"]["entry-points"].values()
    install(points, source="# " + module)
    pairs = list(islice(find_task("opposites")(random.Random(0), lambda word, before=None: 1), 40))
    assert len({pair.clean for pair in pairs}) > 8
    assert all(pair.answer != pair.distractor for pair in pairs)
    with pytest.raises(CapabilityError, match="Task 'opposites': 0 of 6 words fit"):
        next(find_task("opposites")(random.Random(0), lambda word, before=None: 0))


def test_the_documentation_names_every_bundled_task() -> None:
    page = (Path(__file__).parents[2] / "docs" / "capabilities.md").read_text()
    table = page.split("| task |")[1]
    assert [name for name in TASKS if f"| `{name}` |" in table] == list(TASKS)
