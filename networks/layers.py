"""Recurrent layers, for one step or for a whole rollout with episode starts inside.

Weights are as in torch: gates stacked along axis 0, [G * H, inputs] and [G * H, H], and two
biases. Memory is a tuple of [N, H] tensors: (h,), or (h, c) for an LSTM.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from seqrl.networks.options import initialise
from seqrl.networks.resets import MARKS, ResetLayout

Memory = tuple[Tensor, ...]
# standard deviation of the input weights where Elman's recurrent ones are the identity: that of
# Le, Jaitly and Hinton (2015) for relu; and one at which a tanh passes its input unsaturated
IDENTITY_INPUT_STD: dict[str | float, float] = {"irnn": 0.001, "identity": 0.2}
FEW = 2048  # numbers of memory, N * H, up to which our kernel of a GRU is faster than torch's
SATURATING = 1e4  # beyond it a sigmoid is exactly 0 or 1, a tanh exactly -1 or 1, their slopes 0


class Layer(nn.Module):
    """The weights of one recurrent layer, and its call through torch's fused kernel.

    A subclass names its kernel; its `mark_weights` set memory to zero at a reset.
    keep_bias: the whole bias of the second gate, which keeps memory (Jozefowicz et al. 2015, for
        an LSTM); None leaves it.
    """

    kernel = ""  # torch._VF.<kernel> over time, torch._VF.<kernel>_cell for one step
    gates = 1

    def __init__(
        self,
        inputs: int,
        hidden: int,
        init: str | float | None = None,
        keep_bias: float | None = None,
    ) -> None:
        super().__init__()
        size, bound = self.gates * hidden, 1 / math.sqrt(hidden)
        self.weight_ih = nn.Parameter(torch.empty(size, inputs))
        self.weight_hh = nn.Parameter(torch.empty(size, hidden))
        self.bias_ih = nn.Parameter(torch.empty(size))
        self.bias_hh = nn.Parameter(torch.empty(size))
        for weight in self.weights():
            nn.init.uniform_(weight, -bound, bound)  # as torch.nn does
        self._initialise(init, keep_bias)

    @torch.no_grad()
    def _initialise(self, init: str | float | None, keep_bias: float | None) -> None:
        """Fill every gate's two matrices by `init` and the biases with 0, unless it is None."""
        if init is not None:
            self.bias_ih.zero_()
            self.bias_hh.zero_()
        if init in IDENTITY_INPUT_STD and self.gates == 1:
            nn.init.normal_(self.weight_ih, 0.0, IDENTITY_INPUT_STD[init])
            nn.init.eye_(self.weight_hh)
        else:
            for gate in (*self.weight_ih.chunk(self.gates), *self.weight_hh.chunk(self.gates)):
                initialise(gate, init)
        if keep_bias is not None:
            self.bias_ih.chunk(self.gates)[1].fill_(keep_bias)
            self.bias_hh.chunk(self.gates)[1].zero_()

    def weights(self) -> list[Tensor]:
        """Return the weights in the order torch's kernels take them."""
        return [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]

    def mark_weights(self) -> Tensor:
        """Return the weights [G * H, 3] of the marks (see ResetLayout): exact zero memory."""
        raise NotImplementedError

    def step(self, x: Tensor, memory: Memory) -> Memory:
        """Return the memory after one step, from x [N, inputs] and the memory before it."""
        return (getattr(torch._VF, f"{self.kernel}_cell")(x, *memory, *self.weights()),)

    def run_fused(self, x: Tensor, memory: Memory, weights: list[Tensor]) -> tuple[Tensor, Memory]:
        """Run the kernel over x [T, N, inputs]; return outputs [T, N, H] and the last memory."""
        y, h = run_kernel(self.kernel, x, memory[0][None].contiguous(), weights)
        return y, (h[0],)

    def sequence(
        self, x: Tensor, start: Tensor, layout: ResetLayout | None, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """As `run_fused`, with episode starts inside; `layout` is `reset_layout(start)`.

        `memory` is already reset where an episode starts at t = 0.
        """
        weights = self.weights()
        if layout is None:
            return self.run_fused(x, memory, weights)
        weights[0] = torch.cat([weights[0], self.mark_weights()], 1)
        y, memory = self.run_fused(layout.scatter(x), memory, weights)
        y = layout.gather(y)
        return y, (y[-1], *memory[1:])

    def masked_sequence(
        self, x: Tensor, start: Tensor, memory: Memory, mask: Tensor
    ) -> tuple[Tensor, Memory]:
        """As `sequence`, the h that the gates read times `mask` [N, H], step by step."""
        outputs = []
        for t, begins in enumerate(start[..., None]):
            if t:
                memory = tuple(part.masked_fill(begins, 0.0) for part in memory)
            memory = self.masked_step(x[t], memory, mask)
            outputs.append(memory[0])
        return torch.stack(outputs), memory

    def masked_step(self, x: Tensor, memory: Memory, mask: Tensor) -> Memory:
        """As `step`, the h that the gates read times `mask`."""
        return self.step(x, (memory[0] * mask, *memory[1:]))


def run_kernel(
    name: str, x: Tensor, memory: Tensor | Memory, weights: list[Tensor]
) -> tuple[Tensor, ...]:
    """Run torch's kernel for one layer, time first; return the outputs and the last memory."""
    if x.is_cuda:  # cuDNN needs the weights contiguous, in this order
        flat = torch.cat([weight.flatten() for weight in weights])
        parts = flat.split([weight.numel() for weight in weights])
        weights = [part.view_as(like) for part, like in zip(parts, weights, strict=True)]
    backward = torch.is_grad_enabled()  # what torch calls train, when there is no dropout
    return getattr(torch._VF, name)(x, memory, weights, True, 1, 0.0, backward, False, False)


class LSTMLayer(Layer):
    """Hochreiter and Schmidhuber 1997, with forget gates (Gers et al. 2000); gates i, f, g, o."""

    kernel = "lstm"
    gates = 4

    def mark_weights(self) -> Tensor:
        """Reset: i and f closed, so c = 0 and h = o tanh(c) = 0. Padding: f open, so c stays."""
        columns = self.bias_ih.new_zeros(4, len(self.bias_ih) // 4, MARKS)
        columns[:2, :, 0] = -SATURATING
        columns[0, :, 2], columns[1, :, 2] = -SATURATING, SATURATING
        return columns.flatten(0, 1)

    def step(self, x: Tensor, memory: Memory) -> Memory:
        """Return (h, c) after one step."""
        return torch._VF.lstm_cell(x, memory, *self.weights())

    def run_fused(self, x: Tensor, memory: Memory, weights: list[Tensor]) -> tuple[Tensor, Memory]:
        """Run the kernel on (h, c)."""
        initial = tuple(part[None].contiguous() for part in memory)  # cuDNN needs contiguous ones
        y, h, c = run_kernel("lstm", x, initial, weights)
        return y, (h[0], c[0])


class GRULayer(Layer):
    """Cho et al. 2014 in torch's convention: gates r, z, n and h = (1 - z) n + z h; z keeps h."""

    kernel = "gru"
    gates = 3

    def mark_weights(self) -> Tensor:
        """Reset: r and z closed and the candidate's bias cancelled, so h = tanh(0) = 0."""
        _, _, bias = self.bias_ih.chunk(3)
        closed = torch.full_like(bias, -SATURATING)
        return reset_column(torch.cat([closed, closed, -bias]))

    def sequence(
        self, x: Tensor, start: Tensor, layout: ResetLayout | None, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """As in Layer; through our own kernel where it is faster than torch's."""
        tensors = (x, *memory, *self.weights())
        plain = all(part.dtype == torch.float32 and part.device.type == "cpu" for part in tensors)
        few = memory[0].numel() <= FEW and not torch.compiler.is_compiling()
        few = few and not torch.is_autocast_enabled("cpu")  # which narrows what the kernel is given
        if not (plain and few):
            return super().sequence(x, start, layout, memory)
        from seqrl.networks.gru_kernel import gru_rollout  # Numba takes time to load

        y = gru_rollout(x, start, memory[0], self.weights())
        return y, (y[-1],)

    def masked_step(self, x: Tensor, memory: Memory, mask: Tensor) -> Memory:
        """As `step`; what z keeps is the whole h."""
        (h,) = memory
        from_x = functional.linear(x, self.weight_ih, self.bias_ih).chunk(3, -1)
        from_h = functional.linear(h * mask, self.weight_hh, self.bias_hh).chunk(3, -1)
        r, z = (torch.sigmoid(from_x[i] + from_h[i]) for i in (0, 1))
        n = torch.tanh(from_x[2] + r * from_h[2])
        return (n + z * (h - n),)


class TanhLayer(Layer):
    """Elman's network (1990): h = tanh(W x + b + U h + c)."""

    kernel = "rnn_tanh"

    def mark_weights(self) -> Tensor:
        """Reset: h = tanh(1e4) = 1 with slope 0; the first step then subtracts U 1.

        The memory before has no effect at all; U 1 - U 1 leaves rounding, under 1e-6.
        """
        reset = torch.full_like(self.bias_ih, SATURATING)
        return torch.stack([reset, -self.weight_hh.sum(1), torch.zeros_like(reset)], 1)


class ReluLayer(Layer):
    """Elman's network with relu."""

    kernel = "rnn_relu"

    def mark_weights(self) -> Tensor:
        """Reset: relu of the most negative number is 0, with slope 0, however large h is."""
        return reset_column(torch.full_like(self.bias_ih, torch.finfo(self.bias_ih.dtype).min / 4))


def reset_column(weights: Tensor) -> Tensor:
    """Return [G * H, 3]: `weights` [G * H] for the reset mark, 0 for the other marks."""
    return functional.pad(weights[:, None], (0, MARKS - 1))


class LoopLayer(Layer):
    """Base of layers without a torch kernel: one product for all inputs, then a loop over time."""

    function: Callable[[Tensor], Tensor]  # of Elman's network

    def cell(self, gates: Tensor, memory: Memory) -> Memory:
        """Return the memory after a step, from gate inputs [N, G * H] and the memory before."""
        return (self.function(gates),)

    def step(self, x: Tensor, memory: Memory) -> Memory:
        """Return the memory after one step."""
        return self._advance(self._project(x), memory)

    def sequence(
        self, x: Tensor, start: Tensor, layout: ResetLayout | None, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """As in Layer, but step by step."""
        outputs = []
        starts = start[..., None].unbind()
        for t, gates in enumerate(self._project(x).unbind()):
            if t and layout is not None:
                memory = tuple(part.masked_fill(starts[t], 0.0) for part in memory)
            memory = self._advance(gates, memory)
            outputs.append(memory[0])
        return torch.stack(outputs), memory

    def _project(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight_ih, self.bias_ih + self.bias_hh)

    def _advance(self, gates: Tensor, memory: Memory) -> Memory:
        return self.cell(torch.addmm(gates, memory[0], self.weight_hh.t()), memory)


class SigmoidLayer(LoopLayer):
    """Elman's network with the logistic function."""

    function = staticmethod(torch.sigmoid)


class IdentityLayer(LoopLayer):
    """A linear recurrence."""

    function = staticmethod(lambda gates: gates)


class PeepholeLayer(LoopLayer):
    """LSTM whose gates also read the cell: i and f the old one, o the new (Gers et al. 2002)."""

    gates = 4

    def __init__(self, inputs: int, hidden: int, *args: Any, **options: Any) -> None:
        super().__init__(inputs, hidden, *args, **options)
        self.peephole = nn.Parameter(torch.zeros(3, hidden))  # for i, f, o; at 0 it is an LSTM

    def cell(self, gates: Tensor, memory: Memory) -> Memory:
        """Return the memory after a step."""
        c = memory[1]
        i, f, g, o = gates.chunk(4, -1)
        peep_i, peep_f, peep_o = self.peephole.unbind()
        i = torch.sigmoid(torch.addcmul(i, peep_i, c))
        f = torch.sigmoid(torch.addcmul(f, peep_f, c))
        c = f * c + i * torch.tanh(g)
        return torch.sigmoid(torch.addcmul(o, peep_o, c)) * torch.tanh(c), c


ELMAN: dict[str, type[Layer]] = {
    "tanh": TanhLayer,
    "relu": ReluLayer,
    "sigmoid": SigmoidLayer,
    "identity": IdentityLayer,
}
