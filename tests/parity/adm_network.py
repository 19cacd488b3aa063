"""A U-Net of the ADM kind in torch, written from the description in Dhariwal & Nichol (2021), without our network.

From DDPM (Ho et al. 2020): residual blocks of two 3x3 convolutions, each after group normalisation and SiLU; sinusoids
of the noise level, cosines first, through Linear, SiLU, Linear; nearest-neighbour up-sampling and strided
down-sampling with a convolution; every activation on the way down joins one block on the way up. From ADM: the
embedding scales and shifts the second normalisation of each block (AdaGN), attention in heads at several resolutions, a
class embedding added to that of the noise level. Its choices where descriptions differ: the frequencies include both
ends, as DDPM's; a group has at least four channels, as EDM's (Karras et al. 2022), and epsilon is 1e-6, as DDPM's; a
table of classes has one more row, for "no class".

Modules have the names of our parameters, so that weights are transplanted by name.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

SINUSOIDS = 128


def normalisation(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, max(1, channels // 4)), channels, eps=1e-6)


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)


class Embedding(nn.Module):
    """What every block is told: noise level and class."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.time_embed = nn.ModuleDict({"hidden": nn.Linear(SINUSOIDS, width), "output": nn.Linear(width, width)})
        if classes:
            self.class_embed = nn.ModuleDict({"embedding": nn.Embedding(classes + 1, width)})

    def forward(self, t: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        half = SINUSOIDS // 2
        angles = 1000.0 * t[:, None] * 10_000.0 ** (-torch.arange(half) / (half - 1))
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        told = self.time_embed["output"](functional.silu(self.time_embed["hidden"](waves)))
        return told if labels is None else told + self.class_embed["embedding"](labels)


class Block(nn.Module):
    """A residual block."""

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.norm_in, self.norm_out = normalisation(inputs), normalisation(outputs)
        self.conv_in, self.conv_out = convolution(inputs, outputs), convolution(outputs, outputs)
        if width:
            self.film = nn.ModuleDict({"dense": nn.Linear(width, 2 * outputs)})
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: torch.Tensor, told: torch.Tensor | None) -> torch.Tensor:
        h = self.norm_out(self.conv_in(functional.silu(self.norm_in(x))))
        if told is not None:
            scale, shift = self.film["dense"](functional.silu(told))[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return self.conv_out(functional.silu(h)) + (x if self.skip is None else self.skip(x))


class Attention(nn.Module):
    """Self-attention over the pixels."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = normalisation(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pixels = self.norm(x).flatten(2).mT
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(pixels).chunk(3, dim=2))
        weights = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), dim=-1)
        return x + self.out((weights @ v).transpose(1, 2).flatten(2)).mT.reshape(x.shape)


class Network(nn.Module):
    """The U-Net, [B, C, H, W] to the same.

    Args:
        colours: C.
        channels: of the first level.
        multipliers: of the levels.
        blocks: per level on the way down.
        attended: heights of the levels with attention.
        heads: of the attention.
        classes: number of classes; 0 for none.
        blind: no noise level and no classes.
        height: H.
    """

    def __init__(
        self,
        colours: int,
        channels: int,
        multipliers: tuple[int, ...],
        blocks: int,
        attended: tuple[int, ...],
        heads: int,
        classes: int,
        height: int,
        *,
        blind: bool = False,
    ) -> None:
        super().__init__()
        width = 0 if blind else 4 * channels
        self.levels, self.blocks, self.attended, self.height = len(multipliers), blocks, attended, height
        self.conditioning = None if blind else Embedding(width, classes)
        self.parts = nn.ModuleDict({"input": convolution(colours, channels)})
        stored, now = [channels], channels
        for level, multiplier in enumerate(multipliers):
            if level:
                self.parts[f"down_{level}_resample"] = nn.ModuleDict({"conv": convolution(now, now, 2)})
                stored.append(now)
            for i in range(blocks):
                self._add(f"down_{level}_block_{i}", now, channels * multiplier, width, level, heads)
                now = channels * multiplier
                stored.append(now)
        self.parts["middle_block_0"] = Block(now, now, width)
        self.parts["middle_attention"] = Attention(now, heads)
        self.parts["middle_block_1"] = Block(now, now, width)
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for i in range(blocks + 1):
                self._add(f"up_{level}_block_{i}", now + stored.pop(), channels * multiplier, width, level, heads)
                now = channels * multiplier
            if level:
                self.parts[f"up_{level}_resample"] = nn.ModuleDict({"conv": convolution(now, now)})
        self.parts["output_norm"] = normalisation(now)
        self.parts["output"] = convolution(now, colours)

    def _add(self, name: str, inputs: int, outputs: int, width: int, level: int, heads: int) -> None:
        self.parts[name] = Block(inputs, outputs, width)
        if self.height // 2**level in self.attended:
            self.parts[f"{name}_attention"] = Attention(outputs, heads)

    def _block(self, name: str, x: torch.Tensor, told: torch.Tensor | None) -> torch.Tensor:
        x = self.parts[name](x, told)
        return self.parts[f"{name}_attention"](x) if f"{name}_attention" in self.parts else x

    def forward(
        self, x: torch.Tensor, t: torch.Tensor | None = None, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        told = None if self.conditioning is None else self.conditioning(t, labels)
        x = self.parts["input"](x)
        stored = [x]
        for level in range(self.levels):
            if level:
                x = self.parts[f"down_{level}_resample"]["conv"](x)
                stored.append(x)
            for i in range(self.blocks):
                x = self._block(f"down_{level}_block_{i}", x, told)
                stored.append(x)
        x = self.parts["middle_attention"](self.parts["middle_block_0"](x, told))
        x = self.parts["middle_block_1"](x, told)
        for level in reversed(range(self.levels)):
            for i in range(self.blocks + 1):
                x = self._block(f"up_{level}_block_{i}", torch.cat([x, stored.pop()], dim=1), told)
            if level:
                x = self.parts[f"up_{level}_resample"]["conv"](functional.interpolate(x, scale_factor=2.0))
        return self.parts["output"](functional.silu(self.parts["output_norm"](x)))
