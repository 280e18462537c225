"""Ray tracing of a room with a floor, four walls and a solid on the floor: where rays end, and the light there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.floating[Any]]

SHAPES = ("cube", "cylinder", "sphere", "capsule")
FLOOR, WALL, OBJECT = 0, 1, 2
ROOM = 3.1  # half the room's width
HEIGHT = 0.62  # of an object of scale 1, from its centre to the floor
RAYS = 3  # per side of a pixel
_EYE = np.array([0.0, 2.35, 5.6], np.float32)
_TARGET = np.array([0.0, 0.66, 0.0], np.float32)
_FIELD = 0.34  # half the picture's side at distance 1
_LAMP = np.array([1.7, 4.6, 2.6], np.float32)
_AMBIENT, _DIFFUSE, _HIGHLIGHT, _SHARPNESS = 0.5, 0.5, 0.45, 40.0
_SOFT = 4  # lamp positions per side, for soft shadows
_LAMP_SIZE = 0.55
_FAR = np.float32(1e9)
_NEAR = np.float32(1e-3)


@dataclass(frozen=True)
class Seen:
    """What the pixels show, without colours.

    Attributes:
        light: (4, pixels) factors of the colours of floor, wall and object, and of the white that is added.
        part: (pixels,) the part (floor, wall or object) that covers most of the pixel.
    """

    light: Floats
    part: npt.NDArray[np.uint8]


def see(shape: int, scale: float, angle: float, size: int) -> Seen:
    """Trace one geometry: number of the shape, scale, and angle in degrees of the camera around the room."""
    eye, rays = _camera(angle, size)
    solid = _Solid(SHAPES[shape], np.float32(HEIGHT * scale))
    depth, normal, part = _first_hits(eye, rays, solid)
    points = eye + depth[:, None] * rays
    light, white = _shade(points, normal, part, eye, solid)
    rows = np.stack([np.where(part == k, light, 0) for k in (FLOOR, WALL, OBJECT)] + [white]).astype(np.float32)
    shares = np.stack([_pixels((part == k).astype(np.float32), size) for k in (FLOOR, WALL, OBJECT)])
    return Seen(np.stack([_pixels(row, size) for row in rows]), shares.argmax(axis=0).astype(np.uint8))


def _pixels(values: Floats, size: int) -> Floats:
    """The mean over each pixel's rays."""
    blocks = values.reshape(size, RAYS, size, RAYS)
    means: Floats = blocks.mean(axis=(1, 3), dtype=np.float32).reshape(-1)
    return means


def _camera(angle: float, size: int) -> tuple[Floats, Floats]:
    """The eye, and the unit rays (rays, 3) of a square picture, row by row."""
    turn = np.deg2rad(np.float32(angle))
    cos, sin = np.cos(turn), np.sin(turn)
    turned = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]], np.float32)
    eye = turned @ _EYE
    forward = _unit(_TARGET - eye)
    right = _unit(np.cross(forward, np.array([0, 1, 0], np.float32)))
    up = np.cross(right, forward)
    steps = np.float32(_FIELD) * ((np.arange(size * RAYS, dtype=np.float32) + 0.5) / (size * RAYS) * 2 - 1)
    across, down = np.meshgrid(steps, -steps)
    rays = forward + across.reshape(-1, 1) * right + down.reshape(-1, 1) * up
    return eye.astype(np.float32), _unit(rays).astype(np.float32)


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.sqrt(_dot(vectors, vectors))[..., None]
    return unit


def _dot(one: Floats, two: Floats) -> Floats:
    """Dot products of rows; einsum is ten times as fast as a sum over such a short axis."""
    products: Floats = np.einsum("...i,...i->...", one, two)
    return products


