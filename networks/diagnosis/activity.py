"""Activity of a network's memory over an episode: gates, attention, gradient through time.

All is computed on a copy of the network in eval mode, so neither its weights nor any random
number changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from seqrl.core import tree
from seqrl.core.types import State
from seqrl.networks.attention import Attention, Block
from seqrl.networks.base import Core, Network, copied, has_memory
from seqrl.networks.diagnosis.reading import reading
from seqrl.networks.layers import GRULayer, Layer, Memory, PeepholeLayer
from seqrl.networks.recurrent import Recurrent

MAX_MEMORY = 4096  # numbers of memory for which gradients are computed; attention has more
MAX_HELD = 2**23  # numbers of memory held for it at a time


class LayerActivity(NamedTuple):
    """The activity of one layer over T steps.

    Gates (0 shut, 1 open) and memory are [T, H]. A head's attention is [T, T]: the
    weights of the keys (axis 1) for each query (axis 0), which sum to 1.
    """

    name: str  # "LSTM", or "LSTM layer 2 of 2"
    parts: dict[str, np.ndarray]
    attention: bool = False


class Activity(NamedTuple):
    """The activity of a network's memory over one episode of T steps."""

    layers: list[LayerActivity]
    gradient: np.ndarray | None  # [T - 1] see `gradient_through_time`; None: memory too large
    reading: np.ndarray | None = None  # [T', L] see `reading`; None: it looks at no source


def activity(network: Network, obs: Any) -> Activity | None:
    """Return the memory's activity for observations [T, ...]; None for a network without memory.

    The memory of a user's own network is given as the numbers it consists of.
    """
    if not has_memory(network):
        return None
    network = copied(network).eval()
    device = next((leaf.device for leaf in network.state_dict().values()), torch.device("cpu"))
    obs = tree.map(lambda leaf: torch.as_tensor(np.array(leaf), device=device)[:, None], obs)
    steps = len(next(tree.leaves(obs)))
    start = torch.zeros((steps, 1), dtype=torch.bool, device=device)
    start[0] = True
    # cuDNN's recurrent kernels have no backward pass in eval mode
    with torch.backends.cudnn.flags(enabled=False):
        layers = layer_activities(network, obs, start)
        gradient = gradient_through_time(network, obs, start)
        return Activity(layers, gradient, reading(network, obs, start))


@torch.no_grad()
def layer_activities(network: Network, obs: Any, start: Tensor) -> list[LayerActivity]:
    """Return the activity of each layer with memory over `obs` [T, 1, ...], the lowest first."""
    cores = [part for part in network.modules() if isinstance(part, Recurrent)]
    blocks = [part for part in network.modules() if isinstance(part, Block)]
    outputs: dict[nn.Module, Any] = {}

    def record(part: nn.Module, args: Any, out: Any) -> None:
        outputs[part] = out

    below = [*(core.source for core in cores), *(block.norm for block in blocks)]
    hooks = [part.register_forward_hook(record) for part in below]
    network(obs, start)
    for hook in hooks:
        hook.remove()
    found = []
    for core in cores:
        found += recurrent_activities(core, outputs[core.source][0][:, 0])
    for attention in (part for part in network.modules() if isinstance(part, Attention)):
        found += attention_activities(attention, outputs)
    return found or [LayerActivity("memory", {"memory": _memory_numbers(network, obs, start)})]


def recurrent_activities(core: Recurrent, x: Tensor) -> list[LayerActivity]:
    """Return gates and memory of each layer, from the inputs [T, F] of the first."""
    found, names = [], ("output", "cell") if core.memory_tensors > 1 else ("memory",)
    for i, layer in enumerate(cast("list[Layer]", core.layers)):
        memory: Memory = tuple(x.new_zeros(core.memory_tensors, 1, core.hidden))
        steps = []
        for x_t in x[:, None]:
            before, memory = memory, layer.step(x_t, memory)
            steps.append(gates(layer, x_t, before, memory) | dict(zip(names, memory, strict=True)))
        parts = {name: torch.cat([step[name] for step in steps]) for name in steps[0]}
        found.append(LayerActivity(_name(type(core).__name__, i, core.depth), _arrays(parts)))
        x = parts[names[0]]
    return found


def gates(layer: Layer, x: Tensor, before: Memory, after: Memory) -> dict[str, Tensor]:
    """Return a step's gates by name, each [N, H]; {} for Elman's network.

    x [N, F], and the memory before and after the step.
    """
    if layer.gates == 1:
        return {}
    gate_inputs = functional.linear(x, layer.weight_ih, layer.bias_ih)
    gate_inputs = gate_inputs + functional.linear(before[0], layer.weight_hh, layer.bias_hh)
    if isinstance(layer, GRULayer):
        r, z, _ = gate_inputs.sigmoid().chunk(3, -1)
        return {"reset gate": r, "update gate": z}
    i, f, _, o = gate_inputs.chunk(4, -1)
    if isinstance(layer, PeepholeLayer):
        peep_i, peep_f, peep_o = layer.peephole
        i, f, o = i + peep_i * before[1], f + peep_f * before[1], o + peep_o * after[1]
    named = {"input gate": i, "forget gate": f, "output gate": o}
    return {name: gate.sigmoid() for name, gate in named.items()}


