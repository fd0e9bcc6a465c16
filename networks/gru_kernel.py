"""A GRU layer over whole rollouts in Numba, forward and backward, for few columns on the CPU.

torch's own kernel takes a GRU step by step, through tens of calls each; an LSTM it takes at once.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

ONE, HALF = np.float32(1.0), np.float32(0.5)
# tanh(x) = x P(x^2) / Q(x^2) up to 3e-7 for |x| below END, where it is 1 in float32; the numbers
# are those of Eigen's generic_fast_tanh_float. It is arithmetic alone, eight numbers at a time.
END = np.float32(7.90531110763549805)
P0, P1, P2, P3, P4, P5, P6 = map(
    np.float32,
    (
        4.89352455891786e-03,
        6.37261928875436e-04,
        1.48572235717979e-05,
        5.12229709037114e-08,
        -8.60467152213735e-11,
        2.00018790482477e-13,
        -2.76076847742355e-16,
    ),
)
Q0, Q1, Q2, Q3 = map(
    np.float32,
    (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06),
)
# sums in any order, eight numbers at a time; what is not a number stays none
COMPILED = numba.njit(cache=True, fastmath={"reassoc", "contract", "arcp", "nsz"})
BLOCK = 4  # weights' rows that are added at a time: what is added to is read and written less often


@COMPILED
def add_product(total: Any, x: Any, matrix: Any) -> None:
    """Add x [K] times matrix [K, G] to total [G]."""
    for k in range(0, len(x) // BLOCK * BLOCK, BLOCK):
        a, b, c, d = x[k], x[k + 1], x[k + 2], x[k + 3]
        first, second, third, fourth = matrix[k], matrix[k + 1], matrix[k + 2], matrix[k + 3]
        for j in range(len(total)):
            total[j] += a * first[j] + b * second[j] + c * third[j] + d * fourth[j]
    for k in range(len(x) // BLOCK * BLOCK, len(x)):
        for j in range(len(total)):
            total[j] += x[k] * matrix[k, j]


@COMPILED
def tanh(x: Any) -> Any:
    """Return tanh(x)."""
    x = min(max(x, -END), END)
    s = x * x
    top = P0 + s * (P1 + s * (P2 + s * (P3 + s * (P4 + s * (P5 + s * P6)))))
    return x * top / (Q0 + s * (Q1 + s * (Q2 + s * Q3)))


@COMPILED
def forward(
    inputs: Any, weight: Any, bias: Any, start: Any, before: Any, gates: Any, h: Any
) -> None:
    """Fill h [T, B, H] and gates [T, B, 4 H] (r, z, n, and what r lets through).

    inputs: W x + b of every step [T, B, 3 H]. weight, bias: U^T [H, 3 H] and c [3 H].
    start: bool [T, B], the memory before is 0. before [T, B, H]: filled with it; row 0 has it.
    """
    steps, columns, size = h.shape
    own = np.empty(3 * size, np.float32)
    for b in range(columns):
        for t in range(steps):
            if start[t, b]:
                before[t, b] = 0.0
            elif t:
                before[t, b] = h[t - 1, b]
            own[:] = bias
            add_product(own, before[t, b], weight)
            for j in range(size):
                r = HALF + HALF * tanh(HALF * (inputs[t, b, j] + own[j]))
                z = HALF + HALF * tanh(HALF * (inputs[t, b, size + j] + own[size + j]))
                n = tanh(inputs[t, b, 2 * size + j] + r * own[2 * size + j])
                gates[t, b, j], gates[t, b, size + j] = r, z
                gates[t, b, 2 * size + j], gates[t, b, 3 * size + j] = n, own[2 * size + j]
                h[t, b, j] = n + z * (before[t, b, j] - n)


@COMPILED
def backward(
    grad: Any, weight: Any, start: Any, before: Any, gates: Any, of_inputs: Any, of_own: Any
) -> Any:
    """Fill the gradients by W x + b and by U h + c [T, B, 3 H]; return that by the first memory.

    grad: by every h [T, B, H]. weight: U [3 H, H].
    """
    steps, columns, size = grad.shape
    first = np.zeros((columns, size), np.float32)
    for b in range(columns):
        carried = first[b]
        for t in range(steps - 1, -1, -1):
            for j in range(size):
                r, z = gates[t, b, j], gates[t, b, size + j]
                n, own = gates[t, b, 2 * size + j], gates[t, b, 3 * size + j]
                whole = grad[t, b, j] + carried[j]
                of_n = whole * (ONE - z) * (ONE - n * n)
                of_r = of_n * own * r * (ONE - r)
                of_z = whole * (before[t, b, j] - n) * z * (ONE - z)
                of_inputs[t, b, j] = of_own[t, b, j] = of_r
                of_inputs[t, b, size + j] = of_own[t, b, size + j] = of_z
                of_inputs[t, b, 2 * size + j] = of_n
                of_own[t, b, 2 * size + j] = of_n * r
                carried[j] = whole * z
            if start[t, b]:
                carried[:] = 0.0
            else:
                add_product(carried, of_own[t, b], weight)
    return first


class Rollout(torch.autograd.Function):
    """h [T, B, H] of W x + b [T, B, 3 H], U, c, episode starts [T, B] and memory [B, H]."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, start: Tensor, memory: Tensor
    ) -> Tensor:
        """Run the kernel, and keep what its gradient needs."""
        steps, columns, size = *inputs.shape[:2], inputs.shape[2] // 3
        shapes = (steps, columns, size), (steps, columns, 4 * size), (steps, columns, size)
        before, gates, h = (np.empty(shape, np.float32) for shape in shapes)
        before[0] = memory.numpy()
        transposed = np.ascontiguousarray(weight.numpy().T)
        starts = start.contiguous().numpy()
        forward(inputs.contiguous().numpy(), transposed, bias.numpy(), starts, before, gates, h)
        ctx.save_for_backward(weight, start)
        ctx.kept = before, gates
        return torch.from_numpy(h)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients by inputs, U, c and memory; they have none themselves."""
        if torch.is_grad_enabled():
            raise RuntimeError(
                "our GRU kernel has no second derivatives: set seqrl.networks.layers.FEW to 0"
            )
        weight, start = ctx.saved_tensors
        before, gates = ctx.kept
        (grad,) = grads
        shape = *grad.shape[:2], 3 * grad.shape[2]
        of_inputs, of_own = np.empty(shape, np.float32), np.empty(shape, np.float32)
        ends = grad.contiguous().numpy(), weight.contiguous().numpy(), start.contiguous().numpy()
        first = backward(*ends, before, gates, of_inputs, of_own)
        flat = torch.from_numpy(of_own).flatten(0, 1)
        of_weight = flat.T @ torch.from_numpy(before).flatten(0, 1)
        return torch.from_numpy(of_inputs), of_weight, flat.sum(0), None, torch.from_numpy(first)


def gru_rollout(x: Tensor, start: Tensor, memory: Tensor, weights: list[Tensor]) -> Tensor:
    """Return h [T, B, H] of x [T, B, F], episode starts [T, B] and the memory [B, H] before them.

    weights: in torch's order and layout. All float32, on the CPU.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    inputs = functional.linear(x, weight_ih, bias_ih)
    out: Tensor = Rollout.apply(inputs, weight_hh, bias_hh, start, memory)
    return out
