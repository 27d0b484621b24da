"""Batched drawing of scenes with implicit functions: anti-aliased, lit, slightly noisy.

A shape is the set where its function of (x, y), in units of the object's radius, is negative. Near
the boundary the function is the distance to it, so it also gives the edge's coverage of a pixel.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from scenes import BACKGROUND_KINDS, BACKGROUNDS, COLOURS, SHAPE_IDS, SHAPES, Scene

MAX_OBJECTS = 3
OBJECT_FIELDS = 9  # present, shape, x, y, radius, angle, red, green, blue
SCENE_FIELDS = 22  # background rgb, second background rgb, kind, style (15)

SQUARE_HALF_SIDE = 0.88
TRIANGLE_INRADIUS = 0.62
STAR_OUTER, STAR_INNER = 1.22, 0.52
CROSS_LENGTH, CROSS_HALF_WIDTH = 1.02, 0.36
RING_RADIUS, RING_HALF_WIDTH = 0.83, 0.23
DIAMOND_HALF_WIDTH, DIAMOND_HALF_HEIGHT = 0.66, 1.18
HEART_SIDE = 0.60  # half side of the tilted square and radius of the two lobes on its upper sides


def pack_scene(scene: Scene) -> np.ndarray:
    """The scene as one row of float32: SCENE_FIELDS, then MAX_OBJECTS x OBJECT_FIELDS in drawing order."""
    row = np.zeros(SCENE_FIELDS + MAX_OBJECTS * OBJECT_FIELDS, np.float32)
    style = scene.style
    base = np.array(BACKGROUNDS[scene.background], np.float32) / 255
    row[0:3] = base + 0.05 * (style[0] - 0.5)
    # A gradient runs between a darker and a lighter tone of the same colour.
    swing = 0.06 + 0.10 * style[1]
    row[3:6] = row[0:3] + (swing if style[2] < 0.5 else -swing)
    row[6] = BACKGROUND_KINDS.index(scene.background_kind)
    row[7:SCENE_FIELDS] = style[1:16]
    for slot, index in enumerate(scene.draw_order):
        o = scene.objects[index]
        start = SCENE_FIELDS + slot * OBJECT_FIELDS
        colour = np.array(COLOURS[o.colour], np.float32) / 255
        row[start : start + OBJECT_FIELDS] = (
            1, SHAPE_IDS[o.shape], o.x, o.y, o.radius, o.angle, *colour,
        )  # fmt: skip
    return row


def _circle(x, y):
    return torch.sqrt(x * x + y * y + 1e-12) - 1


def _square(x, y):
    return torch.maximum(x.abs(), y.abs()) - SQUARE_HALF_SIDE


def _triangle(x, y):
    side = 0.5 * math.sqrt(3) * x.abs() - 0.5 * y
    return torch.maximum(side, y) - TRIANGLE_INRADIUS


def _star(x, y):
    # Folded into one half point, whose edge is the line from the tip (angle 0) to the notch (angle 36).
    angle = torch.atan2(x, -y)
    fold = (torch.remainder(angle + math.pi / 5, 2 * math.pi / 5) - math.pi / 5).abs()
    length = torch.sqrt(x * x + y * y + 1e-12)
    px, py = length * torch.cos(fold), length * torch.sin(fold)
    notch_x = STAR_INNER * math.cos(math.pi / 5)
    notch_y = STAR_INNER * math.sin(math.pi / 5)
    edge_x, edge_y = notch_x - STAR_OUTER, notch_y
    norm = math.hypot(edge_x, edge_y)
    return ((px - STAR_OUTER) * edge_y - py * edge_x) / norm


def _heart(x, y):
    # A square on its corner under two lobes centred on its upper sides.
    s = HEART_SIDE
    ax, yy = x.abs(), y - 0.12
    square = (torch.maximum((x + yy).abs(), (x - yy).abs())) / math.sqrt(2) - s
    centre = s / math.sqrt(2)
    lobes = torch.sqrt((ax - centre) ** 2 + (yy + centre) ** 2 + 1e-12) - s
    return torch.minimum(square, lobes)


def _cross(x, y):
    ax, ay = x.abs(), y.abs()
    across = torch.maximum(ax - CROSS_LENGTH, ay - CROSS_HALF_WIDTH)
    down = torch.maximum(ay - CROSS_LENGTH, ax - CROSS_HALF_WIDTH)
    return torch.minimum(across, down)


def _ring(x, y):
    return (torch.sqrt(x * x + y * y + 1e-12) - RING_RADIUS).abs() - RING_HALF_WIDTH


def _diamond(x, y):
    a, b = DIAMOND_HALF_WIDTH, DIAMOND_HALF_HEIGHT
    return (x.abs() / a + y.abs() / b - 1) * (a * b / math.hypot(a, b))


SHAPE_FUNCTIONS = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "ring": _ring,
    "diamond": _diamond,
}
assert list(SHAPE_FUNCTIONS) == list(SHAPES)


def shape_distance(shape: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Signed distance in radii of shape ids [B, 1, 1] at points [B, H, W]."""
    out = _circle(x, y)
    for index, function in enumerate(SHAPE_FUNCTIONS.values()):
        if index:
            out = torch.where(shape == index, function(x, y), out)
    return out


