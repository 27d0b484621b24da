"""Writes a case that compares another engine with these definitions on the exported weights.

python make_fixture.py ../../models/scenes ../../tests/data/scenes
Float32 arithmetic on the stored bf16 weights; atol is four times the distance to an evaluation in
float64 (timestep embedding included), and at least 5e-5 of the tensor's rms where that exceeds 1.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

import transformer as definition
from export import PARTS, load_part
from text_tokenizers import read_clip, read_t5

PROMPTS = [
    "a large red star to the left of a small blue circle",
    "",
    "Café 3.5 — a ZEBRA, under_score & <|endoftext|>!",
    "a yellow circle to the right of a black cross, with a pink triangle above the yellow circle on a striped grey background",
]
EMBED_LENGTH = 64
ROWS, COLUMNS, TEXT = 5, 6, 24
STEPS = ((1.0, 1.0), (0.5125, 3.5), (0.0375, 6.0))  # timestep, guidance


def _sinusoid64(values, width=256):
    half = width // 2
    exponent = -torch.log(torch.tensor(10000.0, dtype=torch.float64)) * torch.arange(half, dtype=torch.float64) / half
    angle = values.double()[:, None] * torch.exp(exponent)[None]
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def tokens(folder: Path) -> dict[str, torch.Tensor]:
    out = {}
    for name, reader, length in (("clip", read_clip(folder / "tokenizer"), 77), ("t5", read_t5(folder / "tokenizer_2"), 128)):
        ids = [e.ids for e in reader.encode_batch(PROMPTS)]
        used = [sum(e.attention_mask) for e in reader.encode_batch(PROMPTS)]
        reader.no_truncation()
        reader.no_padding()
        full = [len(e.ids) for e in reader.encode_batch(PROMPTS)]
        for key, value in (("ids", ids), ("len", used), ("full_len", full)):
            out[f"tokens.{name}.{key}"] = torch.tensor(value, dtype=torch.int32)
        assert len(ids[0]) == length
    return out


def evaluate(models, inputs, ids, dtype) -> dict[str, torch.Tensor]:
    """The expected tensors in one arithmetic."""
    cast = {k: v.to(dtype) for k, v in inputs.items()}
    models = {name: model.to(dtype) for name, model in models.items()}
    t = "transformer."
    out, taps = {}, {}
    for i in range(len(STEPS)):
        out[f"{t}t{i}.out"] = models["transformer"](
            cast[t + "hidden_states"], cast[t + "encoder_hidden_states"], cast[t + "pooled_projections"],
            cast[f"{t}timestep{i}"], cast[t + "img_ids"], cast[f"{t}guidance{i}"], taps if i == 0 else None,
        )  # fmt: skip
    out.update({f"{t}t0.{k}": v for k, v in taps.items() if k.startswith(("temb", "double", "single", "norm_out"))})
    states, out["clip.pooled"] = models["text_encoder"](ids["tokens.clip.ids"].long())
    out["clip.last_hidden_state"] = states[:2]
    t5_ids = ids["tokens.t5.ids"][:, :EMBED_LENGTH].long()
    out["t5.last_hidden_state"] = models["text_encoder_2"](t5_ids)
    out["vae.decode.out"] = models["vae"].decode(cast["vae.latent"])
    out["vae.encode.mean"], out["vae.encode.logvar"] = models["vae"].encode(cast["vae.image"])
    return out


def main() -> None:
    folder, case_folder = Path(sys.argv[1]), Path(sys.argv[2])
    torch.manual_seed(404)
    torch.set_grad_enabled(False)
    models = {name: load_part(folder, name)[0].eval() for name in PARTS}
    ids = tokens(folder)
    t = "transformer."
    inputs = {
        t + "hidden_states": torch.randn(1, ROWS * COLUMNS, 64),
        t + "encoder_hidden_states": models["text_encoder_2"](ids["tokens.t5.ids"][:1, :TEXT].long()),
        t + "pooled_projections": models["text_encoder"](ids["tokens.clip.ids"][:1].long())[1],
        t + "img_ids": definition.image_ids(ROWS, COLUMNS),
        t + "txt_ids": torch.zeros(TEXT, 3),
        "vae.latent": torch.randn(1, 16, 6, 10),
        "vae.image": torch.randn(1, 3, 5, 7).repeat_interleave(8, 2).repeat_interleave(8, 3).mul(0.5).clamp(-1, 1),
    }
    for i, (timestep, guidance) in enumerate(STEPS):
        inputs[f"{t}timestep{i}"] = torch.tensor([timestep])
        inputs[f"{t}guidance{i}"] = torch.tensor([guidance])
    expected = evaluate(models, inputs, ids, torch.float32)
    definition.sinusoid = _sinusoid64
    exact = evaluate(models, inputs, ids, torch.float64)
    rules = {}
    for name, value in expected.items():
        rms = value.double().pow(2).mean().sqrt().item()
        difference = (value.double() - exact[name].double()).abs().max().item()
        atol = max(5e-5 * max(1.0, rms), 4 * difference)
        rules[name] = {
            "shape": list(value.shape), "dtype": "float32", "rms": float(f"{rms:.4g}"),
            "diff_to_float64": float(f"{difference:.3g}"), "atol": float(f"{atol:.3g}"), "rtol": 1e-4,
        }  # fmt: skip
    for name, value in ids.items():
        rules[name] = {"shape": list(value.shape), "dtype": "int32", "exact": True}
    case_folder.mkdir(parents=True, exist_ok=True)
    case = {
        "case": "scenes",
        "summary": "The trained demo model against the PyTorch definition it was trained with",
        "seed": 404,
        "model": os.path.relpath(folder, case_folder),
        "compute": "float32 on CPU; bf16 weights widened before any arithmetic",
        "tolerance_rule": "pass if |got - expected| <= atol + rtol * |expected| element by element; integers must match exactly",
        "params": {"text_prompts": list(range(len(PROMPTS))), "t5_embed_len": EMBED_LENGTH},
        "inputs": {k: {"shape": list(v.shape), "dtype": "float32"} for k, v in sorted(inputs.items())},
        "expected": dict(sorted(rules.items())),
    }
    (case_folder / "case.json").write_text(json.dumps(case, indent=1) + "\n")
    (case_folder / "prompts.json").write_text(json.dumps(PROMPTS, indent=1, ensure_ascii=False) + "\n")
    save_file({k: v.contiguous() for k, v in inputs.items()}, case_folder / "inputs.safetensors")
    save_file({k: v.contiguous() for k, v in {**expected, **ids}.items()}, case_folder / "expected.safetensors")


if __name__ == "__main__":
    main()
