"""Dialogues with several right replies: a latent a turn says which of them it will be."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import Space
from torch import Tensor, nn

from seqrl.core.checks import check_amount, check_whole
from seqrl.core.tokens import PAD
from seqrl.core.types import State
from seqrl.networks.latents import kl, normal_of
from seqrl.networks.options import probability
from seqrl.networks.sequences.hred import HRED
from seqrl.networks.sequences.replies import Replies


class VHRED(HRED):
    """HRED with a latent a turn (Serban et al. 2017).

    Where a reply opens, a normal latent is drawn given the context; the reply is about both. What
    is drawn is made of the noise that the agent hands over, so a reply is learned from reward with
    the latent that it was written with; without noise the latent is the prior's mean. Where right
    answers are learned (`study`) it is drawn from a posterior, which has read the right reply, and
    the loss has the term kl: then -log-likelihood + kl is an upper bound on the reply's surprise
    (Kingma and Welling 2014), where its weight is 1.

    latent: numbers of it, at least 1.
    kl_weight: of the divergence from posterior to prior, at least 0; it grows from 0 on over the
        first `kl_anneal` steps learned from (Bowman et al. 2016).
    free_bits: nats of each number, of the mean over replies, that cost nothing (Kingma et al.
        2016): room for a choice between replies. Without it the latent stays unused. What it may
        tell beyond, as while the weight grows, the context is late to learn.
    word_drop: share of the tokens before that are hidden where right answers are learned, so that
        the latent is used (Bowman et al. 2016).
    Other arguments are those of Seq2Seq.
    Memory: that of Seq2Seq; "about" is context and latent [N, hidden_size + latent].
    """

    studied: Tensor

    def __init__(
        self,
        space: Space,
        hidden_size: int = 64,
        *,
        latent: int = 4,
        kl_weight: float = 1.0,
        kl_anneal: int = 0,
        free_bits: float = 0.12,
        word_drop: float = 0.25,
        **others: Any,
    ) -> None:
        self.noise = check_whole("latent", latent)
        super().__init__(space, hidden_size, **others)
        check_amount("kl_weight", kl_weight)
        check_amount("free_bits", free_bits)
        self.kl_weight, self.free_bits = kl_weight, free_bits
        self.kl_anneal = check_whole("kl_anneal", kl_anneal, 0)
        self.word_drop = probability("word_drop", word_drop)
        self.prior = normal_layers(hidden_size, hidden_size, latent)
        self.posterior = normal_layers(2 * hidden_size, hidden_size, latent)
        self.register_buffer("studied", torch.zeros((), dtype=torch.int64))

    def forward(
        self, obs: Any, start: Tensor, state: State = None, noise: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Map as Seq2Seq does; `noise` [T, N, latent] makes the latents, None their means."""
        replies, state, sources = self._open(obs, start, state)
        context = self._about(sources, replies, start, state)
        mean, log_variance = normal_of(self.prior(context))
        latent = mean
        if noise is not None:
            latent = mean + (0.5 * log_variance).exp() * replies.first(noise)
        about = torch.cat([context, latent], -1)
        return self._write(self._embedded(obs), replies, about, sources, state)

    def study(
        self, obs: Any, start: Tensor, state: State, answer: Tensor, valid: Tensor
    ) -> tuple[Tensor, State, dict[str, Tensor]]:
        """Map with latents drawn from the posterior; name the divergence kl, a mean over steps."""
        replies, state, sources = self._open(obs, start, state)
        context = self._about(sources, replies, start, state)
        prior = normal_of(self.prior(context))
        said = self._read_replies(replies, answer, valid)
        posterior = normal_of(self.posterior(torch.cat([context, said], -1)))
        mean, log_variance = posterior
        latent = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        about = torch.cat([context, latent], -1)
        x = self._dropped(self._embedded(obs))
        taught = replies.apart(valid)[:, replies.new].any(0)
        divergence = kl(posterior, prior)[taught]
        terms = {"kl": self._term(divergence, valid.sum())}
        return *self._write(x, replies, about, sources, state), terms

    def _read_replies(self, replies: Replies, answer: Tensor, valid: Tensor) -> Tensor:
        """Return the summary [R, H] of the right answers in the replies that open."""
        told = torch.where(valid, answer.long(), PAD)
        tokens = replies.apart(told)[:, replies.new]
        place = torch.arange(1, len(tokens) + 1, device=tokens.device)[:, None]
        length = (place * (tokens != PAD)).amax(0)
        return self._read(self.table(tokens) * self._scale, length)["summary"]

    def _dropped(self, x: Tensor) -> Tensor:
        """Return embeddings [T, N, E], some of them 0 in training."""
        if not (self.training and self.word_drop):
            return x
        hidden = torch.rand(x.shape[:2], device=x.device) < self.word_drop
        return x.masked_fill(hidden[..., None], 0.0)

    def _term(self, divergence: Tensor, steps: Tensor) -> Tensor:
        """Return the weighted divergence [replies, latent] of so many steps, a mean over these."""
        each = divergence.sum(0) / max(1, len(divergence))
        counted = each.clamp(min=self.free_bits).sum() * len(divergence)
        grown = (self.studied / self.kl_anneal).clamp(max=1.0) if self.kl_anneal else 1.0
        return self.kl_weight * grown * counted / steps.clamp(min=1)

    def update(self, obs: Any, valid: Tensor) -> None:
        """Count the steps learned from."""
        self.studied += valid.sum()


def normal_layers(inputs: int, hidden: int, latent: int) -> nn.Sequential:
    """Return layers from [..., inputs] to means and logarithms of variances, side by side."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, 2 * latent))
