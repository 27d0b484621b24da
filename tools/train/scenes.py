"""Scene grammar: what the demo model's pictures may contain, and a sampler of laid-out scenes.

Lengths are in units of the picture's shorter side; x grows to the right, y grows downwards and the
origin is the picture's centre. `radius` is half of an object's nominal size (see SIZES).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

# Every shape's silhouette is given for radius 1 in render.py; this is its bounding radius there.
SHAPES = {
    "circle": 1.00,
    "square": 1.25,
    "triangle": 1.25,
    "star": 1.25,
    "heart": 1.20,
    "cross": 1.10,
    "ring": 1.08,
    "diamond": 1.20,
}
SHAPE_IDS = {name: index for index, name in enumerate(SHAPES)}

COLOURS = {
    "red": (215, 35, 40),
    "orange": (245, 135, 25),
    "yellow": (245, 220, 45),
    "green": (40, 160, 65),
    "cyan": (40, 205, 220),
    "blue": (40, 80, 220),
    "purple": (130, 55, 185),
    "pink": (248, 130, 190),
    "white": (246, 246, 246),
    "black": (22, 22, 25),
}

# Range of an object's diameter as a fraction of the shorter side.
SIZES = {"small": (0.18, 0.22), "medium": (0.28, 0.34), "large": (0.42, 0.50)}

RELATIONS = ("left of", "right of", "above", "below", "inside", "overlapping")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
# Shapes roomy enough to hold a small object.
CONTAINERS = ("circle", "square", "triangle", "heart", "ring")

# Muted mid tones: no object colour is near them, whatever the light.
BACKGROUNDS = {
    "grey": (124, 124, 126),
    "beige": (150, 141, 122),
    "slate": (100, 112, 126),
    "sage": (118, 132, 116),
    "mauve": (134, 118, 130),
}
BACKGROUND_KINDS = ("plain", "gradient", "striped", "checkered", "speckled")

# Never drawn in training: one colour of every shape ...
HELD_OUT_PAIRS = {
    ("circle", "purple"),
    ("square", "orange"),
    ("triangle", "cyan"),
    ("star", "green"),
    ("heart", "blue"),
    ("cross", "pink"),
    ("ring", "red"),
    ("diamond", "yellow"),
}
# ... and these subject, relation, object combinations, in either wording (left of and right of).
_HELD_OUT_COMBINATIONS = {
    ("star", "left of", "ring"),
    ("heart", "left of", "square"),
    ("circle", "left of", "cross"),
    ("triangle", "left of", "diamond"),
    ("square", "above", "star"),
    ("ring", "above", "triangle"),
    ("cross", "above", "heart"),
    ("diamond", "above", "circle"),
    ("star", "inside", "circle"),
    ("heart", "inside", "ring"),
    ("diamond", "inside", "square"),
    ("circle", "overlapping", "star"),
    ("cross", "overlapping", "square"),
    ("triangle", "overlapping", "heart"),
}
HELD_OUT_RELATIONS = _HELD_OUT_COMBINATIONS | {
    (b, OPPOSITE[relation], a) for a, relation, b in _HELD_OUT_COMBINATIONS if relation in OPPOSITE
}

_GAP = 0.025  # least distance between the bounding circles of separate objects
_EDGE = 0.02  # least distance between a bounding circle and the picture's edge


@dataclass
class Object:
    shape: str
    colour: str
    size: str
    radius: float = 0.0
    x: float = 0.0
    y: float = 0.0
    angle: float = 0.0

    @property
    def reach(self) -> float:
        return self.radius * SHAPES[self.shape]


@dataclass
class Scene:
    """Objects in drawing order; relations as (subject index, relation, object index)."""

    objects: list[Object]
    relations: list[tuple[int, str, int]]
    background: str
    background_kind: str
    draw_order: list[int] = field(default_factory=list)
    style: list[float] = field(default_factory=list)  # uniform numbers that render.py turns into light, texture, noise


def held_out_pairs(objects: list[Object]) -> bool:
    return any((o.shape, o.colour) in HELD_OUT_PAIRS for o in objects)


def held_out_relations(objects: list[Object], relations: list[tuple[int, str, int]]) -> bool:
    return any((objects[a].shape, r, objects[b].shape) in HELD_OUT_RELATIONS for a, r, b in relations)


def _choose_objects(rng: random.Random, count: int) -> list[Object]:
    """Objects that differ pairwise in shape or colour, so that a caption names each unambiguously."""
    shapes, colours, sizes = list(SHAPES), list(COLOURS), list(SIZES)
    chosen: list[Object] = []
    while len(chosen) < count:
        candidate = Object(rng.choice(shapes), rng.choice(colours), rng.choice(sizes))
        if all((candidate.shape, candidate.colour) != (o.shape, o.colour) for o in chosen):
            chosen.append(candidate)
    return chosen


def _choose_relations(rng: random.Random, count: int, share: float) -> list[tuple[int, str, int]]:
    if count == 1 or rng.random() >= share:
        return []
    relations = [(0, rng.choice(RELATIONS), 1)]
    if count == 3 and rng.random() < 0.5:
        # At most one of the two relations joins silhouettes: three stacked objects hide each other.
        relations.append((2, rng.choice(RELATIONS[:4]), rng.randrange(2) if relations[0][1] in OPPOSITE else 1))
    return relations


def _compatible(objects: list[Object], relations: list[tuple[int, str, int]]) -> bool:
    for a, relation, b in relations:
        if relation in OPPOSITE:
            continue
        if objects[a].colour == objects[b].colour:
            return False
        if relation == "inside" and objects[b].shape not in CONTAINERS:
            return False
    return True


def _offset(rng: random.Random, a: Object, relation: str, b: Object) -> tuple[float, float]:
    """Where a's centre lies, seen from b's."""
    if relation == "inside":
        # Heart and triangle: the roomiest point is not the origin.
        down = {"heart": -0.12, "triangle": 0.0}.get(b.shape, 0.0) * b.radius
        return rng.uniform(-0.01, 0.01), down + rng.uniform(-0.01, 0.01)
    if relation == "overlapping":
        distance = (a.radius + b.radius) * rng.uniform(0.50, 0.72)
        direction = rng.uniform(0, 2 * math.pi)
        return distance * math.cos(direction), distance * math.sin(direction)
    along = a.reach + b.reach + rng.uniform(_GAP, 0.22)
    across = rng.uniform(-0.45, 0.45) * along
    return {
        "left of": (-along, across),
        "right of": (along, across),
        "above": (across, -along),
        "below": (across, along),
    }[relation]


def _apart(a: Object, b: Object) -> bool:
    return math.hypot(a.x - b.x, a.y - b.y) >= a.reach + b.reach + _GAP


def _layout(rng: random.Random, scene: Scene, half_width: float, half_height: float) -> bool:
    """Sizes and places the objects; False if this draw does not fit."""
    objects = scene.objects
    for o in objects:
        o.radius = 0.5 * rng.uniform(*SIZES[o.size])
        o.angle = rng.uniform(-0.15, 0.15)
    cluster = sorted({i for a, _, b in scene.relations for i in (a, b)})
    if cluster:
        first = objects[scene.relations[0][2]]
        first.x = first.y = 0.0
        for a, relation, b in scene.relations:
            dx, dy = _offset(rng, objects[a], relation, objects[b])
            objects[a].x, objects[a].y = objects[b].x + dx, objects[b].y + dy
        left = min(objects[i].x - objects[i].reach for i in cluster)
        right = max(objects[i].x + objects[i].reach for i in cluster)
        top = min(objects[i].y - objects[i].reach for i in cluster)
        bottom = max(objects[i].y + objects[i].reach for i in cluster)
        spare_x = 2 * (half_width - _EDGE) - (right - left)
        spare_y = 2 * (half_height - _EDGE) - (bottom - top)
        if spare_x < 0 or spare_y < 0:
            return False
        move_x = -half_width + _EDGE - left + rng.random() * spare_x
        move_y = -half_height + _EDGE - top + rng.random() * spare_y
        for i in cluster:
            objects[i].x += move_x
            objects[i].y += move_y
    touching = {frozenset((a, b)) for a, r, b in scene.relations if r not in OPPOSITE}
    placed = list(cluster)
    for i, o in enumerate(objects):
        if i in cluster:
            continue
        room_x, room_y = half_width - _EDGE - o.reach, half_height - _EDGE - o.reach
        if room_x < 0 or room_y < 0:
            return False
        for _ in range(12):
            o.x, o.y = rng.uniform(-room_x, room_x), rng.uniform(-room_y, room_y)
            if all(_apart(o, objects[j]) for j in placed):
                break
        else:
            return False
        placed.append(i)
    return all(
        frozenset((i, j)) in touching or _apart(objects[i], objects[j])
        for i in range(len(objects))
        for j in range(i)
    )


def _fix_sizes(objects: list[Object], relations: list[tuple[int, str, int]]) -> None:
    for a, relation, b in relations:
        if relation == "inside":
            objects[a].size, objects[b].size = "small", "large"
        elif relation == "overlapping":
            # The nearer object must not hide the other.
            order = list(SIZES)
            if order.index(objects[a].size) > order.index(objects[b].size):
                objects[a].size, objects[b].size = objects[b].size, objects[a].size


def finish_scene(
    rng: random.Random,
    objects: list[Object],
    relations: list[tuple[int, str, int]],
    aspect: tuple[float, float],
) -> Scene | None:
    """Lays out given objects and relations. None if they cannot be drawn together."""
    if not _compatible(objects, relations):
        return None
    _fix_sizes(objects, relations)
    scene = Scene(
        objects,
        relations,
        rng.choice(list(BACKGROUNDS)),
        rng.choice(BACKGROUND_KINDS),
        style=[rng.random() for _ in range(16)],
    )
    for _ in range(12):
        if _layout(rng, scene, 0.5 * aspect[0], 0.5 * aspect[1]):
            break
        flexible = [o for i, o in enumerate(objects) if o.size == "large" and not _holds(i, relations)]
        if flexible and rng.random() < 0.4:
            flexible[0].size = "medium"
    else:
        return None
    above = {a for a, r, _ in relations if r in ("inside", "overlapping")}
    scene.draw_order = sorted(range(len(objects)), key=lambda i: (i in above, i))
    return scene


def _holds(index: int, relations: list[tuple[int, str, int]]) -> bool:
    return any(r == "inside" and b == index for _, r, b in relations)


def sample_scene(
    rng: random.Random,
    aspect: tuple[float, float] = (1.0, 1.0),
    counts: tuple[float, float, float] = (0.25, 0.37, 0.38),
    relation_share: float = 0.65,
) -> Scene:
    """A training scene: never one of the held-out combinations."""
    while True:
        count = rng.choices((1, 2, 3), counts)[0]
        relations = _choose_relations(rng, count, relation_share)
        # Objects are redrawn under fixed relations, so that no relation is rarer for being harder to fit.
        for _ in range(30):
            objects = _choose_objects(rng, count)
            if held_out_pairs(objects) or held_out_relations(objects, relations):
                continue
            scene = finish_scene(rng, objects, relations, aspect)
            if scene is not None:
                return scene
