"""Compares the PyTorch definitions with reference fixtures: python check_golden.py CASE_FOLDER..."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from autoencoder import Autoencoder
from text_encoders import ClipTextModel, T5Encoder
from transformer import FluxTransformer, sinusoid


def load(model_class, folder: Path):
    model = model_class(json.loads((folder / "config.json").read_text()))
    state = {}
    for file in folder.glob("*.safetensors"):
        state.update(load_file(file))
    model.load_state_dict({k: v.float() for k, v in state.items()})
    return model.eval()


def check_case(folder: Path) -> bool:
    case = json.loads((folder / "case.json").read_text())
    root = folder / case.get("model", "model")
    inputs, expected = load_file(folder / "inputs.safetensors"), load_file(folder / "expected.safetensors")
    got = {"time_proj.values": sinusoid(inputs["time_proj.arguments"])} if "time_proj.arguments" in inputs else {}
    flux = load(FluxTransformer, root / "transformer")
    taps: dict = {}
    t = "transformer."
    for i in range(3):
        if f"{t}timestep{i}" not in inputs:
            continue
        got[f"{t}t{i}.out"] = flux(
            inputs[t + "hidden_states"], inputs[t + "encoder_hidden_states"], inputs[t + "pooled_projections"],
            inputs[f"{t}timestep{i}"], inputs[t + "img_ids"], inputs.get(f"{t}guidance{i}"), taps if i == 0 else None,
        )  # fmt: skip
    got.update({f"{t}t0.{k}": v for k, v in taps.items()})
    if t + "batch.timestep" in inputs:
        got[t + "batch.out"] = flux(
            inputs[t + "batch.hidden_states"], inputs[t + "batch.encoder_hidden_states"],
            inputs[t + "batch.pooled_projections"], inputs[t + "batch.timestep"], inputs[t + "img_ids"],
            inputs.get(t + "batch.guidance"),
        )  # fmt: skip
    if "vae.latent" in inputs:
        vae = load(Autoencoder, root / "vae")
        got["vae.decode.out"] = vae.decode(inputs["vae.latent"])
        if "vae.image" in inputs:
            got["vae.encode.mean"], got["vae.encode.logvar"] = vae.encode(inputs["vae.image"])
    if "tokens.clip.ids" in expected:
        rows = case["params"]["text_prompts"]
        states, got["clip.pooled"] = load(ClipTextModel, root / "text_encoder")(expected["tokens.clip.ids"][rows].long())
        got["clip.last_hidden_state"] = states[: expected["clip.last_hidden_state"].shape[0]]
        length = case["params"]["t5_embed_len"]
        ids = expected["tokens.t5.ids"][rows][:, :length].long()
        ids[expected["tokens.t5.full_len"][rows] > length, -1] = 1  # truncation keeps the end token
        got["t5.last_hidden_state"] = load(T5Encoder, root / "text_encoder_2")(ids)
    good = True
    for name, value in got.items():
        want, rule = expected.get(name), case["expected"].get(name)
        if want is None or rule is None:
            continue
        worst = ((value - want).abs() / (rule["atol"] + rule["rtol"] * want.abs())).max().item()
        good &= worst <= 1
        print(f"{'ok  ' if worst <= 1 else 'FAIL'} {name}: {worst:.3f} of the tolerance")
    return good


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(0 if all([check_case(Path(name)) for name in sys.argv[1:]]) else 1)
