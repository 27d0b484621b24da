"""Trains the transformer and both text encoders together on drawn scenes, one leg at a time.

python train_flux.py --model MODEL_FOLDER --out OUT_FOLDER --seconds 460 --sizes 256x256
Goes on from MODEL_FOLDER's weights where it has them (the optimiser starts afresh with a short
warm-up) or, with --state, from the last leg's weights and optimiser on the same machine; writes the
averaged weights, a loss log and picture grids to OUT_FOLDER.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from pathlib import Path

import torch
import torch.nn.functional as F

import render as drawing
from data import batches
from export import default_configs, load_part, new_part, save_frame, save_part
from optimiser import Average, Muon, rate_factor, split_parameters
from render import add_noise
from sample import DEMO_PROMPTS, Sampler, pack, save_pictures, shifted
from scenes import RELATIONS
from transformer import image_ids

TRAINED = ("transformer", "text_encoder", "text_encoder_2")
DROP_SHARE = 0.12  # of captions replaced by the empty one
ROLES = 2 * len(RELATIONS)


def parse() -> argparse.Namespace:
    a = argparse.ArgumentParser()
    a.add_argument("--model", type=Path, required=True)
    a.add_argument("--vae", type=Path, help="folder that holds vae/, if not --model")
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--seconds", type=float, default=460)
    a.add_argument("--batch", type=int, default=384, help="pictures a step at the first size")
    a.add_argument("--sizes", nargs="+", default=["256x256"], help="height x width; repeat one to draw it more often")
    a.add_argument("--rate", type=float, default=2e-3, help="Muon's; AdamW takes half")
    a.add_argument("--warmup", type=int, default=150)
    a.add_argument("--decay-share", type=float, default=0.3)
    a.add_argument("--floor", type=float, default=0.1)
    a.add_argument("--distil-share", type=float, default=0.0, help="last share of the time that distils guidance")
    a.add_argument("--guidance-slope", type=float, default=0.4, help="effective scale = 1 + slope (guidance - 1)")
    a.add_argument("--average", type=float, default=0.998)
    a.add_argument("--state", type=Path, help="file with all of the training's state: read where it exists, then written")
    a.add_argument("--noise-odds", type=float, default=2.0, help="how much to favour high noise levels at 256 tokens")
    a.add_argument("--role-weight", type=float, default=0.05, help="of the text encoder's own loss, see RoleReader")
    a.add_argument("--text-lengths", type=int, nargs="+", default=[64, 64, 64, 128, 128], help="drawn for each batch")
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--workers", type=int, default=14)
    a.add_argument("--compile", type=int, default=1)
    a.add_argument("--sample-size", type=int, default=256)
    return a.parse_args()


def compile_blocks(models: dict[str, torch.nn.Module]) -> None:
    """Compiles per block: the blocks share code, so this takes seconds where the whole takes a minute."""
    for block in [*models["transformer"].transformer_blocks, *models["transformer"].single_transformer_blocks]:
        block.compile()
    for layer in models["text_encoder"].text_model.encoder.layers:
        layer.compile()
    for block in models["text_encoder_2"].encoder.block:
        block.compile()


def load_models(args, device: str):
    models, configs = {}, {}
    for name in TRAINED:
        if (args.model / name / "config.json").exists():
            models[name], configs[name] = load_part(args.model, name)
        else:
            configs[name] = default_configs(args.model)[name]
            models[name] = new_part(name, configs[name])
            if name == "transformer":
                models[name].initialise()
            elif name == "text_encoder":
                for p in models[name].text_model.embeddings.parameters():
                    torch.nn.init.normal_(p, std=0.05)
        models[name] = models[name].to(device)
    return models, configs


class Latents:
    """Draws, encodes and normalises batches of pictures."""

    def __init__(self, vae, config: dict, compiled: bool):
        self.encode = torch.compile(self._encode, dynamic=False) if compiled else self._encode
        self.draw = torch.compile(drawing.render, dynamic=False) if compiled else drawing.render
        self.encoder, self.shift, self.scale = vae.encoder, config["shift_factor"], config["scaling_factor"]

    def _encode(self, pictures):
        return self.encoder(pictures)

    @torch.no_grad()
    def __call__(self, packed, height: int, width: int):
        """[B, N, 64] packed latents of noisy pictures."""
        scale = torch.full((packed.shape[0],), float(min(height, width)), device=packed.device)
        origin = torch.zeros(packed.shape[0], 2, device=packed.device)
        pictures = add_noise(self.draw(packed, height, width, scale, origin), packed)
        with torch.autocast(packed.device.type, torch.bfloat16):
            mean = self.encode(pictures.contiguous(memory_format=torch.channels_last))[:, :16].float()
        return pack((mean - self.shift) * self.scale)


class RoleReader(torch.nn.Module):
    """Reads from the T5 feature of an object's first mention which relations the caption puts it in.

    Used in training alone. The picture's loss teaches the encoder who is left of whom only slowly (a probe found it in
    57 % of the cases after 40 minutes); asked directly, it learns that in a few hundred steps.
    """

    def __init__(self, width: int):
        super().__init__()
        self.read = torch.nn.Linear(width, ROLES)

    def forward(self, text, batch: dict):
        places = batch["mentions"].long()
        known = (places >= 0) & (places < text.shape[1]) & ~batch["dropped"]
        features = text.gather(1, places.clamp(0, text.shape[1] - 1).unsqueeze(-1).expand(-1, -1, text.shape[2]))
        error = F.binary_cross_entropy_with_logits(self.read(features).float(), batch["roles"].float(), reduction="none")
        return (error.sum(-1) * known).sum() / known.sum().clamp(min=1)


def predict(models, batch: dict, guidance, text=None):
    text = models["text_encoder_2"](batch["t5"]) if text is None else text
    pooled = models["text_encoder"](batch["clip"])[1]
    return models["transformer"](batch["noisy"], text, pooled, batch["sigma"], batch["ids"], guidance)


def noise_levels(count: int, tokens: int, odds: float, device: str) -> torch.Tensor:
    """[count] sigmas: logit-normal, shifted as the sampler shifts, then towards noise.

    The layout is decided above sigma 0.8. A larger picture keeps its layout visible up to higher levels (each
    object covers more latents), so the odds sigma / (1 - sigma) grow with the number of tokens.
    """
    sigma = shifted(torch.sigmoid(1.2 * torch.randn(count, device=device)), tokens)
    factor = odds * (tokens / 256) ** 0.4
    return factor * sigma / (1 + (factor - 1) * sigma)


def make_batch(raw: dict, latents: Latents, empty: dict, device: str, drop: bool, args) -> dict:
    height, width = raw["size"]
    packed = raw["packed"].to(device, non_blocking=True)
    clean = latents(packed, height, width)
    count, tokens = clean.shape[:2]
    # The padded text length varies; captions have at most 50 tokens, the engine pads to 128.
    length = args.text_lengths[int(torch.randint(len(args.text_lengths), ()))]
    t5 = raw["t5"].to(device, non_blocking=True).long()[:, :length]
    clip = raw["clip"].to(device, non_blocking=True).long()
    dropped = torch.zeros(count, 1, dtype=torch.bool, device=device)
    if drop:
        dropped = torch.rand(count, 1, device=device) < DROP_SHARE
        t5, clip = torch.where(dropped, empty["t5"][:, :length], t5), torch.where(dropped, empty["clip"], clip)
    noise = torch.randn_like(clean)
    sigma = noise_levels(count, tokens, args.noise_odds, device)
    view = sigma.view(-1, 1, 1)
    return {
        "t5": t5, "clip": clip, "sigma": sigma, "noisy": (1 - view) * clean + view * noise,
        "target": noise - clean, "ids": image_ids(height // 16, width // 16, device), "length": length,
        "dropped": dropped, "mentions": raw["mentions"].to(device), "roles": raw["roles"].to(device),
    }  # fmt: skip


@torch.no_grad()
def guided_target(teacher, batch: dict, empty: dict, guidance, slope: float):
    """The teacher's prediction moved away from its captionless one; data where guidance is 1."""
    plain = torch.ones_like(guidance)
    captioned = predict(teacher, batch, plain).float()
    blank = {**batch, "t5": empty["t5"][:, : batch["length"]].expand_as(batch["t5"]), "clip": empty["clip"].expand_as(batch["clip"])}  # fmt: skip
    captionless = predict(teacher, blank, plain).float()
    effective = (slope * (guidance - 1)).view(-1, 1, 1)
    target = captioned + effective * (captioned - captionless)
    return torch.where(effective > 0, target, batch["target"])