def attention_activities(core: Attention, outputs: dict[nn.Module, Any]) -> list[LayerActivity]:
    """Return each layer's attention weights by head, from the outputs [1, T, H] of its norm."""
    found = []
    for i, block in enumerate(cast("list[Block]", core.blocks)):
        weights = attention_weights(block, outputs[block.norm][0], core.window)
        parts = {f"head {k + 1}": head for k, head in enumerate(weights)}
        name = _name("attention", i, len(core.blocks))
        found.append(LayerActivity(name, _arrays(parts), attention=True))
    return found


def attention_weights(block: Block, x: Tensor, window: int) -> Tensor:
    """Return softmax(q k / sqrt(d)) [heads, T, T] over the `window` latest steps of one episode."""
    size, time = x.shape[1], torch.arange(len(x), device=x.device)
    queries, keys, _ = block.project(x).unflatten(1, (3, block.heads, -1)).permute(1, 2, 0, 3)
    lag = time[:, None] - time
    scores = queries @ keys.transpose(1, 2) * (size // block.heads) ** -0.5
    return scores.masked_fill((lag < 0) | (lag >= window), -torch.inf).softmax(-1)


def gradient_through_time(network: Network, obs: Any, start: Tensor) -> np.ndarray | None:
    """Return the gradient norm of the last output by the memory of each step, float64 [T - 1].

    For t = 1 ... T - 1 the norm |dh_T / dm_t| of the matrix of derivatives, over the root of its
    rows (Frobenius): what a small change of the memory m_t is multiplied by until T, as a root mean
    square over the outputs h_T. The memory is all that is carried on, an LSTM's cell included; for
    an RNN or GRU of one layer it is h_t. Below 1 and falling: vanishing; above 1 and rising:
    exploding (Bengio et al. 1994; Pascanu et al. 2013). `obs` [T, 1, ...] is one episode. None
    where the memory has more than 4,096 numbers or no floats.
    """
    advance = make_advance(network, obs, start)
    with torch.no_grad():
        _, state = advance(0, 1, None)
    numbers = sum(leaf.numel() for leaf in float_leaves(state))
    steps, features = len(start), network.features
    if not 0 < numbers <= MAX_MEMORY:
        return None
    count = max(1, min(features, MAX_HELD // (numbers * steps)))
    squares = np.zeros(steps - 1)
    for first in range(0, features, count):
        squares += _squared_derivatives(advance, steps, range(first, min(first + count, features)))
    return np.sqrt(squares / features)


Advance = Callable[[int, int, State], tuple[Tensor, State]]


def make_advance(network: Network, obs: Any, start: Tensor) -> Advance:
    """Return a function of step t, a number of copies N and memory to [N, F] and next memory.

    A source without memory is computed only once.
    """
    run: Callable[..., tuple[Tensor, State]] = network
    if isinstance(network, Core) and network.has_own_memory and not network.source_has_memory:
        with torch.no_grad():
            obs = network.source(obs, start)[0]
        run = network.run

    def advance(t: int, n: int, state: State) -> tuple[Tensor, State]:
        step_obs = tree.map(lambda leaf: leaf[t : t + 1].expand(1, n, *leaf.shape[2:]), obs)
        state = network.initial_state(n) if state is None else state
        out, state = run(step_obs, start[t : t + 1].expand(1, n), state)
        return out[0], state

    return advance


def _squared_derivatives(advance: Advance, steps: int, outputs: range) -> np.ndarray:
    """Sums of the squared derivatives of `outputs` by the memory after each step [T - 1]."""
    state, memories = None, []
    with torch.enable_grad():
        for t in range(steps):
            out, state = advance(t, len(outputs), state)
            memories.append(float_leaves(state))
            for leaf in memories[-1]:
                if not leaf.requires_grad:  # it depends on no weight
                    leaf.requires_grad_()
        inputs = [leaf for leaves in memories[:-1] for leaf in leaves]
        if not inputs:
            return np.zeros(0)
        last = out[torch.arange(len(outputs)), torch.arange(outputs.start, outputs.stop)].sum()
        grads = torch.autograd.grad(last, inputs, allow_unused=True)
    totals = [0.0 if g is None else float(g.double().square().sum()) for g in grads]
    return np.array(totals).reshape(steps - 1, -1).sum(1)


@torch.no_grad()
def _memory_numbers(network: Network, obs: Any, start: Tensor) -> np.ndarray:
    """Return all floats of the memory after each step [T, M]."""
    advance, state, memories = make_advance(network, obs, start), None, []
    for t in range(len(start)):
        _, state = advance(t, 1, state)
        memories.append(torch.cat([leaf.flatten() for leaf in float_leaves(state)]))
    return torch.stack(memories).cpu().numpy()


def float_leaves(state: State) -> list[Tensor]:
    """Return the parts of a memory that are floats."""
    return [leaf for leaf in tree.leaves(state) if leaf.is_floating_point()]


def _arrays(parts: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: part.cpu().numpy() for name, part in parts.items()}


def _name(kind: str, i: int, depth: int) -> str:
    return kind if depth == 1 else f"{kind} layer {i + 1} of {depth}"
