"""Batches of packed scenes with token ids, drawn by worker processes."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from captions import caption
from render import pack_scene
from scenes import sample_scene
from text_tokenizers import read_clip, read_t5


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
                texts = [caption(rng, s) for s in scenes]
                out["clip"] = torch.tensor([e.ids for e in clip.encode_batch(texts)], dtype=torch.int16)
                out["t5"] = torch.tensor([e.ids for e in t5.encode_batch(texts)], dtype=torch.int16)
            yield out


def batches(folder, batch, sizes, seed, workers, captions=True):
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(max(1, torch.get_num_threads() // 2))
    data = SceneBatches(Path(folder), batch, sizes, seed, captions)
    options = {"prefetch_factor": 4, "persistent_workers": True} if workers else {}
    return iter(DataLoader(data, batch_size=None, num_workers=workers, pin_memory=torch.cuda.is_available(), **options))
