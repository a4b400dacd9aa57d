"""Self-contained HTML pages: no scripts, nothing fetched, all text escaped, and readable on a phone's width."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from deixis.files import write_text

Case = tuple[str, Sequence[str], Sequence[tuple[str, Image.Image]]]
"""A sample: its phrase, notes on it, and its images by name."""
PICTURE_PX = 320
"""The longer side of a picture, at most."""
_QUALITY = 82
_SHOWN_CHARS = 300

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --pale: #57606a; --paper: #fff; --soft: #f3f5f8; --line: #d0d7de; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --pale: #9198a1; --paper: #0d1117; --soft: #161b22; --line: #3d444d; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
p { margin: .5rem 0; max-width: 46rem; }
.cards, .plots, .cases { display: grid; gap: .75rem; }
.cards { grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); }
.plots, .cases { grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
.card { background: var(--soft); border-radius: .5rem; padding: .5rem .75rem; }
.card b { display: block; font-size: 1.5rem; line-height: 1.3; }
.card span, figcaption, .note { color: var(--pale); font-size: .875rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap;
  font-weight: normal; }
thead th { font-weight: 600; }
th:first-child { text-align: left; }
figure { margin: 0; padding: .5rem; border: 1px solid var(--line); border-radius: .5rem; }
figure svg { display: block; width: 100%; height: auto; }
.pictures { display: grid; grid-template-columns: 1fr 1fr; gap: .4rem; align-items: start; }
.pictures div { font-size: .8rem; color: var(--pale); }
.pictures img { display: block; width: 100%; height: auto; }
figcaption strong { color: var(--ink); font-size: 1rem; }
"""


def page(title: str, body: Sequence[str]) -> str:
    """A whole page.

    Args:
        title: plain text.
        body: pieces of HTML, by the functions here.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return "\n".join([
        "<!DOCTYPE html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{text(title)}</title>", f"<style>{_STYLE}</style>", "</head>", "<body>",
        f"<h1>{text(title)}</h1>", *body, "</body>", "</html>", "",
    ])  # fmt: skip


def write_page(path: Path, title: str, body: Sequence[str]) -> None:
    """Write a page, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    write_text(path, page(title, body))


def text(value: str) -> str:
    """Any text as HTML shows it: no markup, no control characters, no endless line."""
    shown = value if len(value) <= _SHOWN_CHARS else f"{value[:_SHOWN_CHARS]}..."
    return html.escape("".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in shown))


def said(phrase: str) -> str:
    """A phrase, set off so that letters that run from right to left do not turn what stands beside it."""
    return f"<bdi>{text(phrase)}</bdi>"


def heading(title: str) -> str:
    """A heading of a part."""
    return f"<h2>{text(title)}</h2>"


def paragraph(sentence: str) -> str:
    """Plain text."""
    return f"<p>{text(sentence)}</p>"


def cards(values: Sequence[tuple[str, str, str]]) -> str:
    """(name, value, what stands below it) as large figures."""
    inner = (
        f'<div class="card">{text(name)}<b>{text(v)}</b><span>{text(note)}</span></div>' for name, v, note in values
    )
    return f'<div class="cards">{"".join(inner)}</div>'


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of plain text, the first of them the head; it scrolls for itself where it is too wide."""
    head = "".join(f'<th scope="col">{text(cell)}</th>' for cell in rows[0])
    body = "".join(
        f'<tr><th scope="row">{text(row[0])}</th>{"".join(f"<td>{text(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows[1:]
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def plot(svg: str, caption: str) -> str:
    """A drawing with words below it, which are also read out in its place."""
    named = svg.replace('role="img"', f'role="img" aria-label="{text(caption)}"', 1)
    return f"<figure>{named}<figcaption>{text(caption)}</figcaption></figure>"


def plots(figures: Sequence[str]) -> str:
    """Drawings side by side where there is room."""
    return f'<div class="plots">{"".join(figures)}</div>'


def case(phrase: str, notes: Sequence[str], pictures: Sequence[tuple[str, Image.Image]]) -> str:
    """A sample: its phrase, what is to be said of it, and its pictures by name."""
    shown = "".join(f"<div>{text(name)}{_img(one, name)}</div>" for name, one in pictures)
    told = "".join(f"<br>{text(note)}" for note in notes)
    caption = f"<figcaption><strong>{said(phrase)}</strong>{told}</figcaption>"
    return f'<figure><div class="pictures">{shown}</div>{caption}</figure>'


def cases(figures: Sequence[str]) -> str:
    """Samples side by side where there is room."""
    return f'<div class="cases">{"".join(figures)}</div>'


def _img(picture: Image.Image, name: str) -> str:
    small = picture.convert("RGB")
    small.thumbnail((PICTURE_PX, PICTURE_PX))
    written = io.BytesIO()
    small.save(written, format="JPEG", quality=_QUALITY)
    data = base64.b64encode(written.getvalue()).decode("ascii")
    size = f'width="{small.width}" height="{small.height}"'
    return f'<img {size} alt="{text(name)}" src="data:image/jpeg;base64,{data}">'
