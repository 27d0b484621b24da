"""FLUX transformer; state_dict keys are those of the published folder layout."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


def sinusoid(values: torch.Tensor, width: int = 256) -> torch.Tensor:
    """[B] -> [B, width], cosines first, in float32."""
    half = width // 2
    exponent = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=values.device) / half
    angle = values.float()[:, None] * torch.exp(exponent)[None]
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def rotary(ids: torch.Tensor, axes: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """ids [S, 3] -> cos, sin [S, head_dim], each frequency twice in a row."""
    cos, sin = [], []
    for axis, width in enumerate(axes):
        power = torch.arange(0, width, 2, dtype=torch.float64, device=ids.device) / width
        angle = torch.outer(ids[:, axis].double(), 10000.0**-power)
        cos.append(angle.cos().repeat_interleave(2, dim=1))
        sin.append(angle.sin().repeat_interleave(2, dim=1))
    return torch.cat(cos, 1).float(), torch.cat(sin, 1).float()


def image_ids(rows: int, columns: int, device=None) -> torch.Tensor:
    grid = torch.zeros(rows, columns, 3, device=device)
    grid[..., 1] = torch.arange(rows, device=device)[:, None]
    grid[..., 2] = torch.arange(columns, device=device)[None]
    return grid.reshape(-1, 3)


def _rotate(x, cos, sin):
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    return (x.float() * cos + turned * sin).to(x.dtype)


class RmsNorm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)
        return (x.float() * scale * self.weight).to(x.dtype)


def _plain_norm(x):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


class Modulation(nn.Module):
    def __init__(self, width: int, parts: int):
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(width, parts * width)

    def forward(self, temb):
        return self.linear(F.silu(temb)).unsqueeze(1).chunk(self.parts, dim=-1)


class GeluProjection(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.proj = nn.Linear(inputs, outputs)

    def forward(self, x):
        return F.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        # Index 1 is a dropout in the published layout; it has no parameters.
        self.net = nn.ModuleList([GeluProjection(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x):
        return self.net[2](self.net[0](x))


class JointAttention(nn.Module):
    def __init__(self, width: int, head_dim: int):
        super().__init__()
        self.head_dim = head_dim
        for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"):
            setattr(self, name, nn.Linear(width, width))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            setattr(self, name, RmsNorm(head_dim))

    def _split(self, x):
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def forward(self, image, text, cos, sin):
        split = self._split
        q = torch.cat([self.norm_added_q(split(self.add_q_proj(text))), self.norm_q(split(self.to_q(image)))], 2)
        k = torch.cat([self.norm_added_k(split(self.add_k_proj(text))), self.norm_k(split(self.to_k(image)))], 2)
        v = torch.cat([split(self.add_v_proj(text)), split(self.to_v(image))], 2)
        out = F.scaled_dot_product_attention(_rotate(q, cos, sin).to(v.dtype), _rotate(k, cos, sin).to(v.dtype), v)
        out = out.transpose(1, 2).flatten(2)
        length = text.shape[1]
        return self.to_out[0](out[:, length:]), self.to_add_out(out[:, :length])


class DoubleBlock(nn.Module):
    def __init__(self, width: int, head_dim: int):
        super().__init__()
        self.norm1 = Modulation(width, 6)
        self.norm1_context = Modulation(width, 6)
        self.attn = JointAttention(width, head_dim)
        self.ff = FeedForward(width)
        self.ff_context = FeedForward(width)

    def forward(self, image, text, temb, cos, sin):
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.norm1(temb)
        t_shift, t_scale, t_gate, t_shift_mlp, t_scale_mlp, t_gate_mlp = self.norm1_context(temb)
        a, b = self.attn(
            _plain_norm(image) * (1 + scale) + shift, _plain_norm(text) * (1 + t_scale) + t_shift, cos, sin
        )
        image = image + gate * a
        text = text + t_gate * b
        image = image + gate_mlp * self.ff(_plain_norm(image) * (1 + scale_mlp) + shift_mlp)
        text = text + t_gate_mlp * self.ff_context(_plain_norm(text) * (1 + t_scale_mlp) + t_shift_mlp)
        return image, text


class SelfAttention(nn.Module):
    def __init__(self, width: int, head_dim: int):
        super().__init__()
        self.head_dim = head_dim
        for name in ("to_q", "to_k", "to_v"):
            setattr(self, name, nn.Linear(width, width))
        self.norm_q, self.norm_k = RmsNorm(head_dim), RmsNorm(head_dim)

    def forward(self, x, cos, sin):
        q, k, v = (p(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for p in (self.to_q, self.to_k, self.to_v))
        q, k = _rotate(self.norm_q(q), cos, sin).to(v.dtype), _rotate(self.norm_k(k), cos, sin).to(v.dtype)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class SingleBlock(nn.Module):
    def __init__(self, width: int, head_dim: int):
        super().__init__()
        self.norm = Modulation(width, 3)
        self.attn = SelfAttention(width, head_dim)
        self.proj_mlp = nn.Linear(width, 4 * width)
        self.proj_out = nn.Linear(5 * width, width)

    def forward(self, x, temb, cos, sin):
        shift, scale, gate = self.norm(temb)
        h = _plain_norm(x) * (1 + scale) + shift
        mlp = F.gelu(self.proj_mlp(h), approximate="tanh")
        return x + gate * self.proj_out(torch.cat([self.attn(h, cos, sin), mlp], dim=-1))


class Embedder(nn.Module):
    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.linear_1 = nn.Linear(inputs, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, x):
        return self.linear_2(F.silu(self.linear_1(x)))


class Conditioning(nn.Module):
    def __init__(self, width: int, pooled: int, guidance: bool):
        super().__init__()
        self.timestep_embedder = Embedder(256, width)
        if guidance:
            self.guidance_embedder = Embedder(256, width)
        self.text_embedder = Embedder(pooled, width)
        self.guidance = guidance

    def forward(self, timestep, guidance, pooled):
        out = self.timestep_embedder(sinusoid(1000 * timestep.float()))
        if self.guidance:
            out = out + self.guidance_embedder(sinusoid(1000 * guidance.float()))
        return out + self.text_embedder(pooled)


class FluxTransformer(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        head_dim = config["attention_head_dim"]
        width = head_dim * config["num_attention_heads"]
        self.axes = config.get("axes_dims_rope", [16, 56, 56])
        self.time_text_embed = Conditioning(width, config["pooled_projection_dim"], config["guidance_embeds"])
        self.context_embedder = nn.Linear(config["joint_attention_dim"], width)
        self.x_embedder = nn.Linear(config["in_channels"], width)
        self.transformer_blocks = nn.ModuleList([DoubleBlock(width, head_dim) for _ in range(config["num_layers"])])
        self.single_transformer_blocks = nn.ModuleList(
            [SingleBlock(width, head_dim) for _ in range(config["num_single_layers"])]
        )
        self.norm_out = Modulation(width, 2)
        self.proj_out = nn.Linear(width, config["in_channels"])

    def initialise(self) -> None:
        """Every block starts as the identity and the prediction as zero."""
        for module in self.modules():
            if isinstance(module, Modulation):
                nn.init.zeros_(module.linear.weight)
                nn.init.zeros_(module.linear.bias)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, hidden_states, encoder_hidden_states, pooled, timestep, img_ids, guidance=None, taps=None):
        """Packed latents [B, N, 64] and text features [B, T, C] -> velocity [B, N, 64].

        timestep [B] in [0, 1]; taps: a dict that receives intermediates (for fixtures).
        """
        length = encoder_hidden_states.shape[1]
        ids = torch.cat([torch.zeros(length, 3, device=img_ids.device), img_ids.float()])
        cos, sin = rotary(ids, self.axes)
        temb = self.time_text_embed(timestep, guidance, pooled)
        image, text = self.x_embedder(hidden_states), self.context_embedder(encoder_hidden_states)
        if taps is not None:
            taps.update(x_embedder=image, temb=temb, context_embedder=text, rope_cos=cos, rope_sin=sin)
        for i, block in enumerate(self.transformer_blocks):
            image, text = block(image, text, temb, cos, sin)
            if taps is not None:
                taps.update({f"double.{i}.txt": text, f"double.{i}.img": image})
        joint = torch.cat([text, image], dim=1)
        for i, block in enumerate(self.single_transformer_blocks):
            joint = block(joint, temb, cos, sin)
            if taps is not None:
                taps.update({f"single.{i}.txt": joint[:, :length], f"single.{i}.img": joint[:, length:]})
        scale, shift = self.norm_out(temb)
        image = _plain_norm(joint[:, length:]) * (1 + scale) + shift
        if taps is not None:
            taps["norm_out"] = image
        return self.proj_out(image)
