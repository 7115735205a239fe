"""Two more networks that predict the next token: a recurrent one, and a transformer whose layers choose experts.

    y  =  sum over the ACTIVE experts e of greatest p_e  of  p_e / (their sum) * expert_e(x),      p = softmax(router x)

Sources: Cho et al., Learning phrase representations using RNN encoder-decoder, EMNLP 2014, for the gated recurrent
unit; Shazeer et al., Outrageously large neural networks, ICLR 2017, for the mixture; Fedus, Zoph, Shazeer, Switch
transformers, JMLR 2022, for the loss that balances it.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

WIDTH, HEADS, LAYERS = 64, 4, 2
"""Of the mixture, as of the transformer."""
HIDDEN = 128
"""States of the recurrence, and hidden units of an expert."""
EXPERTS, ACTIVE = 4, 2
BALANCE = 0.01
"""What the loss of balance counts for, as in its paper."""


class GatedRecurrence(nn.Module):
    """Logits for the next token at each place, by a gated recurrent unit of 128.

    Args:
        vocabulary: tokens that there are.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, WIDTH)
        self.recurrence = nn.GRU(WIDTH, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, vocabulary)
        nn.init.normal_(self.tokens.weight, std=WIDTH**-0.5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, length) integers to (N, length, vocabulary) logits."""
        states, _ = self.recurrence(self.tokens(tokens))
        return self.head(states)  # type: ignore[no-any-return]


class Experts(nn.Module):
    """Four small networks of one hidden layer, two of which work on each token."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, EXPERTS, bias=False)
        self.first = nn.Parameter(torch.empty(EXPERTS, HIDDEN, WIDTH).uniform_(-(WIDTH**-0.5), WIDTH**-0.5))
        self.second = nn.Parameter(torch.empty(EXPERTS, WIDTH, HIDDEN).uniform_(-(HIDDEN**-0.5), HIDDEN**-0.5))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(..., WIDTH) to the same shape, and how unevenly the experts are chosen: 1 where all have as much to do."""
        rows = x.flatten(0, -2)
        shares = self.router(rows).softmax(1)
        chosen = shares.topk(ACTIVE, 1).indices
        mask = torch.zeros_like(shares).scatter_(1, chosen, 1.0)
        imbalance = EXPERTS * (mask.mean(0) / ACTIVE * shares.mean(0)).sum()
        gates = shares * mask
        gates = gates / gates.sum(1, keepdim=True)
        first, second = self.first * 1.0, self.second * 1.0  # codes are decoded once, not expert by expert
        y = torch.zeros_like(rows)
        for e in range(EXPERTS):
            of_e = mask[:, e].nonzero()[:, 0]
            out = F.gelu(rows[of_e] @ first[e].T) @ second[e].T
            y = y.index_add(0, of_e, out * gates[of_e, e : e + 1])
        return y.view_as(x), imbalance


class _Layer(nn.Module):
    """Attention to what came before and a mixture of experts, each beside the identity, normalization first."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_experts = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.experts = Experts()

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, length, WIDTH) to the same shape, and the experts' imbalance."""
        normal = self.before_attention(x)
        x = x + self.attention(normal, normal, normal, attn_mask=mask, is_causal=True, need_weights=False)[0]
        y, imbalance = self.experts(self.before_experts(x))
        return x + y, imbalance


class MixtureOfExperts(nn.Module):
    """Logits for the next token at each place, by two layers with four experts each.

    Args:
        vocabulary: tokens that there are.
        length: places at most.
    """

    def __init__(self, vocabulary: int, length: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, WIDTH), nn.Embedding(length, WIDTH)
        self.layers = nn.ModuleList([_Layer() for _ in range(LAYERS)])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, vocabulary)
        for draw in (self.tokens, self.places):
            nn.init.normal_(draw.weight, std=WIDTH**-0.5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, length) integers to (N, length, vocabulary) logits."""
        return self.with_imbalance(tokens)[0]

    def with_imbalance(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits, and what they add to the training loss, so that no expert is left without tokens."""
        length = tokens.shape[1]
        x = self.tokens(tokens) + self.places.weight[:length]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device)
        imbalance = x.new_zeros(())
        for layer in self.layers:
            x, of_layer = layer(x, mask)
            imbalance = imbalance + BALANCE * of_layer
        return self.head(self.norm(x)), imbalance
