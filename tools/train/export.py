"""Reads and writes the model folder: configurations, bf16 safetensors, tokenizers."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from autoencoder import Autoencoder
from text_encoders import ClipTextModel, T5Encoder
from transformer import FluxTransformer

PARTS = {
    "transformer": (FluxTransformer, "diffusion_pytorch_model.safetensors"),
    "vae": (Autoencoder, "diffusion_pytorch_model.safetensors"),
    "text_encoder": (ClipTextModel, "model.safetensors"),
    "text_encoder_2": (T5Encoder, "model.safetensors"),
}


def default_configs(folder: Path) -> dict[str, dict]:
    """The demo model's configurations; vocabulary sizes come from the tokenizers in `folder`."""
    clip_size = len(json.loads((folder / "tokenizer" / "vocab.json").read_text()))
    t5_size = len(json.loads((folder / "tokenizer_2" / "tokenizer.json").read_text())["model"]["vocab"])
    return {
        "transformer": {
            "_class_name": "FluxTransformer2DModel",
            "attention_head_dim": 128,
            "axes_dims_rope": [16, 56, 56],
            "guidance_embeds": True,
            "in_channels": 64,
            "joint_attention_dim": 128,
            "num_attention_heads": 2,
            "num_layers": 2,
            "num_single_layers": 5,
            "patch_size": 1,
            "pooled_projection_dim": 64,
        },
        "vae": {
            "_class_name": "AutoencoderKL",
            "act_fn": "silu",
            "block_out_channels": [24, 32, 48, 48],
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "force_upcast": True,
            "in_channels": 3,
            "latent_channels": 16,
            "latents_mean": None,
            "latents_std": None,
            "layers_per_block": 1,
            "mid_block_add_attention": True,
            "norm_num_groups": 8,
            "out_channels": 3,
            "sample_size": 512,
            "scaling_factor": 1.0,
            "shift_factor": 0.0,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
            "use_post_quant_conv": False,
            "use_quant_conv": False,
        },
        "text_encoder": {
            "architectures": ["CLIPTextModel"],
            "bos_token_id": clip_size - 2,
            "eos_token_id": clip_size - 1,
            "hidden_act": "quick_gelu",
            "hidden_size": 64,
            "intermediate_size": 128,
            "layer_norm_eps": 1e-05,
            "max_position_embeddings": 77,
            "model_type": "clip_text_model",
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
            "pad_token_id": clip_size - 1,
            "projection_dim": 64,
            "torch_dtype": "bfloat16",
            "vocab_size": clip_size,
        },
        "text_encoder_2": {
            "architectures": ["T5EncoderModel"],
            "d_ff": 256,
            "d_kv": 32,
            "d_model": 128,
            "decoder_start_token_id": 0,
            "dense_act_fn": "gelu_new",
            "dropout_rate": 0.0,
            "eos_token_id": 1,
            "feed_forward_proj": "gated-gelu",
            "is_encoder_decoder": True,
            "is_gated_act": True,
            "layer_norm_epsilon": 1e-06,
            "model_type": "t5",
            "num_heads": 4,
            "num_layers": 2,
            "pad_token_id": 0,
            "relative_attention_max_distance": 128,
            "relative_attention_num_buckets": 32,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vocab_size": t5_size,
        },
    }


INDEX = {
    "_class_name": "FluxPipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
SCHEDULER = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
}


def _write_json(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def new_part(name: str, config: dict) -> torch.nn.Module:
    return PARTS[name][0](config)


def load_part(folder: Path, name: str) -> tuple[torch.nn.Module, dict]:
    """The model in float32 on the CPU, and its configuration."""
    config = json.loads((folder / name / "config.json").read_text())
    model = new_part(name, config)
    state = load_file(folder / name / PARTS[name][1])
    model.load_state_dict({k: v.float() for k, v in state.items()})
    return model, config


def save_part(folder: Path, name: str, state: dict[str, torch.Tensor], config: dict) -> None:
    _write_json(folder / name / "config.json", config)
    tensors = {k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in sorted(state.items())}
    save_file(tensors, folder / name / PARTS[name][1], metadata={"format": "pt"})


def save_frame(folder: Path) -> None:
    """What has no weights: the index of the parts and the scheduler."""
    _write_json(folder / "model_index.json", INDEX)
    _write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
