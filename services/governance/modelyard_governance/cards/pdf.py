"""A page as PDF, by ReportLab. Pure.

The fonts that come with it cover Latin script: what else there is in a text shows as a box, and the page says so.
"""

from __future__ import annotations

import io
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, assert_never

import reportlab
from reportlab.graphics import shapes as paint
from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import (
    Flowable,
    KeepTogether,
    LongTable,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    TableStyle,
)

from modelyard_governance.cards.charts import GRID, INK, MUTED, Box, Drawing, Label, Line, Shape
from modelyard_governance.cards.page import Block, Chart, Fields, Heading, Page, Table

MEDIA_TYPE = "application/pdf"

_PLAIN, _BOLD = "Vera", "VeraBd"
_MARGIN = 18 * mm
_ROOM = A4[0] - 2 * _MARGIN - 12  # the padding of a frame
_CELL_LENGTH = 2_100
"""Characters of a cell that fit on a page; none of a valid card has more."""


@cache
def _styles() -> dict[str, ParagraphStyle]:
    """Return the styles, with their fonts made known to ReportLab."""
    fonts = Path(reportlab.__file__).parent / "fonts"
    for name in (_PLAIN, _BOLD):
        pdfmetrics.registerFont(TTFont(name, str(fonts / f"{name}.ttf")))
    text = ParagraphStyle(
        "text", fontName=_PLAIN, fontSize=8.5, leading=12, textColor=HexColor(INK), splitLongWords=1
    )
    return {
        "text": text,
        "muted": ParagraphStyle("muted", parent=text, textColor=HexColor(MUTED)),
        "title": ParagraphStyle("title", parent=text, fontName=_BOLD, fontSize=18, leading=24),
        "section": ParagraphStyle(
            "section", parent=text, fontName=_BOLD, fontSize=12, leading=16, spaceBefore=12, spaceAfter=5
        ),
        "heading": ParagraphStyle(
            "heading", parent=text, fontName=_BOLD, fontSize=9.5, leading=13, spaceBefore=8, spaceAfter=3
        ),
    }


def render(page: Page) -> bytes:
    """Return a page as a PDF document, paged A4."""
    story: list[Flowable] = list(_header(page))
    for section in page.sections:
        story.append(_paragraph(section.title, "section", keep=True))
        for block in section.blocks:
            story += _block(block)
    target = io.BytesIO()
    document = SimpleDocTemplate(
        target,
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        title=f"Model card: {page.version}",
        author="Modelyard",
        invariant=1,
    )

    def sign(canvas: Any, _document: Any) -> None:
        canvas.setFont(_PLAIN, 7)
        canvas.setFillColor(HexColor(MUTED))
        canvas.drawString(_MARGIN, 10 * mm, page.footer[:150])
        canvas.drawRightString(A4[0] - _MARGIN, 10 * mm, str(canvas.getPageNumber()))

    document.build(story, onFirstPage=sign, onLaterPages=sign)
    return target.getvalue()


def _header(page: Page) -> list[Flowable]:
    facts = [f"{page.risk} risk"] if page.risk else []
    facts.append(f"Complete: {page.completeness.fraction:.0%}")
    parts: list[Flowable] = [
        _paragraph(page.title, "title"),
        _paragraph(page.version, "muted"),
        Spacer(0, 4),
        _paragraph(" · ".join(facts), "text"),
    ]
    if page.description:
        parts += [Spacer(0, 6), _paragraph(page.description, "text")]
    if page.completeness.missing:
        missing = ", ".join(path.rpartition(".")[2].replace("_", " ") for path in page.completeness.missing)
        parts += [Spacer(0, 4), _paragraph(f"Not said: {missing}", "muted")]
    if _outside(page):
        note = "Some characters have no form in the font of this document; the card as HTML shows them."
        parts += [Spacer(0, 4), _paragraph(note, "muted")]
    return parts


