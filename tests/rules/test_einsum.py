"""What an Einsum equation says, and what it costs."""

from __future__ import annotations

import pytest
from small_networks import analysis_of

from graphprune.cost import CostModel
from graphprune.rules.einsum import parse


@pytest.mark.parametrize(
    ("equation", "ranks", "operands", "out"),
    [
        ("ij,jk->ik", (2, 2), ["ij", "jk"], "ik"),
        (" i j , j k -> i k ", (2, 2), ["ij", "jk"], "ik"),
        ("bz,za", (2, 2), ["bz", "za"], "ab"),
        ("iB,Bj", (2, 2), ["iB", "Bj"], "ij"),
        ("aB", (2,), ["aB"], "Ba"),
        ("ii", (2,), ["ii"], ""),
        ("ij->", (2,), ["ij"], ""),
        (",i", (0, 1), ["", "i"], "i"),
    ],
)
def test_labels(equation: str, ranks: tuple[int, ...], operands: list[str], out: str) -> None:
    assert parse(equation, ranks) == ([list(term) for term in operands], list(out))


@pytest.mark.parametrize(
    ("equation", "ranks", "operands", "out"),
    [
        ("...i,...i->...", (3, 2), [["...2", "...1", "i"], ["...1", "i"]], ["...2", "...1"]),
        ("...i,ij", (3, 2), [["...2", "...1", "i"], ["i", "j"]], ["...2", "...1", "j"]),
        ("i...->...i", (2,), [["i", "...1"]], ["...1", "i"]),
        ("i...->i", (2,), [["i", "...1"]], ["i"]),
        ("...i->...i", (1,), [["i"]], ["i"]),
    ],
)
def test_ellipsis(equation: str, ranks: tuple[int, ...], operands: list[list[str]], out: list[str]) -> None:
    assert parse(equation, ranks) == (operands, out)


@pytest.mark.parametrize(
    ("equation", "ranks"),
    [
        ("ij,jk->ik", (2,)),
        ("ij->i", (3,)),
        ("ij->ii", (2,)),
        ("ij->k", (2,)),
        ("i1->i", (2,)),
        ("...i...->i", (3,)),
    ],
)
def test_malformed(equation: str, ranks: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="'"):
        parse(equation, ranks)


@pytest.mark.parametrize(
    ("equation", "shapes", "macs"),
    [
        ("ij,jk->ik", ((4, 5), (5, 6)), 4 * 5 * 6),
        ("ij->ji", ((4, 5),), 0),
        ("bij,jk,kl->bil", ((2, 4, 5), (5, 6), (6, 7)), 2 * 4 * 5 * 6 + 2 * 4 * 6 * 7),
        ("ij,kl->il", ((4, 5), (6, 7)), 4 * 7),  # j and k are summed before
        ("...ij,...jk->...ik", ((3, 1, 4, 5), (2, 5, 6)), 3 * 2 * 4 * 5 * 6),
        ("ij,j,jk->ik", ((4, 5), (5,), (5, 6)), 4 * 5 + 4 * 5 * 6),
    ],
)
def test_macs(equation: str, shapes: tuple[tuple[int, ...], ...], macs: int) -> None:
    names = [f"w{i}" for i in range(1, len(shapes))]
    sizes = ", ".join(map(str, shapes[0]))
    analysis = analysis_of(
        f"""n (float[{sizes}] w0) => (float[] y) {{
            y = Einsum <equation = "{equation}"> ({", ".join(["w0", *names])})
        }}""",
        **dict(zip(names, shapes[1:], strict=True)),
    )
    assert CostModel(analysis, 0).evaluate().macs == macs
