"""A page of samples that stands alone: pictures inside, nothing loaded, nothing run."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import IO

from PIL import Image

from deixis.structures import Sample

PICTURE_PX = 480
"""The longer side of a picture of the page, at most."""
_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.4 sans-serif; margin: 1.5em; color: #222; background: #fff; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(20em, 1fr)); gap: 1.5em; }}
figure {{ margin: 0; }}
img {{ max-width: 100%; height: auto; }}
figcaption {{ overflow-wrap: anywhere; }}
dl {{ display: grid; grid-template-columns: auto 1fr; gap: 0 .7em; margin: .3em 0; font-size: 85%; color: #555; }}
dd {{ margin: 0; }}
</style>
</head>
<body>
<h1>{title}</h1>
<main>
"""
_TAIL = "</main>\n</body>\n</html>\n"


@dataclass(frozen=True, kw_only=True)
class Card:
    """A picture with what is said of it; ``facts`` are names and values."""

    picture: Image.Image
    phrase: str
    facts: tuple[tuple[str, str], ...] = ()


def facts_of(sample: Sample) -> tuple[tuple[str, str], ...]:
    """What a card says of a sample beside its phrase; what the data does not say is left out."""
    box = sample.box_xyxy_px
    stated = {
        "id": sample.id,
        "image": sample.image_id,
        "split": sample.split,
        "category": sample.category,
        "kind": sample.kind,
        "box": "nothing is meant" if box is None else ", ".join(f"{value:.1f}" for value in box),
        "mask": "none" if sample.mask is None and box is not None else None,
    }
    return tuple((name, value) for name, value in stated.items() if value)


def write_page(file: IO[bytes], title: str, cards: Iterable[Card]) -> int:
    """Write the page, a card at a time.

    Returns:
        How many cards there were.
    """
    count = 0
    file.write(_HEAD.format(title=_text(title)).encode("utf-8"))
    for card in cards:
        file.write(_figure(card).encode("utf-8"))
        count += 1
    file.write(_TAIL.encode("utf-8"))
    return count


def _figure(card: Card) -> str:
    facts = "".join(f"<dt>{_text(name)}</dt><dd><bdi>{_text(value)}</bdi></dd>" for name, value in card.facts)
    phrase, picture = _text(card.phrase), _data_uri(card.picture)
    return (
        f'<figure><img src="{picture}" alt="{phrase}">\n'
        f"<figcaption><bdi>{phrase}</bdi><dl>{facts}</dl></figcaption></figure>\n"
    )


def _text(value: str) -> str:
    return escape(value.encode("utf-8", "replace").decode("utf-8"))


def _data_uri(picture: Image.Image) -> str:
    small = picture.convert("RGB")
    small.thumbnail((PICTURE_PX, PICTURE_PX))
    encoded = io.BytesIO()
    small.save(encoded, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")
