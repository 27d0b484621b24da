"""Muon for the blocks' matrices, AdamW for the rest, and an average of the weights."""

from __future__ import annotations

from collections import defaultdict

import torch


def orthogonalise(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Approximate U Vᵀ of each matrix [n, r, c] by a quintic Newton-Schulz iteration (Jordan et al., Muon)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon:
    """Momentum, orthogonalised per matrix; matrices of one shape are updated together.

    The factor 0.2 sqrt(max(r, c)) gives updates the size of AdamW's, so both share learning rates.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], momentum: float = 0.95, weight_decay: float = 0.01):
        self.groups = defaultdict(list)
        for p in parameters:
            self.groups[tuple(p.shape)].append(p)
        self.momentum, self.weight_decay = momentum, weight_decay
        self.buffers = {
            shape: torch.zeros(len(ps), *shape, device=ps[0].device) for shape, ps in self.groups.items()
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for shape, parameters in self.groups.items():
            gradient = torch.stack([p.grad for p in parameters])
            buffer = self.buffers[shape]
            buffer.lerp_(gradient, 1 - self.momentum)
            update = orthogonalise(gradient.lerp(buffer, self.momentum)).float()
            torch._foreach_mul_(parameters, 1 - rate * self.weight_decay)
            torch._foreach_add_(parameters, list(update.unbind()), alpha=-0.2 * rate * max(shape) ** 0.5)


def split_parameters(models: dict[str, torch.nn.Module]):
    """(matrices for Muon, the rest)."""
    matrices, rest = [], []
    for model in models.values():
        for name, p in model.named_parameters():
            inside = "block" in name or "layers." in name
            special = "norm" in name or "bias" in name
            (matrices if inside and p.ndim == 2 and not special else rest).append(p)
    return matrices, rest


class Average:
    """Exponential moving average of the parameters, with a horizon that grows up to 1 / (1 - decay) steps."""

    def __init__(self, models: dict[str, torch.nn.Module], decay: float):
        self.decay, self.updates = decay, 0
        self.parameters = {n: dict(m.named_parameters()) for n, m in models.items()}
        self.values = {n: {k: p.detach().clone() for k, p in ps.items()} for n, ps in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, values in self.values.items():
            torch._foreach_lerp_(
                list(values.values()), [self.parameters[name][k].detach() for k in values], weight
            )


def rate_factor(step: int, progress: float, warmup: int, decay_share: float, floor: float) -> float:
    """Linear warm-up by step, constant, then linear decay over the last `decay_share` of the leg's time."""
    up = min(1.0, (step + 1) / warmup)
    down = min(1.0, (1 - progress) / decay_share) if decay_share else 1.0
    return up * (floor + (1 - floor) * max(0.0, down))
