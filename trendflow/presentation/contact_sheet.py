"""Contact sheets: a row of frames with time stamps and boxes, as one small JPEG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trendflow.presentation.formatting import clock
from trendflow.presentation.thumbnails import jpeg_within

COLUMNS = 5
CELL_LONG_SIDE = 256
CAPTION = 18
_GAP = 4
_QUALITIES = (80, 68, 56, 44, 32, 20)


@dataclass(frozen=True)
class Mark:
    """A box on a frame; corners x1, y1, x2, y2 in shares of the frame."""

    corners: Sequence[float]
    label: str
    color: str


def contact_sheet(
    frames: np.ndarray, times: Sequence[float], marks: Sequence[Sequence[Mark]] = (), max_bytes: int = 150_000
) -> bytes:
    """Frames uint8 `[n, H, W, 3]` RGB with their times below, at most `COLUMNS` in a row.

    `marks` holds the boxes of each frame. The JPEG quality falls until the sheet fits `max_bytes`.
    """
    height, width = frames.shape[1:3]
    scale = min(1.0, CELL_LONG_SIDE / max(width, height))
    cell = (max(1, round(width * scale)), max(1, round(height * scale)))
    columns = min(COLUMNS, len(frames))
    rows = math.ceil(len(frames) / columns)
    sheet = Image.new(
        "RGB",
        (columns * (cell[0] + _GAP) - _GAP, rows * (cell[1] + CAPTION + _GAP) - _GAP),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for k, (frame, time) in enumerate(zip(frames, times, strict=True)):
        left, top = (k % columns) * (cell[0] + _GAP), (k // columns) * (cell[1] + CAPTION + _GAP)
        sheet.paste(Image.fromarray(frame, "RGB").resize(cell, Image.Resampling.LANCZOS), (left, top))
        for mark in marks[k] if marks else ():
            _draw_mark(draw, mark, (left, top), cell, font)
        draw.text((left + cell[0] / 2, top + cell[1] + 2), clock(time, 1), fill="#444c5a", font=font, anchor="ma")
    return jpeg_within(sheet, max_bytes, _QUALITIES)


def _draw_mark(
    draw: ImageDraw.ImageDraw,
    mark: Mark,
    origin: tuple[int, int],
    cell: tuple[int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    x1, y1, x2, y2 = (min(1.0, max(0.0, float(value))) for value in mark.corners)
    box = (
        origin[0] + x1 * (cell[0] - 1),
        origin[1] + y1 * (cell[1] - 1),
        origin[0] + x2 * (cell[0] - 1),
        origin[1] + y2 * (cell[1] - 1),
    )
    draw.rectangle(box, outline=mark.color, width=2)
    if mark.label:
        place = (box[0] + 3, box[1] + 1)
        draw.rectangle(draw.textbbox(place, mark.label, font=font), fill=mark.color)
        draw.text(place, mark.label, fill="black", font=font)
