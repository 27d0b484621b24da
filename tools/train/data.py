"""Batches of packed scenes with token ids, drawn by worker processes."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from captions import caption_with_roles
from render import pack_scene
from scenes import RELATIONS, sample_scene
from text_tokenizers import read_clip, read_t5


MAX_OBJECTS = 3


def mentions(encoded, roles) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, 3] token at which each object's first mention ends, -1 for none; [B, 3, 2 R] the roles that the text gives."""
    places = torch.full((len(roles), MAX_OBJECTS), -1, dtype=torch.int16)
    wanted = torch.zeros(len(roles), MAX_OBJECTS, 2 * len(RELATIONS), dtype=torch.bool)
    for row, (tokens, objects) in enumerate(zip(encoded, roles)):
        ends = {end: index for index, (_, end) in reversed(list(enumerate(tokens.offsets)))}
        for slot, (end, object_roles) in enumerate(objects):
            places[row, slot] = ends.get(end, -1)
            wanted[row, slot, object_roles] = True
    return places, wanted


class SceneBatches(IterableDataset):
    """Endless batches; each has one picture size (height, width), drawn from `sizes`."""

    def __init__(self, folder: Path, batch: int, sizes: list[tuple[int, int]], seed: int, captions: bool = True):
        self.folder, self.batch, self.sizes, self.seed, self.captions = folder, batch, sizes, seed, captions

    def __iter__(self):
        worker = get_worker_info()
        rng = random.Random(self.seed * 1000 + (worker.id if worker else 0))
        if self.captions:
            clip, t5 = read_clip(self.folder / "tokenizer"), read_t5(self.folder / "tokenizer_2")
        while True:
            height, width = rng.choice(self.sizes)
            short = min(height, width)
            # Batches shrink with the area, so that each has about the same number of tokens.
            count = max(1, self.batch * self.sizes[0][0] * self.sizes[0][1] // (height * width))
            scenes = [sample_scene(rng, (width / short, height / short)) for _ in range(count)]
            out = {"size": (height, width), "packed": torch.from_numpy(np.stack([pack_scene(s) for s in scenes]))}
            if self.captions:
                captions = [caption_with_roles(rng, s) for s in scenes]
                texts = [text for text, _ in captions]
                encoded = t5.encode_batch(texts)
                out["clip"] = torch.tensor([e.ids for e in clip.encode_batch(texts)], dtype=torch.int16)
                out["t5"] = torch.tensor([e.ids for e in encoded], dtype=torch.int16)
                out["mentions"], out["roles"] = mentions(encoded, [roles for _, roles in captions])
            yield out


def batches(folder, batch, sizes, seed, workers, captions=True):
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(max(1, torch.get_num_threads() // 2))
    data = SceneBatches(Path(folder), batch, sizes, seed, captions)
    options = {"prefetch_factor": 4, "persistent_workers": True} if workers else {}
    return iter(DataLoader(data, batch_size=None, num_workers=workers, pin_memory=torch.cuda.is_available(), **options))