def _outside(page: Page) -> bool:
    _styles()
    font: Any = pdfmetrics.getFont(_PLAIN)
    known = font.face.charToGlyph
    texts = [page.title, page.description]
    for section in page.sections:
        for block in section.blocks:
            match block:
                case Fields():
                    texts += [part for row in block.rows for part in row]
                case Table():
                    texts += [part for row in block.rows for part in row]
                case Chart() | Heading():
                    texts.append(block.text if isinstance(block, Heading) else block.title + block.notes)
                case _:
                    assert_never(block)
    return any(ord(character) not in known for text in texts for character in text if not character.isspace())


def _block(block: Block) -> list[Flowable]:
    match block:
        case Heading():
            return [_paragraph(block.text, "heading", keep=True)]
        case Fields():
            rows = [[_paragraph(name, "muted"), _paragraph(value, "text")] for name, value in block.rows]
            return [_table(rows, [_ROOM * 0.3, _ROOM * 0.7])]
        case Table():
            head = [_paragraph(name, "muted") for name in block.headings]
            rows = [[_paragraph(value, "text") for value in row] for row in block.rows]
            width = _ROOM / len(block.headings)
            table = _table([head, *rows], [width] * len(block.headings), repeat=1)
            return [_paragraph(block.title, "heading", keep=True), table]
        case Chart():
            parts: list[Flowable] = [_paragraph(block.title, "heading")]
            if block.notes:
                parts.append(_paragraph(block.notes, "muted"))
            return [KeepTogether([*parts, _drawing(block.drawing)])]
        case _:
            assert_never(block)


def _paragraph(text: str, style: str, *, keep: bool = False) -> Paragraph:
    chosen = _styles()[style]
    if keep:
        chosen = ParagraphStyle(f"{style}-kept", parent=chosen, keepWithNext=1)
    return Paragraph(escape(text[:_CELL_LENGTH]).replace("\n", "<br/>"), chosen)


def _table(rows: list[list[Any]], widths: list[float], *, repeat: int = 0) -> LongTable:
    style = TableStyle(
        [
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (-1, -1), 0),
            ("TOPPADDING", (0, 0), (-1, -1), 2),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
            ("LINEBELOW", (0, 0), (-1, -1), 0.4, HexColor(GRID)),
        ]
    )
    return LongTable(rows, colWidths=widths, repeatRows=repeat, style=style, splitInRow=1)


def _drawing(drawing: Drawing) -> paint.Drawing:
    scale = min(1.0, _ROOM / drawing.width) * 0.8
    made = paint.Drawing(drawing.width * scale, drawing.height * scale)
    group = paint.Group()
    for shape in drawing.shapes:
        group.add(_painted(shape, drawing.height))
    group.scale(scale, scale)
    made.add(group)
    return made


def _painted(shape: Shape, height: float) -> Any:
    """Return a shape as ReportLab has it, whose y grows upwards."""
    match shape:
        case Line():
            flat = [part for x, y in shape.points for part in (x, height - y)]
            return paint.PolyLine(flat, strokeColor=HexColor(shape.color), strokeWidth=shape.width)
        case Box():
            left, bottom = shape.x, height - shape.y - shape.height
            rectangle = paint.Rect(left, bottom, shape.width, shape.height)
            rectangle.fillColor, rectangle.strokeColor = HexColor(shape.color), None
            return rectangle
        case Label():
            if not shape.upward:
                return _string(shape, shape.x, height - shape.y)
            turned = paint.Group(_string(shape, 0, 0))
            turned.translate(shape.x, height - shape.y)
            turned.rotate(90)
            return turned
        case _:
            assert_never(shape)


def _string(label: Label, x: float, y: float) -> paint.String:
    return paint.String(
        x,
        y,
        label.text,
        textAnchor=label.anchor,
        fontName=_PLAIN,
        fontSize=label.size * 0.85,
        fillColor=HexColor(label.color),
    )