def state_of(models, reader, muon, adam, average) -> dict:
    return {
        "reader": reader.state_dict(),
        "models": {name: model.state_dict() for name, model in models.items()},
        "muon": muon.buffers, "adam": adam.state_dict(), "average": average.values, "updates": average.updates,
    }  # fmt: skip


def restore(state: dict, models, reader, muon, adam, average) -> None:
    reader.load_state_dict(state["reader"])
    for name, model in models.items():
        model.load_state_dict(state["models"][name])
    muon.buffers = state["muon"]
    adam.load_state_dict(state["adam"])
    average.values, average.updates = state["average"], state["updates"]


def export(args, average, configs, vae, vae_config) -> None:
    for name in TRAINED:
        save_part(args.out, name, average.values[name], configs[name])
    save_part(args.out, "vae", vae.state_dict(), vae_config)
    save_frame(args.out)


def save_grids(args, vae_config, device, distilled: bool) -> None:
    """Grids from the exported weights: plain, true guidance, and the guidance embedding."""
    for name in ("tokenizer", "tokenizer_2"):
        if not (args.out / name).exists():
            shutil.copytree(args.model / name, args.out / name)
    sampler = Sampler.load(args.out, device)
    side = args.sample_size
    runs = {"g1": {"guidance": 1.0}, "cfg2": {"guidance": 1.0, "true_cfg": 2.0}, "cfg3.5": {"guidance": 1.0, "true_cfg": 3.5}}
    if distilled:
        runs = {"g1": {"guidance": 1.0}, "g3.5": {"guidance": 3.5}, "g5": {"guidance": 5.0}}
    pictures = [sampler.pictures(DEMO_PROMPTS, size=(side, side), **options) for options in runs.values()]
    save_pictures(torch.cat(pictures), args.out / "grid.png", 8)
    for name in ("tokenizer", "tokenizer_2"):
        shutil.rmtree(args.out / name)


