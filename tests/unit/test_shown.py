"""Results of the Python API in a notebook: the same numbers as table, figure and data frame."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import pytest

import forgetguard as fg
from forgetguard import shown
from forgetguard.errors import SpecificationError
from forgetguard.gate.verdict import Estimate
from forgetguard.measures.origin import Amount, Share
from forgetguard.measures.origin_parts import Part
from forgetguard.measures.samples import Samples

mpl.use("Agg")


def estimate(value: float) -> Estimate:
    return Estimate(value, value - 0.1, value + 0.3, 0.9, 64)


def vulnerability(heads: int, name: str = "L0H{}") -> fg.Vulnerability:
    each = {name.format(at): estimate(at / 10) for at in range(heads)}
    return fg.Vulnerability(estimate(0.5), each, (), Samples((), {}))


RESULTS: list[Any] = [
    vulnerability(3),
    fg.Measured("kl.forward", {"layer 1": estimate(0.1)}, Samples((), {})),
    fg.Roles({"L0H0": estimate(0.1)}, {"L0H0": estimate(0.2)}),
    fg.Restoration(estimate(3.0), estimate(0.7), {"L0H0": estimate(0.2)}),
    fg.Restoration(estimate(0.0), None, {}, "nothing was lost"),
    fg.Origin(
        64, Amount(3.0), Amount(1.0), True,
        (Share(Part("attention", (1, 1)), Amount(), Amount(), Amount(0.7)),),
        (Share(Part("o", (1, 1), 2), Amount(), Amount(), Amount(0.6)),), (), Amount(), 16,
    ),
    fg.Circuit(fg.capability("ioi"), (fg.Head(0, 1),)),
]  # fmt: skip


@pytest.mark.parametrize("result", RESULTS, ids=lambda one: type(one).__name__)
def test_table_figure_and_frame_hold_the_same_rows(result: Any) -> None:
    rows = list(result.rows())
    assert list(result.to_frame().itertuples(index=False, name=None)) == rows
    assert result._repr_html_().count("<tr>") == 1 + len(rows)
    axes = result.plot()
    assert len(axes.get_yticks()) == len(rows)
    mpl.pyplot.close(axes.figure)


def test_the_figure_draws_values_with_their_bounds() -> None:
    axes = vulnerability(2).plot()
    (drawn,) = axes.containers
    assert drawn.lines[0].get_xdata().tolist() == [0.5, 0.0, 0.1]
    (bars,) = drawn.lines[2]
    ends = [segment[:, 0].tolist() for segment in bars.get_segments()]
    assert ends == [pytest.approx([value - 0.1, value + 0.3]) for value in (0.5, 0.0, 0.1)]
    mpl.pyplot.close(axes.figure)


def test_of_many_rows_the_largest_are_shown_and_the_others_counted() -> None:
    many = vulnerability(50)
    assert "and 21 more" in many._repr_html_()
    assert "L0H49" in many._repr_html_()
    assert "L0H0<" not in many._repr_html_()
    assert len(many.to_frame()) == 51


def test_names_are_text_in_the_table() -> None:
    assert "<script>" not in vulnerability(1, "<script>alert(1)</script>")._repr_html_()


@pytest.mark.parametrize(("way", "package"), [("to_frame", "pandas"), ("plot", "matplotlib")])
def test_a_missing_package_is_told_with_what_installs_it(
    way: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(shown, "import_module", absent)
    with pytest.raises(SpecificationError, match=f"pip install {package}"):
        getattr(vulnerability(1), way)()
