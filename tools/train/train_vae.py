"""Trains the autoencoder on drawn pictures for a given time, and writes it with its latent statistics.

python train_vae.py --model MODEL_FOLDER --out OUT_FOLDER --seconds 200
MODEL_FOLDER holds the tokenizers, and the autoencoder if training is to go on from it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from PIL import Image

from data import batches
from export import default_configs, load_part, new_part, save_part
from optimiser import Average, rate_factor
from render import SCENE_FIELDS, add_noise, render

KL_WEIGHT = 3e-4  # on the mean over latent values; keeps unused detail out of the latent


def windows(packed: torch.Tensor, side: int) -> torch.Tensor:
    """Noisy pictures seen at 256 to 640 pixels a unit, the window centred near an object if zoomed in."""
    batch = packed.shape[0]
    scale = 256 + 384 * torch.rand(batch, device=packed.device) ** 1.5
    reach = (1 - side / scale).clamp(min=0) / 2
    centre = packed[:, SCENE_FIELDS + 2 : SCENE_FIELDS + 4] + 0.15 * torch.randn(batch, 2, device=packed.device)
    origin = torch.minimum(torch.maximum(centre, -reach[:, None]), reach[:, None])
    return add_noise(render_fast(packed, side, side, scale, origin), packed)


render_fast = render


def loss_terms(model, pictures):
    mean, log_variance = model.encode(pictures)
    mean, log_variance = mean.float(), log_variance.float()
    latents = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
    decoded = model.decode(latents).float()
    error = decoded - pictures
    # Differences of neighbours weigh edges, where plain L1 is content with blur.
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    return error.abs().mean(), edges, divergence


@torch.no_grad()
def latent_statistics(model, packed, side: int, device) -> tuple[float, float]:
    scale = torch.full((packed.shape[0],), float(side), device=device)
    pictures = add_noise(render_fast(packed, side, side, scale, torch.zeros(packed.shape[0], 2, device=device)), packed)
    latents = torch.cat([model.encode(p)[0].float() for p in pictures.split(16)])
    return latents.mean().item(), latents.std().item()


def save_grid(path: Path, originals, decoded) -> None:
    rows = torch.stack([originals, decoded], 1).flatten(0, 1).clamp(-1, 1)
    count, side = rows.shape[0] // 8, rows.shape[-1]
    grid = rows[: count * 8].view(count, 8, 3, side, side).permute(0, 3, 1, 4, 2).reshape(count * side, 8 * side, 3)
    Image.fromarray(((grid + 1) * 127.5).round().byte().cpu().numpy()).save(path)


def main() -> None:
    global render_fast
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--model", type=Path, required=True)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--seconds", type=float, default=200)
    arguments.add_argument("--batch", type=int, default=48)
    arguments.add_argument("--side", type=int, default=256)
    arguments.add_argument("--rate", type=float, default=2e-3)
    arguments.add_argument("--workers", type=int, default=14)
    arguments.add_argument("--compile", type=int, default=1)
    args = arguments.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    if (args.model / "vae" / "config.json").exists():
        model, config = load_part(args.model, "vae")
    else:
        config = default_configs(args.model)["vae"]
        model = new_part("vae", config)
    model = model.to(device, memory_format=torch.channels_last)
    terms = loss_terms
    if args.compile:
        torch._dynamo.config.suppress_errors = True
        render_fast = torch.compile(render, dynamic=False)
        terms = torch.compile(loss_terms, dynamic=False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.rate, betas=(0.9, 0.99), weight_decay=0, fused=device == "cuda")
    average = Average({"vae": model}, 0.998)
    data = batches(args.model, args.batch, [(args.side, args.side)], 1, args.workers, captions=False)
    start, step, log = time.time(), 0, []
    while time.time() - start < args.seconds:
        progress = (time.time() - start) / args.seconds
        for group in optimiser.param_groups:
            group["lr"] = args.rate * rate_factor(step, progress, 100, 0.5, 0.02)
        packed = next(data)["packed"].to(device, non_blocking=True)
        with torch.no_grad():
            pictures = windows(packed, args.side).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16):
            error, edges, divergence = terms(model, pictures)
            loss = error + 0.5 * edges + KL_WEIGHT * divergence
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average.update()
        if step % 50 == 0:
            log.append([step, time.time() - start, error.item(), edges.item(), divergence.item()])
            if step % 250 == 0:
                print("vae", *(f"{v:.4g}" for v in log[-1]), flush=True)
        step += 1
    model.load_state_dict(average.values["vae"])
    with torch.autocast(device, torch.bfloat16):
        shift, deviation = latent_statistics(model, packed, args.side, device)
    config["shift_factor"], config["scaling_factor"] = round(shift, 5), round(1 / deviation, 5)
    save_part(args.out, "vae", model.state_dict(), config)
    with torch.no_grad():
        count = min(16, args.batch)
        scale = torch.full((count,), float(args.side), device=device)
        clean = render(packed[:count], args.side, args.side, scale, torch.zeros(count, 2, device=device))
        decoded = model.decode(model.encode(clean)[0])
        save_grid(args.out / "vae_grid.png", clean, decoded)
        psnr = -10 * torch.log10(((clean - decoded) / 2).pow(2).mean()).item()
    log_file = {"columns": ["step", "seconds", "l1", "edges", "kl"], "rows": log, "psnr_db": psnr, "steps": step}
    (args.out / "vae_log.json").write_text(json.dumps(log_file))
    print(f"vae done: {step} steps, psnr {psnr:.2f} dB, shift {shift:.4f}, deviation {deviation:.4f}", flush=True)


if __name__ == "__main__":
    main()
