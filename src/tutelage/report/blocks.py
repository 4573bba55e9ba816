"""What a page is built of: plain values that a template turns into HTML."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = [
    "Block",
    "Card",
    "Cards",
    "Cell",
    "Code",
    "Facts",
    "Figure",
    "Figures",
    "Gallery",
    "Grid",
    "Group",
    "More",
    "Picture",
    "Points",
    "Section",
    "Text",
    "points",
    "signed",
    "spans",
]

Cell = str | tuple[str, str]
"""What a cell of a table says; with a smaller line below it."""

_NUMBER = re.compile(r"[-+−±]?\d")


class Text(NamedTuple):
    """A paragraph."""

    text: str


class Points(NamedTuple):
    """A list of sentences."""

    items: Sequence[str]


class Facts(NamedTuple):
    """Names and what is said of them."""

    items: Sequence[tuple[str, str]]


class Code(NamedTuple):
    """Lines to be copied."""

    text: str


class Grid(NamedTuple):
    """A table.

    Attributes:
        caption: what it shows.
        head: headings.
        rows: the first cell of each is its name, of one line.
        marked: numbers of rows that count for nothing, shown as such.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    marked: Sequence[int] = ()

    @property
    def numeric(self) -> list[bool]:
        """Whether a column holds numbers, for the most part, so that it is set flush right."""
        found = []
        for place in range(len(self.head)):
            said = [cell for row in self.rows if (cell := _main(row[place])) not in ("", "–")]
            numbers = sum(bool(_NUMBER.match(cell)) for cell in said)
            found.append(place > 0 and 2 * numbers > len(said))
        return found


class Figure(NamedTuple):
    """A figure, and the same in words and as a table.

    Attributes:
        key: its name in the page, of letters and dashes.
        title: what it shows.
        caption: how to read it.
        label: what is to be seen in it, in one sentence.
        table: its numbers.
        data: plotly's traces. What is to be read by plotly, which knows some HTML, is escaped;
            colors are names of the page's, such as `var(--series-1)`.
        layout: plotly's layout, without style. Its height is in pixels.
    """

    key: str
    title: str
    caption: str
    label: str
    table: Grid
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]


class Figures(NamedTuple):
    """Figures side by side where there is room; one alone takes all of it."""

    items: Sequence[Figure]


class More(NamedTuple):
    """What is shown on demand."""

    title: str
    blocks: Sequence[Any]


class Group(NamedTuple):
    """What belongs together, below a heading of its own."""

    title: str
    blocks: Sequence[Any]


class Picture(NamedTuple):
    """A small picture.

    Attributes:
        words: what is to be seen.
        address: the picture itself, as an address that begins with `data:`.
        width, height: at which it is shown, in the page's pixels.
    """

    words: str
    address: str
    width: int
    height: int


class Gallery(NamedTuple):
    """Pictures in rows and columns.

    Attributes:
        caption: what they show.
        head: headings, one for the names of the rows before one for each column.
        rows: a picture and its name, and what each column has for it.
    """

    caption: str
    head: Sequence[Cell]
    rows: Sequence[tuple[Picture, str, Sequence[Sequence[Picture]]]]


class Card(NamedTuple):
    """A picture, and what is said of it."""

    picture: Picture
    title: str
    items: Sequence[tuple[str, str]]


class Cards(NamedTuple):
    """Cards, as many side by side as there is room for."""

    caption: str
    items: Sequence[Card]


Block = Text | Points | Facts | Code | Grid | Figures | More | Group | Gallery | Cards


class Section(NamedTuple):
    """A part of the page with a heading of its own.

    Attributes:
        key: its address in the page, of letters and dashes.
        title: its heading.
        blocks: what it holds.
    """

    key: str
    title: str
    blocks: Sequence[Block]


def _main(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell[0]


def signed(number: float | None, digits: int = 1) -> str:
    """A difference, with its sign.

    >>> signed(1.25), signed(-0.5), signed(None)
    ('+1.2', '−0.5', '–')
    """
    return "–" if number is None else f"{number:+.{digits}f}".replace("-", "−")


def points(share: float | None, digits: int = 1) -> str:
    """A share in percent, without the sign.

    >>> points(0.8), points(None)
    ('80.0', '–')
    """
    return "–" if share is None else f"{100 * share:.{digits}f}"


def spans(text: str) -> list[tuple[bool, str]]:
    """Pieces of a text, and whether they stand between backticks; one without another is a letter.

    >>> spans("run `make` again")
    [(False, 'run '), (True, 'make'), (False, ' again')]
    """
    pieces = re.split("`([^`]+)`", text)
    return [(number % 2 == 1, piece) for number, piece in enumerate(pieces) if piece]
