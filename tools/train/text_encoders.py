"""CLIP text model and T5 v1.1 encoder; state_dict keys are those of the published folder layout."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


def _heads(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class ClipAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x):
        q, k, v = (_heads(p(x), self.heads) for p in (self.q_proj, self.k_proj, self.v_proj))
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(h.transpose(1, 2).flatten(2))


class ClipMlp(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x):
        h = self.fc1(x)
        return self.fc2(h * torch.sigmoid(1.702 * h))


class ClipLayer(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        width = config["hidden_size"]
        self.layer_norm1 = nn.LayerNorm(width, eps=config["layer_norm_eps"])
        self.self_attn = ClipAttention(width, config["num_attention_heads"])
        self.layer_norm2 = nn.LayerNorm(width, eps=config["layer_norm_eps"])
        self.mlp = ClipMlp(width, config["intermediate_size"])

    def forward(self, x):
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class ClipEmbeddings(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        self.token_embedding = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.position_embedding = nn.Embedding(config["max_position_embeddings"], config["hidden_size"])

    def forward(self, ids):
        return self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[1]]


class ClipEncoder(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        self.layers = nn.ModuleList([ClipLayer(config) for _ in range(config["num_hidden_layers"])])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class ClipTextTransformer(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        self.embeddings = ClipEmbeddings(config)
        self.encoder = ClipEncoder(config)
        self.final_layer_norm = nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])


class ClipTextModel(nn.Module):
    """ids [B, 77] -> (last hidden state [B, 77, C], pooled [B, C]); pooled at the first end token."""

    def __init__(self, config: dict):
        super().__init__()
        self.text_model = ClipTextTransformer(config)

    def forward(self, ids):
        model = self.text_model
        states = model.final_layer_norm(model.encoder(model.embeddings(ids)))
        # The end token has the largest id; argmax takes its first occurrence.
        return states, states[torch.arange(ids.shape[0], device=ids.device), ids.argmax(dim=-1)]


class T5Norm(nn.Module):
    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * (x.float() * scale).to(x.dtype)


class T5Attention(nn.Module):
    def __init__(self, config: dict, has_bias: bool):
        super().__init__()
        width, inner = config["d_model"], config["num_heads"] * config["d_kv"]
        self.heads = config["num_heads"]
        self.q = nn.Linear(width, inner, bias=False)
        self.k = nn.Linear(width, inner, bias=False)
        self.v = nn.Linear(width, inner, bias=False)
        self.o = nn.Linear(inner, width, bias=False)
        if has_bias:
            self.relative_attention_bias = nn.Embedding(config["relative_attention_num_buckets"], self.heads)

    def forward(self, x, bias):
        q, k, v = (_heads(p(x), self.heads) for p in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), scale=1.0)
        return self.o(h.transpose(1, 2).flatten(2))


class T5SelfAttentionLayer(nn.Module):
    def __init__(self, config: dict, has_bias: bool):
        super().__init__()
        self.SelfAttention = T5Attention(config, has_bias)
        self.layer_norm = T5Norm(config["d_model"], config["layer_norm_epsilon"])

    def forward(self, x, bias):
        return x + self.SelfAttention(self.layer_norm(x), bias)


class T5GatedMlp(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        self.wi_0 = nn.Linear(config["d_model"], config["d_ff"], bias=False)
        self.wi_1 = nn.Linear(config["d_model"], config["d_ff"], bias=False)
        self.wo = nn.Linear(config["d_ff"], config["d_model"], bias=False)

    def forward(self, x):
        return self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))


class T5MlpLayer(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        self.DenseReluDense = T5GatedMlp(config)
        self.layer_norm = T5Norm(config["d_model"], config["layer_norm_epsilon"])

    def forward(self, x, bias):
        return x + self.DenseReluDense(self.layer_norm(x))


class T5Block(nn.Module):
    def __init__(self, config: dict, has_bias: bool):
        super().__init__()
        self.layer = nn.ModuleList([T5SelfAttentionLayer(config, has_bias), T5MlpLayer(config)])

    def forward(self, x, bias):
        return self.layer[1](self.layer[0](x, bias), bias)


class T5Stack(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        self.block = nn.ModuleList([T5Block(config, i == 0) for i in range(config["num_layers"])])
        self.final_layer_norm = T5Norm(config["d_model"], config["layer_norm_epsilon"])


class T5Encoder(nn.Module):
    """ids [B, S] -> features [B, S, C]. Padding is not masked, as in the FLUX pipeline."""

    def __init__(self, config: dict):
        super().__init__()
        self.buckets = config["relative_attention_num_buckets"]
        self.max_distance = config["relative_attention_max_distance"]
        self.shared = nn.Embedding(config["vocab_size"], config["d_model"])
        self.encoder = T5Stack(config)

    def _bias(self, length: int):
        """Relative position bias [1, heads, S, S] of the first block, shared by all."""
        table = self.encoder.block[0].layer[0].SelfAttention.relative_attention_bias
        position = torch.arange(length, device=table.weight.device)
        delta = position[None, :] - position[:, None]
        half = self.buckets // 2
        exact = half // 2
        far = delta.abs().clamp(min=1).float() / exact
        far = exact + (torch.log(far) / math.log(self.max_distance / exact) * (half - exact)).long()
        bucket = torch.where(delta.abs() < exact, delta.abs(), far.clamp(max=half - 1))
        return table(bucket + half * (delta > 0)).permute(2, 0, 1).unsqueeze(0)

    def forward(self, ids):
        x, bias = self.shared(ids), self._bias(ids.shape[1])
        for block in self.encoder.block:
            x = block(x, bias)
        return self.encoder.final_layer_norm(x)
