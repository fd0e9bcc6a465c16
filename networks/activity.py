"""What a network's memory does over one episode: gates, attention, and the gradient through time.

Everything is worked out on a copy of the network that drops nothing out, so neither its weights
nor any random number changes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from seqrl.core import State, tree
from seqrl.networks.attention import Attention, Block
from seqrl.networks.base import Core, Network, has_memory
from seqrl.networks.layers import GRULayer, Layer, Memory, PeepholeLayer
from seqrl.networks.recurrent import Recurrent

LARGEST = 4096  # numbers of memory a gradient is traced through; attention's cache has more
ROOM = 2**23  # numbers held for it at a time


class Trace(NamedTuple):
    """What one layer did over T steps, by name.

    Gates (0 shut, 1 open) and memory are [T, H]. A head's attention is [T, T]: how much each step
    (row) looks at each (column), rows sum to 1.
    """

    layer: str  # "LSTM", or "LSTM layer 2 of 2"
    parts: dict[str, np.ndarray]
    attention: bool = False


class Activity(NamedTuple):
    """A network over one episode of T steps."""

    traces: list[Trace]
    gradient: np.ndarray | None  # [T - 1] see `gradient_through_time`; None: memory too large


def activity(network: Network, obs: Any) -> Activity | None:
    """What the memory does over an episode, observations [T, ...]; None where there is none.

    A memory that is none of ours is shown as the numbers it consists of.
    """
    if not has_memory(network):
        return None
    network = copy.deepcopy(network).eval()
    device = next((leaf.device for leaf in network.state_dict().values()), torch.device("cpu"))
    rolled = tree.map(lambda leaf: torch.as_tensor(np.array(leaf), device=device)[:, None], obs)
    steps = len(next(tree.leaves(rolled)))
    start = torch.zeros((steps, 1), dtype=torch.bool, device=device)
    start[0] = True
    # cuDNN's recurrent kernels have no backward pass in eval mode
    with torch.backends.cudnn.flags(enabled=False):
        return Activity(
            traces(network, rolled, start), gradient_through_time(network, rolled, start)
        )


@torch.no_grad()
def traces(network: Network, obs: Any, start: Tensor) -> list[Trace]:
    """The layers with memory over `obs` [T, 1, ...], the lowest first."""
    cores = [part for part in network.modules() if isinstance(part, Recurrent)]
    blocks = [part for part in network.modules() if isinstance(part, Block)]
    seen: dict[nn.Module, Tensor] = {}

    def keep(owner: nn.Module, module: nn.Module, args: Any, out: Any) -> None:
        seen[owner] = out[0][:, 0]

    hooks = [core.source.register_forward_hook(partial(keep, core)) for core in cores]
    hooks += [
        block.norm.register_forward_hook(lambda norm, args, out, b=block: seen.update({b: out[0]}))
        for block in blocks
    ]
    network(obs, start)
    for hook in hooks:
        hook.remove()
    found = [trace for core in cores for trace in recurrent_traces(core, seen[core])]
    for core in (part for part in network.modules() if isinstance(part, Attention)):
        found += attention_traces(core, seen)
    return found or [Trace("memory", {"memory": _memory_numbers(network, obs, start)})]


def recurrent_traces(core: Recurrent, x: Tensor) -> list[Trace]:
    """Gates and memory of each layer, from the first one's inputs [T, F]."""
    found, names = [], ("output", "cell") if core.parts > 1 else ("memory",)
    for i, layer in enumerate(cast("list[Layer]", core.layers)):
        memory: Memory = tuple(x.new_zeros(core.parts, 1, core.hidden))
        rows = []
        for now in x[:, None]:
            before, memory = memory, layer.step(now, memory)
            rows.append(gates(layer, now, before, memory) | dict(zip(names, memory, strict=True)))
        parts = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        found.append(Trace(_name(type(core).__name__, i, core.depth), _arrays(parts)))
        x = parts[names[0]]
    return found


def gates(layer: Layer, x: Tensor, before: Memory, after: Memory) -> dict[str, Tensor]:
    """A step's gates by name, each [N, H]; Elman's network has none.

    x [N, F] and the memory that entered the step and left it.
    """
    if layer.gates == 1:
        return {}
    inputs = functional.linear(x, layer.weight_ih, layer.bias_ih)
    inputs = inputs + functional.linear(before[0], layer.weight_hh, layer.bias_hh)
    if isinstance(layer, GRULayer):
        r, z, _ = inputs.sigmoid().chunk(3, -1)
        return {"reset gate": r, "update gate": z}
    i, f, _, o = inputs.chunk(4, -1)
    if isinstance(layer, PeepholeLayer):
        see_i, see_f, see_o = layer.peephole
        i, f, o = i + see_i * before[1], f + see_f * before[1], o + see_o * after[1]
    named = {"input gate": i, "forget gate": f, "output gate": o}
    return {name: gate.sigmoid() for name, gate in named.items()}