def _texture(style: torch.Tensor, kind: torch.Tensor, x, y):
    """Relative brightness of the background, [B, H, W]."""
    angle = 2 * math.pi * style[:, 2].view(-1, 1, 1)
    frequency = (5 + 9 * style[:, 3].view(-1, 1, 1)) * 2 * math.pi
    strength = 0.05 + 0.06 * style[:, 4].view(-1, 1, 1)
    u = x * torch.cos(angle) + y * torch.sin(angle)
    v = y * torch.cos(angle) - x * torch.sin(angle)
    phase = 2 * math.pi * style[:, 5].view(-1, 1, 1)
    wave_u = torch.tanh(3 * torch.sin(frequency * u + phase))
    wave_v = torch.tanh(3 * torch.sin(frequency * v + phase))
    speckle = sum(
        torch.sin(f * (x * math.cos(a) + y * math.sin(a)) + 2 * math.pi * (k + 1) * phase)
        for k, (f, a) in enumerate(((31.0, 0.4), (43.0, 1.7), (57.0, 2.6), (37.0, 3.9), (71.0, 5.1)))
    )
    zero = torch.zeros_like(u)
    amount = torch.where(kind == 2, wave_u, torch.where(kind == 3, wave_u * wave_v, zero))
    amount = torch.where(kind == 4, 0.4 * speckle, amount)
    return 1 + strength * amount


def render(
    packed: torch.Tensor, height: int, width: int, scale: torch.Tensor, origin: torch.Tensor
) -> torch.Tensor:
    """Draws packed scenes [B, *] to noise-free pictures [B, 3, height, width] in [-1, 1].

    scale [B]: pixels per unit of length (the shorter side's pixels for a whole picture).
    origin [B, 2]: the scene's (x, y) at the middle of the drawn window; zero for a whole picture.
    """
    batch = packed.shape[0]
    device = packed.device
    pixels = scale.view(-1, 1, 1)
    columns = (torch.arange(width, device=device) + 0.5 - width / 2).view(1, 1, -1)
    rows = (torch.arange(height, device=device) + 0.5 - height / 2).view(1, -1, 1)
    x = columns / pixels + origin[:, 0].view(-1, 1, 1) + torch.zeros_like(rows)
    y = rows / pixels + origin[:, 1].view(-1, 1, 1) + torch.zeros_like(columns)

    style = packed[:, 6:SCENE_FIELDS]
    kind = packed[:, 6].view(-1, 1, 1)
    first = packed[:, 0:3].view(batch, 3, 1, 1)
    second = packed[:, 3:6].view(batch, 3, 1, 1)
    tilt = 2 * math.pi * style[:, 6].view(-1, 1, 1)
    ramp = (0.5 + 0.9 * (x * torch.cos(tilt) + y * torch.sin(tilt))).clamp(0, 1)
    ramp = torch.where(kind == 1, ramp, torch.zeros_like(ramp)).unsqueeze(1)
    picture = (first + ramp * (second - first)) * _texture(style, kind, x, y).unsqueeze(1)

    # The light comes from above, from the left or the right.
    light = math.pi * (-0.75 + 0.5 * style[:, 7].view(-1, 1, 1))
    light_x, light_y = torch.cos(light), torch.sin(light)
    for slot in range(MAX_OBJECTS):
        start = SCENE_FIELDS + slot * OBJECT_FIELDS
        present, shape, cx, cy, radius, angle = (packed[:, start + k].view(-1, 1, 1) for k in range(6))
        colour = packed[:, start + 6 : start + 9].view(batch, 3, 1, 1)
        radius = radius.clamp(min=1e-3)
        dx, dy = (x - cx) / radius, (y - cy) / radius
        cos, sin = torch.cos(angle), torch.sin(angle)
        distance = shape_distance(shape, dx * cos + dy * sin, dy * cos - dx * sin)
        sx, sy = dx + 0.14 * light_x, dy + 0.14 * light_y
        shadow = shape_distance(shape, sx * cos + sy * sin, sy * cos - sx * sin)
        shadow = present * 0.28 * (0.5 - shadow / 0.22).clamp(0, 1)
        picture = picture * (1 - shadow.unsqueeze(1))
        cover = present * (0.5 - distance * radius * pixels).clamp(0, 1)
        facing = dx * light_x + dy * light_y
        rim = torch.exp(-((distance / 0.10) ** 2)) * torch.tanh(2 * facing)
        shade = (0.97 + 0.07 * facing.clamp(-1.2, 1.2) + 0.07 * rim).unsqueeze(1)
        # Black objects need some light added, or they would show no relief.
        lit = colour * shade + 0.03 * (facing.clamp(-1, 1).unsqueeze(1) + 1)
        picture = picture + cover.unsqueeze(1) * (lit - picture)
    return picture.clamp(0, 1) * 2 - 1


def add_noise(pictures: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
    """Film grain of 0.4 to 1.2 % of the full range, per picture."""
    level = 2 * (0.004 + 0.008 * packed[:, 15].view(-1, 1, 1, 1))
    return (pictures + level * torch.randn_like(pictures)).clamp(-1, 1)
