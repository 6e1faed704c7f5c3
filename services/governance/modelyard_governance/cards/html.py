"""A page as HTML that needs nothing else: no script, no address, every text escaped. Pure."""

from __future__ import annotations

from html import escape
from typing import assert_never

from modelyard_governance.cards.charts import Box, Drawing, Label, Line, Shape
from modelyard_governance.cards.page import Block, Chart, Fields, Heading, Page, Section, Table

MEDIA_TYPE = "text/html; charset=utf-8"

_STYLE = """
:root { color-scheme: light; --ink: #1f2933; --muted: #52606d; --line: #e4e7eb; --accent: #2563a8; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f7fa; color: var(--ink); font: 15px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 48px; }
header, section { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 24px 28px; margin-bottom: 18px; }
h1 { margin: 0; font-size: 28px; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 0 0 14px; font-size: 18px; }
h3 { margin: 20px 0 8px; font-size: 15px; }
p, dd, td { white-space: pre-line; overflow-wrap: anywhere; }
.version { color: var(--muted); margin: 4px 0 0; }
.facts { display: flex; flex-wrap: wrap; gap: 10px 24px; align-items: center; margin-top: 16px; }
.badge { border-radius: 999px; padding: 3px 12px; font-size: 13px; font-weight: 600; background: #e4e7eb; }
.High { background: #fde2e1; color: #8f1d18; } .Medium { background: #fdf0d3; color: #7a4d05; }
.Low { background: #dcf3e4; color: #14603a; }
.bar { width: 160px; height: 8px; border-radius: 4px; background: #e4e7eb; overflow: hidden; display: inline-block; }
.bar span { display: block; height: 100%; background: var(--accent); }
.missing { color: var(--muted); font-size: 13px; margin: 12px 0 0; }
dl { display: grid; grid-template-columns: minmax(150px, 230px) 1fr; gap: 8px 20px; margin: 0; }
dt { color: var(--muted); overflow-wrap: anywhere; } dd { margin: 0; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 6px 10px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--muted); font-weight: 600; } td { font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 18px; margin-top: 14px; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 8px; padding: 14px; max-width: 560px; }
figcaption { font-weight: 600; margin-bottom: 8px; overflow-wrap: anywhere; }
figcaption small { display: block; font-weight: 400; color: var(--muted); white-space: pre-line; }
svg { width: 100%; height: auto; font-family: inherit; }
footer { color: var(--muted); font-size: 13px; }
@media print { body { background: #fff; } main { padding: 0; max-width: none; }
  header, section { border: 0; padding: 0 0 12px; } figure, tr { break-inside: avoid; } }
@media (max-width: 640px) { dl { grid-template-columns: 1fr; gap: 2px; } dd { margin-bottom: 10px; } }
"""


def render(page: Page) -> bytes:
    """Return a page as a whole document in UTF-8."""
    body = "".join(map(_section, page.sections))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>Model card: {escape(page.version)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{_header(page)}{body}<footer>{escape(page.footer)}</footer>\n</main>\n</body>\n</html>\n"
    ).encode()


def _header(page: Page) -> str:
    percent = f"{page.completeness.fraction:.0%}"
    risk = f'<span class="badge {escape(page.risk)}">{escape(page.risk)} risk</span>' if page.risk else ""
    missing = ", ".join(path.rpartition(".")[2].replace("_", " ") for path in page.completeness.missing)
    return (
        f'<header><h1>{escape(page.title)}</h1><p class="version">{escape(page.version)}</p>'
        + (f"<p>{escape(page.description)}</p>" if page.description else "")
        + f'<div class="facts">{risk}<span>Complete: {percent} '
        f'<span class="bar"><span style="width:{percent}"></span></span></span></div>'
        + (f'<p class="missing">Not said: {escape(missing)}</p>' if missing else "")
        + "</header>\n"
    )


def _section(section: Section) -> str:
    parts: list[str] = []
    drawn: list[Chart] = []
    for block in section.blocks:
        if isinstance(block, Chart):
            drawn.append(block)
            continue
        parts += [_charts(drawn), _block(block)]
        drawn = []
    return f"<section><h2>{escape(section.title)}</h2>{''.join(parts)}{_charts(drawn)}</section>\n"


def _charts(drawn: list[Chart]) -> str:
    figures = "".join(
        f"<figure><figcaption>{escape(chart.title)}"
        + (f"<small>{escape(chart.notes)}</small>" if chart.notes else "")
        + f"</figcaption>{svg(chart.drawing)}</figure>"
        for chart in drawn
    )
    return f'<div class="charts">{figures}</div>' if figures else ""


def _block(block: Block) -> str:
    match block:
        case Heading():
            return f"<h3>{escape(block.text)}</h3>"
        case Fields():
            rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in block.rows)
            return f"<dl>{rows}</dl>"
        case Table():
            head = "".join(f"<th>{escape(name)}</th>" for name in block.headings)
            body = "".join(
                "<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row) + "</tr>" for row in block.rows
            )
            return f"<h3>{escape(block.title)}</h3><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        case Chart():
            return _charts([block])
        case _:
            assert_never(block)


def svg(drawing: Drawing) -> str:
    """Return a drawing as an SVG element."""
    shapes = "".join(map(_shape, drawing.shapes))
    size = f"0 0 {drawing.width:g} {drawing.height:g}"
    return f'<svg viewBox="{size}" role="img" aria-label="{escape(drawing.description)}">{shapes}</svg>'


def _shape(shape: Shape) -> str:
    match shape:
        case Line():
            points = " ".join(f"{x:.2f},{y:.2f}" for x, y in shape.points)
            return f'<polyline points="{points}" fill="none" stroke="{shape.color}" stroke-width="{shape.width:g}"/>'
        case Box():
            place = (
                f'x="{shape.x:.2f}" y="{shape.y:.2f}" width="{shape.width:.2f}" height="{shape.height:.2f}"'
            )
            title = f"<title>{escape(shape.title)}</title>" if shape.title else ""
            return f'<rect {place} rx="1.5" fill="{shape.color}">{title}</rect>'
        case Label():
            turned = f' transform="rotate(-90 {shape.x:.2f} {shape.y:.2f})"' if shape.upward else ""
            place = f'x="{shape.x:.2f}" y="{shape.y:.2f}" text-anchor="{shape.anchor}"'
            return f'<text {place} font-size="{shape.size:g}" fill="{shape.color}"{turned}>{escape(shape.text)}</text>'
        case _:
            assert_never(shape)
