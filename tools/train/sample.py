"""Euler flow-match sampling as the FLUX pipeline does it, and picture grids.

python sample.py --model MODEL_FOLDER --out grid.png --prompts "a red star" "a blue ring inside ..."
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from PIL import Image

from export import PARTS, SCHEDULER, load_part
from text_tokenizers import read_clip, read_t5
from transformer import image_ids


def pack(latents: torch.Tensor) -> torch.Tensor:
    """[B, 16, h, w] -> [B, hw / 4, 64]"""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def unpack(tokens: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """[B, rows columns, 64] -> [B, 16, 2 rows, 2 columns]"""
    b = tokens.shape[0]
    return tokens.view(b, rows, columns, 16, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, 16, 2 * rows, 2 * columns)


def shift_exponent(tokens: int) -> float:
    """mu of the dynamic shift, linear in the number of image tokens."""
    low, high = SCHEDULER["base_image_seq_len"], SCHEDULER["max_image_seq_len"]
    slope = (SCHEDULER["max_shift"] - SCHEDULER["base_shift"]) / (high - low)
    return SCHEDULER["base_shift"] + slope * (tokens - low)


def shifted(sigma: torch.Tensor, tokens: int) -> torch.Tensor:
    scale = math.exp(shift_exponent(tokens))
    return scale * sigma / (1 + (scale - 1) * sigma)


class Sampler:
    def __init__(self, models: dict[str, torch.nn.Module], vae_config: dict, folder: Path, device: str):
        self.models, self.vae_config, self.device = models, vae_config, device
        self.clip, self.t5 = read_clip(folder / "tokenizer"), read_t5(folder / "tokenizer_2")

    @classmethod
    def load(cls, folder: Path, device: str) -> "Sampler":
        loaded = {name: load_part(folder, name) for name in PARTS}
        models = {name: part.to(device).eval() for name, (part, _) in loaded.items()}
        return cls(models, loaded["vae"][1], folder, device)

    def encode(self, prompts: list[str]):
        clip = torch.tensor([e.ids for e in self.clip.encode_batch(prompts)], device=self.device)
        t5 = torch.tensor([e.ids for e in self.t5.encode_batch(prompts)], device=self.device)
        return self.models["text_encoder_2"](t5), self.models["text_encoder"](clip)[1]

    @torch.no_grad()
    def latents(self, prompts, size=(512, 512), steps=28, guidance=3.5, true_cfg=1.0, seed=0):
        rows, columns = size[0] // 16, size[1] // 16
        text, pooled = self.encode(prompts)
        if true_cfg != 1:
            no_text, no_pooled = self.encode([""] * len(prompts))
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(len(prompts), rows * columns, 64, generator=generator).to(self.device)
        ids = image_ids(rows, columns, self.device)
        sigmas = shifted(torch.linspace(1, 1 / steps, steps), rows * columns).tolist() + [0.0]
        scale = torch.full((len(prompts),), guidance, device=self.device)
        for now, after in zip(sigmas, sigmas[1:], strict=False):
            t = torch.full((len(prompts),), now, device=self.device)
            velocity = self.models["transformer"](x, text, pooled, t, ids, scale).float()
            if true_cfg != 1:
                other = self.models["transformer"](x, no_text, no_pooled, t, ids, scale).float()
                velocity = other + true_cfg * (velocity - other)
            x = x + (after - now) * velocity
        latents = unpack(x, rows, columns)
        return latents / self.vae_config["scaling_factor"] + self.vae_config["shift_factor"]

    @torch.no_grad()
    def pictures(self, prompts, batch=50, **options) -> torch.Tensor:
        """[B, 3, H, W] bytes on the CPU."""
        out = []
        for i in range(0, len(prompts), batch):
            latents = self.latents(prompts[i : i + batch], **options)
            for part in latents.split(10):
                picture = self.models["vae"].decode(part).float().clamp(-1, 1)
                out.append(((picture + 1) * 127.5).round().byte().cpu())
        return torch.cat(out)


def save_pictures(pictures: torch.Tensor, path: Path, columns: int) -> None:
    count, _, height, width = pictures.shape
    rows = -(-count // columns)
    canvas = torch.zeros(rows * columns, 3, height, width, dtype=torch.uint8)
    canvas[:count] = pictures
    grid = canvas.view(rows, columns, 3, height, width).permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, 3)
    Image.fromarray(grid.numpy()).save(path)


DEMO_PROMPTS = [
    "a large red star to the left of a small blue circle",
    "a green heart above a yellow cross, and a white ring",
    "a small black square inside a large pink circle",
    "an orange triangle overlapping a cyan diamond",
    "a purple ring",
    "a small white diamond and a large green square on a striped beige background",
    "a blue star below a red heart on a grey gradient",
    "a yellow circle to the right of a black cross, with a pink triangle above the yellow circle",
]


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--model", type=Path, required=True)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--prompts", nargs="*", default=DEMO_PROMPTS)
    arguments.add_argument("--size", type=int, nargs=2, default=(512, 512), help="height width")
    arguments.add_argument("--steps", type=int, default=28)
    arguments.add_argument("--guidance", type=float, default=3.5)
    arguments.add_argument("--true-cfg", type=float, default=1.0)
    arguments.add_argument("--seed", type=int, default=0)
    args = arguments.parse_args()
    sampler = Sampler.load(args.model, "cuda" if torch.cuda.is_available() else "cpu")
    pictures = sampler.pictures(
        args.prompts, size=tuple(args.size), steps=args.steps, guidance=args.guidance, true_cfg=args.true_cfg,
        seed=args.seed,
    )  # fmt: skip
    save_pictures(pictures, args.out, min(4, len(args.prompts)))


if __name__ == "__main__":
    main()
