#!/usr/bin/env python3
"""Writes the evaluation's 200 prompts with their specifications: python3 make_suite.py ../../models/scenes/suite.json"""

from __future__ import annotations

import json
import random
import sys

from captions import plain_caption
from scenes import (
    HELD_OUT_PAIRS,
    HELD_OUT_RELATIONS,
    Scene,
    _choose_objects,
    _choose_relations,
    finish_scene,
    held_out_pairs,
    held_out_relations,
    sample_scene,
)

SEED = 20240
COUNT, HELD_OUT = 200, 60
OBJECT_COUNTS = (0.2, 0.4, 0.4)
RELATION_SHARE = 0.85


def held_out_scene(rng: random.Random, with_relation: bool) -> Scene:
    """A scene with a held-out pair, or with a held-out relation."""
    while True:
        count = rng.choices((1, 2, 3), OBJECT_COUNTS)[0]
        if with_relation and count == 1:
            continue
        relations = _choose_relations(rng, count, 1.0 if with_relation else RELATION_SHARE)
        objects = _choose_objects(rng, count)
        if with_relation:
            a, relation, b = rng.choice(sorted(HELD_OUT_RELATIONS))
            objects[0].shape, objects[1].shape = a, b
            relations[0] = (0, relation, 1)
            if held_out_pairs(objects):
                continue
        else:
            objects[0].shape, objects[0].colour = rng.choice(sorted(HELD_OUT_PAIRS))
            if held_out_relations(objects, relations):
                continue
        if len({(o.shape, o.colour) for o in objects}) < count:
            continue
        scene = finish_scene(rng, objects, relations, (1.0, 1.0))
        if scene is not None:
            return scene


def specification(scene: Scene, with_sizes: bool, with_background: bool, held_out: bool) -> dict:
    objects = [{"shape": o.shape, "colour": o.colour} for o in scene.objects]
    if with_sizes:
        for entry, o in zip(objects, scene.objects):
            entry["size"] = o.size
    return {
        "prompt": plain_caption(scene, with_sizes, with_background),
        "objects": objects,
        "relations": [{"subject": a, "relation": r, "object": b} for a, r, b in scene.relations],
        "held_out": held_out,
    }


def main() -> None:
    rng = random.Random(SEED)
    # Held-out scenes are spread evenly, so that the first N prompts are a fair sample.
    held_out = [(i + 1) * HELD_OUT // COUNT > i * HELD_OUT // COUNT for i in range(COUNT)]
    scenes, number = [], 0
    for is_held_out in held_out:
        if is_held_out:
            scene = held_out_scene(rng, with_relation=number % 2 == 1)
            number += 1
        else:
            scene = sample_scene(rng, counts=OBJECT_COUNTS, relation_share=RELATION_SHARE)
        scenes.append(specification(scene, rng.random() < 0.4, rng.random() < 0.4, is_held_out))
    assert sum(len(s["objects"]) == 3 for s in scenes) * 3 >= COUNT
    assert sum(bool(s["relations"]) for s in scenes) * 2 >= COUNT
    lines = ",\n".join(json.dumps(s) for s in scenes)
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write('{"scenes": [\n' + lines + "\n]}\n")


if __name__ == "__main__":
    main()