def attention_traces(core: Attention, seen: dict[nn.Module, Tensor]) -> list[Trace]:
    """Each layer's weights, head by head, from its normalised inputs [T, H] in `seen`."""
    found = []
    for i, block in enumerate(cast("list[Block]", core.blocks)):
        weights = attention_weights(block, seen[block], core.window)
        parts = {f"head {k + 1}": head for k, head in enumerate(weights)}
        name = _name("attention", i, len(core.blocks))
        found.append(Trace(name, _arrays(parts), attention=True))
    return found


def attention_weights(block: Block, x: Tensor, window: int) -> Tensor:
    """softmax(q k / sqrt(d)) [heads, T, T] over the `window` latest steps of one episode."""
    size, time = x.shape[1], torch.arange(len(x), device=x.device)
    queries, keys, _ = (
        part.unflatten(1, (block.heads, -1)).transpose(0, 1)
        for part in block.project(x).split(size, 1)
    )
    lag = time[:, None] - time
    scores = queries @ keys.transpose(1, 2) * (size // block.heads) ** -0.5
    return scores.masked_fill((lag < 0) | (lag >= window), -torch.inf).softmax(-1)


def gradient_through_time(network: Network, obs: Any, start: Tensor) -> np.ndarray | None:
    """How strongly the last output depends on the memory after each step before, float64 [T - 1].

    For t = 1 ... T - 1 the norm |dh_T / dm_t| of the matrix of derivatives, over the root of its
    rows (Frobenius): what a small change of the memory m_t is multiplied by until T, as a root mean
    square over the outputs h_T. The memory is all that is carried on, an LSTM's cell included; for
    an RNN or GRU of one layer it is h_t. Below 1 and falling: vanishing; above 1 and rising:
    exploding (Bengio et al. 1994; Pascanu et al. 2013). `obs` [T, 1, ...] is one episode. None
    where the memory has more than 4,096 numbers or no floats.
    """
    advance = stepper(network, obs, start)
    with torch.no_grad():
        _, state = advance(0, 1, None)
    numbers = sum(leaf.numel() for leaf in tree.leaves(state) if leaf.is_floating_point())
    steps, features = len(start), network.features
    if not 0 < numbers <= LARGEST:
        return None
    rows = max(1, min(features, ROOM // (numbers * steps)))
    squares = np.zeros(steps - 1)
    for first in range(0, features, rows):
        squares += _squares(advance, steps, range(first, min(first + rows, features)))
    return np.sqrt(squares / features)


Advance = Callable[[int, int, State], tuple[Tensor, State]]


def stepper(network: Network, obs: Any, start: Tensor) -> Advance:
    """A function from step t, a number of copies N and the memory to [N, F] and the next memory.

    What has no memory below the core is worked out once.
    """
    run: Callable[..., tuple[Tensor, State]] = network
    if isinstance(network, Core) and network.remembers and not network.inner:
        with torch.no_grad():
            obs = network.source(obs, start)[0]
        run = network.run

    def advance(t: int, n: int, state: State) -> tuple[Tensor, State]:
        now = tree.map(lambda leaf: leaf[t : t + 1].expand(1, n, *leaf.shape[2:]), obs)
        state = network.initial_state(n) if state is None else state
        out, state = run(now, start[t : t + 1].expand(1, n), state)
        return out[0], state

    return advance


def _squares(advance: Advance, steps: int, rows: range) -> np.ndarray:
    """Sums of the squared derivatives of outputs `rows` by the memory after each step [T - 1]."""
    state, kept = None, []
    with torch.enable_grad():
        for t in range(steps):
            out, state = advance(t, len(rows), state)
            leaves = [leaf for leaf in tree.leaves(state) if leaf.is_floating_point()]
            for leaf in leaves:
                if not leaf.requires_grad:  # nothing learned has gone into it
                    leaf.requires_grad_()
            kept.append(leaves)
        wanted = [leaf for leaves in kept[:-1] for leaf in leaves]
        if not wanted:
            return np.zeros(0)
        last = out[torch.arange(len(rows)), torch.arange(rows.start, rows.stop)].sum()
        found = torch.autograd.grad(last, wanted, allow_unused=True)
    totals = [0.0 if g is None else float(g.double().square().sum()) for g in found]
    return np.array(totals).reshape(steps - 1, -1).sum(1)


@torch.no_grad()
def _memory_numbers(network: Network, obs: Any, start: Tensor) -> np.ndarray:
    """All floats of the memory after each step [T, M]."""
    advance, state, rows = stepper(network, obs, start), None, []
    for t in range(len(start)):
        _, state = advance(t, 1, state)
        leaves = [leaf for leaf in tree.leaves(state) if leaf.is_floating_point()]
        rows.append(torch.cat([leaf.flatten() for leaf in leaves]))
    return torch.stack(rows).cpu().numpy()


def _arrays(parts: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: part.cpu().numpy() for name, part in parts.items()}


def _name(kind: str, i: int, depth: int) -> str:
    return kind if depth == 1 else f"{kind} layer {i + 1} of {depth}"
