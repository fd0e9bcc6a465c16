"""Recurrent layers: one step, and one call over a whole rollout with episode starts inside.

Weights lie as in torch: gates stacked along axis 0, [G * H, inputs] and [G * H, H], and two
biases. Memory is a tuple of [N, H] tensors: (h,), or (h, c) for an LSTM.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from seqrl.networks.options import initialise
from seqrl.networks.stretch import MARKS, Stretch

Memory = tuple[Tensor, ...]
# spread of the input weights where Elman's recurrent ones are the identity: as Le, Jaitly and
# Hinton (2015) have it for relu; and so that a tanh shows its input and is not saturated by it
IDENTITY: dict[str | float, float] = {"irnn": 0.001, "identity": 0.2}
CLOSED = 1e4  # beyond it a sigmoid is exactly 0 or 1, a tanh exactly -1 or 1, their slopes 0


class Layer(nn.Module):
    """The weights of one recurrent layer, and its call through torch's fused kernel.

    A kind names its kernel and says in `columns` what makes its memory fresh.
    """

    kernel = ""  # torch._VF.<kernel> over time, torch._VF.<kernel>_cell for one step
    gates = 1

    def __init__(self, inputs: int, hidden: int, init: str | float | None = None) -> None:
        super().__init__()
        rows, bound = self.gates * hidden, 1 / math.sqrt(hidden)
        self.weight_ih = nn.Parameter(torch.empty(rows, inputs))
        self.weight_hh = nn.Parameter(torch.empty(rows, hidden))
        self.bias_ih = nn.Parameter(torch.empty(rows))
        self.bias_hh = nn.Parameter(torch.empty(rows))
        for weight in self.weights():
            nn.init.uniform_(weight, -bound, bound)  # as torch.nn does
        if init is not None:
            self._initialise(init)

    @torch.no_grad()
    def _initialise(self, init: str | float) -> None:
        """Every gate's two matrices by name, biases 0."""
        self.bias_ih.zero_()
        self.bias_hh.zero_()
        if init in IDENTITY and self.gates == 1:
            nn.init.normal_(self.weight_ih, 0.0, IDENTITY[init])
            nn.init.eye_(self.weight_hh)
            return
        for weight in (self.weight_ih, self.weight_hh):
            for gate in weight.chunk(self.gates):
                initialise(gate, init)

    def weights(self) -> list[Tensor]:
        """In the order torch's kernels take them."""
        return [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]

    def columns(self) -> Tensor:
        """Weights [G * H, 3] of the marks (see Stretch): they make the memory fresh, exactly."""
        raise NotImplementedError

    def step(self, x: Tensor, memory: Memory) -> Memory:
        """One step: x [N, inputs] and the memory that enters -> the memory that leaves."""
        return (getattr(torch._VF, f"{self.kernel}_cell")(x, *memory, *self.weights()),)

    def call(self, x: Tensor, memory: Memory, weights: list[Tensor]) -> tuple[Tensor, Memory]:
        """The kernel over x [T, N, inputs] -> outputs [T, N, H] and the last memory."""
        y, h = run_kernel(self.kernel, x, memory[0][None].contiguous(), weights)
        return y, (h[0],)

    def sequence(
        self, x: Tensor, start: Tensor, plan: Stretch | None, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """The same with episode starts inside: `plan` is stretch(start).

        `memory` is already fresh where an episode starts at t = 0.
        """
        weights = self.weights()
        if plan is None:
            return self.call(x, memory, weights)
        weights[0] = torch.cat([weights[0], self.columns()], 1)
        y, memory = self.call(plan.spread(x), memory, weights)
        y = plan.gather(y)
        return y, (y[-1], *memory[1:])


def run_kernel(
    name: str, x: Tensor, memory: Tensor | Memory, weights: list[Tensor]
) -> tuple[Tensor, ...]:
    """torch's kernel for one layer, time first: the outputs and the last memory."""
    if x.is_cuda:  # cuDNN wants the weights in one piece, in this order
        flat = torch.cat([weight.flatten() for weight in weights])
        pieces = flat.split([weight.numel() for weight in weights])
        weights = [piece.view_as(like) for piece, like in zip(pieces, weights, strict=True)]
    backward = torch.is_grad_enabled()  # what torch calls train, when there is no dropout
    return getattr(torch._VF, name)(x, memory, weights, True, 1, 0.0, backward, False, False)


class LSTMLayer(Layer):
    """Hochreiter and Schmidhuber 1997, with forget gates (Gers et al. 2000); gates i, f, g, o.

    forget_bias: the forget gate's whole bias (Jozefowicz et al. 2015); None leaves it alone.
    """

    kernel = "lstm"
    gates = 4

    def __init__(
        self,
        inputs: int,
        hidden: int,
        init: str | float | None = None,
        forget_bias: float | None = None,
    ) -> None:
        super().__init__(inputs, hidden, init)
        open_gate(self, forget_bias)

    def columns(self) -> Tensor:
        """Reset: i and f closed, so c = 0 and h = o tanh(c) = 0. Filler: f open, so c stays."""
        columns = self.bias_ih.new_zeros(4, len(self.bias_ih) // 4, MARKS)
        columns[:2, :, 0] = -CLOSED
        columns[0, :, 2], columns[1, :, 2] = -CLOSED, CLOSED
        return columns.flatten(0, 1)

    def step(self, x: Tensor, memory: Memory) -> Memory:
        """One step."""
        return torch._VF.lstm_cell(x, memory, *self.weights())

    def call(self, x: Tensor, memory: Memory, weights: list[Tensor]) -> tuple[Tensor, Memory]:
        """One kernel call."""
        entering = tuple(part[None].contiguous() for part in memory)  # as cuDNN wants it
        y, h, c = run_kernel("lstm", x, entering, weights)
        return y, (h[0], c[0])


class GRULayer(Layer):
    """Cho et al. 2014 in torch's convention: gates r, z, n and h = (1 - z) n + z h.

    keep_bias: the whole bias of z, which keeps what was there; None leaves it alone.
    """

    kernel = "gru"
    gates = 3

    def __init__(
        self,
        inputs: int,
        hidden: int,
        init: str | float | None = None,
        keep_bias: float | None = None,
    ) -> None:
        super().__init__(inputs, hidden, init)
        open_gate(self, keep_bias)

    def columns(self) -> Tensor:
        """Reset: r and z closed and the candidate's bias cancelled, so h = tanh(0) = 0."""
        _, _, bias = self.bias_ih.chunk(3)
        closed = torch.full_like(bias, -CLOSED)
        return only_reset(torch.cat([closed, closed, -bias]))


class TanhLayer(Layer):
    """Elman's network (1990): h = tanh(W x + b + U h + c)."""

    kernel = "rnn_tanh"

    def columns(self) -> Tensor:
        """Reset: h = tanh(1e4) = 1 with slope 0; the first step then takes U 1 away again.

        What was before is forgotten exactly; U 1 - U 1 leaves rounding, under 1e-6.
        """
        reset = torch.full_like(self.bias_ih, CLOSED)
        return torch.stack([reset, -self.weight_hh.sum(1), torch.zeros_like(reset)], 1)


class ReluLayer(Layer):
    """The same with relu."""

    kernel = "rnn_relu"

    def columns(self) -> Tensor:
        """Reset: relu of the most negative number is 0, with slope 0, however h has grown."""
        return only_reset(torch.full_like(self.bias_ih, torch.finfo(self.bias_ih.dtype).min / 4))


def only_reset(weights: Tensor) -> Tensor:
    """[G * H] as the reset's column, 0 for the other marks."""
    return functional.pad(weights[:, None], (0, MARKS - 1))


class LoopLayer(Layer):
    """Layers torch has no kernel for: the input part in one product, then a lean loop."""

    def cell(self, gates: Tensor, memory: Memory) -> Memory:
        """The pointwise half of a step: gate inputs [N, G * H] and memory -> memory."""
        raise NotImplementedError

    def step(self, x: Tensor, memory: Memory) -> Memory:
        """One step."""
        return self._advance(self._project(x), memory)

    def sequence(
        self, x: Tensor, start: Tensor, plan: Stretch | None, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """As in Layer, step by step."""
        outputs = []
        fresh = start[..., None].unbind()
        for t, gates in enumerate(self._project(x).unbind()):
            if t and plan is not None:
                memory = tuple(part.masked_fill(fresh[t], 0.0) for part in memory)
            memory = self._advance(gates, memory)
            outputs.append(memory[0])
        return torch.stack(outputs), memory

    def _project(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight_ih, self.bias_ih + self.bias_hh)

    def _advance(self, gates: Tensor, memory: Memory) -> Memory:
        return self.cell(torch.addmm(gates, memory[0], self.weight_hh.t()), memory)


class SigmoidLayer(LoopLayer):
    """Elman's network with the logistic function."""

    def cell(self, gates: Tensor, memory: Memory) -> Memory:
        """The pointwise half of a step."""
        return (torch.sigmoid(gates),)


class IdentityLayer(LoopLayer):
    """A linear recurrence."""

    def cell(self, gates: Tensor, memory: Memory) -> Memory:
        """The pointwise half of a step."""
        return (gates,)


class PeepholeLayer(LoopLayer):
    """An LSTM whose gates see the cell: i and f the old one, o the new (Gers et al. 2002)."""

    gates = 4

    def __init__(
        self,
        inputs: int,
        hidden: int,
        init: str | float | None = None,
        forget_bias: float | None = None,
    ) -> None:
        super().__init__(inputs, hidden, init)
        self.peephole = nn.Parameter(torch.zeros(3, hidden))  # rows i, f, o: an LSTM at first
        open_gate(self, forget_bias)

    def cell(self, gates: Tensor, memory: Memory) -> Memory:
        """The pointwise half of a step."""
        c = memory[1]
        i, f, g, o = gates.chunk(4, -1)
        see_i, see_f, see_o = self.peephole.unbind()
        i = torch.sigmoid(torch.addcmul(i, see_i, c))
        f = torch.sigmoid(torch.addcmul(f, see_f, c))
        c = f * c + i * torch.tanh(g)
        return torch.sigmoid(torch.addcmul(o, see_o, c)) * torch.tanh(c), c


@torch.no_grad()
def open_gate(layer: Layer, bias: float | None) -> None:
    """Give the gate that keeps (the second, f of i, f, g, o or z of r, z, n) this whole bias."""
    if bias is not None:
        layer.bias_ih.chunk(layer.gates)[1].fill_(bias)
        layer.bias_hh.chunk(layer.gates)[1].zero_()


ELMAN: dict[str, type[Layer]] = {
    "tanh": TanhLayer,
    "relu": ReluLayer,
    "sigmoid": SigmoidLayer,
    "identity": IdentityLayer,
}