def _first_hits(eye: Floats, rays: Floats, solid: _Solid) -> tuple[Floats, Floats, npt.NDArray[np.uint8]]:
    """Depth, normal and part at the end of each ray."""
    with np.errstate(divide="ignore", invalid="ignore"):
        floor = np.where(rays[:, 1] < 0, -eye[1] / rays[:, 1], _FAR)
        walls = [(np.sign(rays[:, axis]) * ROOM - eye[axis]) / rays[:, axis] for axis in (0, 2)]
    # The wall behind the camera is left out, since the camera may stand outside the room.
    walls = [np.where(np.isfinite(depth) & (depth > 0), depth, _FAR) for depth in walls]
    along = np.where(walls[0] < walls[1], 0, 2)
    wall = np.minimum(*walls)
    depth, part = np.where(floor < wall, floor, wall), np.where(floor < wall, FLOOR, WALL)
    normal = np.zeros_like(rays)
    normal[:, 1] = part == FLOOR
    for axis in (0, 2):
        normal[:, axis] = np.where((part == WALL) & (along == axis), -np.sign(rays[:, axis]), 0)
    near = solid.depth(np.broadcast_to(eye, rays.shape), rays)
    hit = near < depth
    depth = np.where(hit, near, depth).astype(np.float32)
    normal[hit] = solid.normal(eye + near[hit, None] * rays[hit])
    return depth, normal, np.where(hit, OBJECT, part).astype(np.uint8)


def _shade(
    points: Floats, normal: Floats, part: npt.NDArray[np.uint8], eye: Floats, solid: _Solid
) -> tuple[Floats, Floats]:
    """Lambertian shading with a soft shadow, and a specular highlight on the object (Blinn 1977)."""
    direction = _unit(_LAMP - points)
    facing = np.maximum(_dot(normal, direction), 0)
    lit = _lit(points, part, solid)
    light = (_AMBIENT + _DIFFUSE * facing * lit) * _corners(points, part, solid)
    half = _unit(direction + _unit(eye - points))
    shine = np.maximum(_dot(normal, half), 0) ** _SHARPNESS
    white = np.where((part == OBJECT) & (facing > 0), _HIGHLIGHT * shine * lit, 0)
    return light.astype(np.float32), white.astype(np.float32)


def _lit(points: Floats, part: npt.NDArray[np.uint8], solid: _Solid) -> Floats:
    """The share of the lamp that is visible from each point, past the object."""
    lit = np.ones(len(points), np.float32)
    # Shadows are too short to reach the walls, and the solids are convex: they cast none on themselves.
    reach = solid.half * np.sqrt(2) + solid.top / (_LAMP[1] - solid.top) * (np.hypot(*_LAMP[[0, 2]]) + 1)
    close = np.flatnonzero((part == FLOOR) & (np.hypot(points[:, 0], points[:, 2]) < reach))
    offsets = (np.arange(_SOFT, dtype=np.float32) - (_SOFT - 1) / 2) * (_LAMP_SIZE / (_SOFT - 1))
    seen = np.zeros(len(close), np.float32)
    for x in offsets:
        for z in offsets:
            direction = _unit(_LAMP + np.array([x, 0, z], np.float32) - points[close])
            seen += solid.depth(points[close], direction) >= _FAR
    lit[close] = seen / _SOFT**2
    return lit


def _corners(points: Floats, part: npt.NDArray[np.uint8], solid: _Solid) -> Floats:
    """Ambient occlusion: darker in corners, and on the floor around the object."""
    near_wall = ROOM - np.abs(points[:, [0, 2]])
    floor = (1 - 0.22 * np.exp(-near_wall / 0.45)).prod(axis=1)
    wall = (1 - 0.22 * np.exp(-points[:, 1] / 0.45)) * (1 - 0.15 * np.exp(-near_wall.max(axis=1) / 0.45))
    away = np.maximum(np.hypot(points[:, 0], points[:, 2]) - solid.radius * 0.75, 0)
    contact = 1 - 0.28 * np.exp(-away / (0.45 * solid.radius))
    solid_itself = 1 - 0.18 * np.exp(-points[:, 1] / 0.25)
    occlusion: Floats = np.select([part == FLOOR, part == WALL], [floor * contact, wall], solid_itself)
    return occlusion


