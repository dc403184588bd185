"""Procedurally drawn scenes: one to five shapes of one kind and one colour on a dark ground.

Drawn at four times the size and reduced, so that edges are smooth. A scene is a function of its random stream
alone.
"""

import math
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from stages.demonstration import questions
from stages.demonstration.questions import Question

Point = tuple[float, float]
_OVERSAMPLING = 4
_RGB = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 220, 50),
    "purple": (160, 50, 190),
    "white": (240, 240, 240),
    "orange": (245, 140, 30),
    "cyan": (60, 210, 220),
}
_CELLS = [(row, column) for row in range(3) for column in range(3)]
_PLACE_OF_CELL = {(1, 0): "left", (1, 2): "right", (0, 1): "top", (2, 1): "bottom"}


@dataclass(frozen=True)
class Scene:
    """What is drawn: ``cells`` of a 3 x 3 grid, each holding one shape."""

    shape: str
    colour: str
    cells: tuple[tuple[int, int], ...]

    def ask(self, random: Random) -> list[Question]:
        """Ask for shape, colour and count, one yes-or-no question, and the position of a lone shape."""
        presence = questions.ask_presence(self.shape, random)
        colour_check = questions.ask_colour_check(self.colour, random)
        asked = [
            questions.ask_shape(self.shape, random),
            questions.ask_colour(self.colour, random),
            questions.ask_count(len(self.cells), random),
            random.choice((presence, colour_check)),
        ]
        place = _PLACE_OF_CELL.get(self.cells[0])
        if len(self.cells) == 1 and place is not None:
            asked.append(questions.ask_position(self.shape, place, random))
        return asked


def imagine(random: Random) -> Scene:
    """Think of a scene: in half of the cases one shape at a side or the centre, else two to five."""
    shape, colour = random.choice(questions.SHAPES), random.choice(questions.COLOURS)
    if random.random() < 0.5:
        return Scene(shape, colour, (random.choice([*_PLACE_OF_CELL, (1, 1)]),))
    return Scene(shape, colour, tuple(sorted(random.sample(_CELLS, random.randint(2, 5)))))


def draw(scene: Scene, size: int, random: Random) -> Image.Image:
    """Draw the scene, ``size`` x ``size`` pixels in RGB, with jittered centres, sizes and tones."""
    canvas = size * _OVERSAMPLING
    ground = tuple(random.randint(0, 40) for _ in range(3))
    image = Image.new("RGB", (canvas, canvas), ground)
    pen = ImageDraw.Draw(image)
    tone = random.uniform(0.8, 1.0)
    fill = tuple(int(channel * tone) for channel in _RGB[scene.colour])
    cell = canvas / 3
    largest = 0.75 if len(scene.cells) == 1 else 0.46
    for row, column in scene.cells:
        radius = cell * random.uniform(0.34, largest)
        centre_x = (column + 0.5) * cell + random.uniform(-0.06, 0.06) * cell
        centre_y = (row + 0.5) * cell + random.uniform(-0.06, 0.06) * cell
        _draw_shape(pen, scene.shape, (centre_x, centre_y), radius, fill, random.uniform(-0.2, 0.2))
    return image.resize((size, size), Image.Resampling.BOX)


def _draw_shape(
    pen: ImageDraw.ImageDraw, shape: str, centre: Point, radius: float, fill: tuple[int, ...], turn: float
) -> None:
    x, y = centre
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        pen.ellipse(box, fill=fill)
    elif shape == "ring":
        pen.ellipse(box, outline=fill, width=max(4, int(radius * 0.35)))
    else:
        for outline in _outlines(shape):
            pen.polygon([_place(point, centre, radius, turn) for point in outline], fill=fill)


def _outlines(shape: str) -> list[list[Point]]:
    """Return the polygons of a shape in a disc of radius one, y downwards."""
    upright = [(-0.28, -1.0), (0.28, -1.0), (0.28, 1.0), (-0.28, 1.0)]
    if shape == "cross":
        return [upright, [(y, x) for x, y in upright]]
    if shape == "star":
        corners = [(angle * math.pi / 5 - math.pi / 2, 0.42 if angle % 2 else 1.0) for angle in range(10)]
        return [[(radius * math.cos(angle), radius * math.sin(angle)) for angle, radius in corners]]
    return {
        "square": [[(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]],
        "triangle": [[(0.0, -1.0), (0.9, 0.7), (-0.9, 0.7)]],
        "bar": [[(-1.0, -0.28), (1.0, -0.28), (1.0, 0.28), (-1.0, 0.28)]],
        "diamond": [[(0.0, -1.0), (0.65, 0.0), (0.0, 1.0), (-0.65, 0.0)]],
    }[shape]


def _place(point: Point, centre: Point, radius: float, turn: float) -> Point:
    x, y = point
    cosine, sine = math.cos(turn), math.sin(turn)
    return centre[0] + radius * (x * cosine - y * sine), centre[1] + radius * (x * sine + y * cosine)
