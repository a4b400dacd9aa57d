"""What a drawn scene holds: things as they are laid out, and the facts about them that can be seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from deixis.structures import BoxXyxy


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One thing to draw. Lengths are fractions of the image's side; a list of things goes from back to front."""

    shape: str
    colour: str
    size: str
    texture: str
    x: float
    y: float
    radius: float
    """Half the square root of the area of the box around the unturned shape."""
    angle: float = 0.0
    """Radians, clockwise on the screen."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What can be seen of one thing: all that a phrase may speak of. Boxes are fractions of the image's side."""

    shape: str
    colour: str
    size: str
    texture: str
    extent: float
    """Twice the radius of the whole thing, also where it is partly hidden."""
    box_xyxy_norm: BoxXyxy
    """The box of the visible pixels."""
    outline_xyxy_norm: BoxXyxy
    """The box of the whole thing, hidden parts included."""
    hidden_by: Mapping[int, float] = field(default_factory=dict)
    """Index of a thing in front -> the fraction of this thing's pixels that it covers; only fractions above 0."""

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) of the visible box's centre, fractions of the image's side."""
        x1, y1, x2, y2 = self.box_xyxy_norm
        return (x1 + x2) / 2, (y1 + y2) / 2