class _Solid:
    """A solid that stands on the floor in the middle of the room."""

    def __init__(self, shape: str, radius: np.float32) -> None:
        self.shape, self.radius = shape, radius
        # Cubes look larger than spheres of the same height, capsules smaller.
        self.half = {"cube": radius * 0.86, "cylinder": radius * 0.8, "sphere": radius, "capsule": radius * 0.62}[shape]
        self.top = 2 * (radius * 1.16 if shape == "capsule" else self.half if shape == "cube" else radius)

    def depth(self, start: Floats, rays: Floats) -> Floats:
        """The distance along each ray to the solid; ``_FAR`` if the ray misses it."""
        distance: Floats = getattr(self, f"_{self.shape}")(start, rays)
        return distance

    def normal(self, points: Floats) -> Floats:
        """The outward normals at points of the surface."""
        middle = np.array([0, self.top / 2, 0], np.float32)
        if self.shape == "cube":
            inside = points - middle
            axis = np.abs(inside).argmax(axis=1)
            normal = np.zeros_like(points)
            rows = np.arange(len(points))
            normal[rows, axis] = np.sign(inside[rows, axis])
            return normal
        if self.shape == "cylinder":
            above = points[:, 1] > self.top - 1e-3
            normal = np.where(above[:, None], np.array([0, 1, 0], np.float32), points * np.array([1, 0, 1], np.float32))
            return _unit(normal)
        core = np.zeros_like(points)
        core[:, 1] = np.clip(points[:, 1], self.half, self.top - self.half)
        return _unit(points - core)

    def _cube(self, start: Floats, rays: Floats) -> Floats:
        low = np.array([-self.half, 0, -self.half], np.float32)
        high = np.array([self.half, self.top, self.half], np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            one, two = (low - start) / rays, (high - start) / rays
        enter, leave = np.minimum(one, two).T, np.maximum(one, two).T
        enter, leave = np.maximum.reduce([*enter]), np.minimum.reduce([*leave])
        return np.where((enter <= leave) & (enter > _NEAR), enter, _FAR)

    def _cylinder(self, start: Floats, rays: Floats) -> Floats:
        side = self._side(start, rays, np.float32(0), self.top)
        with np.errstate(divide="ignore", invalid="ignore"):
            lid = (self.top - start[:, 1]) / rays[:, 1]
        across = np.hypot(*(start[:, axis] + lid * rays[:, axis] for axis in (0, 2)))
        return np.minimum(side, np.where((across <= self.half) & (lid > _NEAR), lid, _FAR))

    def _sphere(self, start: Floats, rays: Floats) -> Floats:
        return self._ball(start, rays, self.half)

    def _capsule(self, start: Floats, rays: Floats) -> Floats:
        low, high = self.half, self.top - self.half
        ends = np.minimum(self._ball(start, rays, low), self._ball(start, rays, high))
        return np.minimum(ends, self._side(start, rays, low, high))

    def _ball(self, start: Floats, rays: Floats, height: np.float32) -> Floats:
        away = start - np.array([0, height, 0], np.float32)
        b, c = _dot(away, rays), _dot(away, away) - self.half**2
        return _root(np.ones_like(b), b, c)

    def _side(self, start: Floats, rays: Floats, low: np.float32, high: np.float32) -> Floats:
        flat, going = start[:, [0, 2]], rays[:, [0, 2]]
        a, b, c = _dot(going, going), _dot(flat, going), _dot(flat, flat) - self.half**2
        depth = _root(a, b, c)
        height = start[:, 1] + depth * rays[:, 1]
        return np.where((height >= low) & (height <= high), depth, _FAR)


def _root(a: Floats, b: Floats, c: Floats) -> Floats:
    """The smaller root of a t² + 2 b t + c if it is in front of the start; otherwise ``_FAR``."""
    inside = b**2 - a * c
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = (-b - np.sqrt(np.maximum(inside, 0))) / a
    return np.where((inside >= 0) & (depth > _NEAR), depth, _FAR)