def main() -> None:
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    if args.compile:
        torch._dynamo.config.suppress_errors = True
        torch._dynamo.config.cache_size_limit = 64
    sizes = [tuple(map(int, s.split("x"))) for s in args.sizes]
    data = batches(args.model, args.batch, sizes, args.seed, args.workers)
    models, configs = load_models(args, device)
    vae, vae_config = load_part(args.vae or args.model, "vae")
    vae = vae.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
    latents = Latents(vae, vae_config, bool(args.compile))
    if args.compile:
        compile_blocks(models)
    sampler = Sampler(models, vae_config, args.model, device)
    empty = {
        "clip": torch.tensor([sampler.clip.encode("").ids], device=device),
        "t5": torch.tensor([sampler.t5.encode("").ids], device=device),
    }
    reader = RoleReader(configs["text_encoder_2"]["d_model"]).to(device)
    matrices, rest = split_parameters(models)
    rest = [*rest, *reader.parameters()]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(rest, lr=args.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=device == "cuda")
    average = Average(models, args.average)
    if args.state and args.state.exists():
        restore(torch.load(args.state, map_location=device, weights_only=False), models, reader, muon, adam, average)
    teacher, start, step, log, total, last = None, time.time(), 0, [], None, 0
    while (elapsed := time.time() - start) < args.seconds:
        progress = elapsed / args.seconds
        rate = args.rate * rate_factor(step, progress, args.warmup, args.decay_share, args.floor)
        for group in adam.param_groups:
            group["lr"] = 0.5 * rate
        if teacher is None and args.distil_share and progress > 1 - args.distil_share:
            teacher = {name: new_part(name, configs[name]).to(device).requires_grad_(False) for name in TRAINED}
            for name in TRAINED:
                teacher[name].load_state_dict(average.values[name])
            if args.compile:
                compile_blocks(teacher)
            print("distilling guidance from step", step, flush=True)
        with torch.autocast(device, torch.bfloat16):
            batch = make_batch(next(data), latents, empty, device, drop=teacher is None, args=args)
            guidance = torch.ones_like(batch["sigma"])
            target = batch["target"]
            if teacher is not None:
                guidance = 1 + 5 * torch.rand_like(guidance) * (torch.rand_like(guidance) < 0.85)
                target = guided_target(teacher, batch, empty, guidance, args.guidance_slope)
            text = models["text_encoder_2"](batch["t5"])
            loss = (predict(models, batch, guidance, text).float() - target).pow(2).mean()
            role_loss = reader(text, batch)
        for p in (*matrices, *rest):
            p.grad = None
        (loss + args.role_weight * role_loss).backward()
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        muon.step(rate)
        adam.step()
        average.update()
        both = torch.stack((loss.detach(), role_loss.detach()))
        total = both if total is None else total + both
        step += 1
        if step % 50 == 0 or step == 5:
            log.append([step, time.time() - start, *(total / (step - last)).tolist(), rate])
            total, last = None, step
            if step % 250 == 0 or step <= 50:
                print("flux", *(f"{v:.5g}" for v in log[-1]), flush=True)
            if not math.isfinite(log[-1][2]):
                raise SystemExit("the loss is not finite")
    print(f"trained {step} steps in {time.time() - start:.0f} s", flush=True)
    export(args, average, configs, vae, vae_config)
    if args.state:
        torch.save(state_of(models, reader, muon, adam, average), args.state)
    record = {"columns": ["step", "seconds", "loss", "role_loss", "rate"], "rows": log, "steps": step}
    record["arguments"] = {k: str(v) for k, v in vars(args).items()}
    (args.out / "flux_log.json").write_text(json.dumps(record))
    save_grids(args, vae_config, device, teacher is not None)
    print("done", flush=True)


if __name__ == "__main__":
    main()
