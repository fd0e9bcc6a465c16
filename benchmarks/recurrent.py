"""The cost of memory: training over rollouts with episode starts inside, and acting.

`python benchmarks/recurrent.py`: one thread, medians of interleaved repetitions, and ratios within
this one run (other machines and other runs differ; ratios hardly do). The peers are written
here as their users write them: a masked torch.nn.LSTM called once a step, LSTMCell loops.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from seqrl.networks import (
    GRU,
    LSTM,
    MLP,
    RNN,
    Attention,
    FrameStack,
    Network,
    numpy_forward,
)

INPUTS, HIDDEN, START_RATE = 64, 128, 0.02
Cases = dict[str, Callable[[], object]]


class Masked:
    """Peers: recurrent modules of torch called step by step, their state masked at starts."""

    def __init__(self, kind: str) -> None:
        self.layer = getattr(nn, kind)(INPUTS, HIDDEN)
        self.cell = getattr(nn, f"{kind}Cell")(INPUTS, HIDDEN)
        self.has_cell_state = kind == "LSTM"

    def zeros(self, n: int, *front: int) -> tuple[Tensor, ...]:
        return (torch.zeros(*front, n, HIDDEN),) * (1 + self.has_cell_state)

    def per_step(self, x: Tensor, start: Tensor) -> Tensor:
        mask, state, outputs = 1.0 - start.float()[..., None], self.zeros(x.shape[1], 1), []
        for t in range(len(x)):
            state = tuple(mask[t] * part for part in state)
            y, state = self.layer(x[t : t + 1], state if self.has_cell_state else state[0])
            state = state if self.has_cell_state else (state,)
            outputs.append(y)
        return torch.cat(outputs)

    def cells(self, x: Tensor, start: Tensor) -> Tensor:
        mask, state, outputs = 1.0 - start.float()[..., None], self.zeros(x.shape[1]), []
        for t in range(len(x)):
            state = self.step(x[t], mask[t], state)
            outputs.append(state[0])
        return torch.stack(outputs)

    def step(self, x: Tensor, mask: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        state = tuple(mask * part for part in state)
        return self.cell(x, state) if self.has_cell_state else (self.cell(x, state[0]),)


def training_cases(steps: int, n: int) -> Cases:
    """Return cases of a forward and backward pass over one rollout."""
    x, start = torch.randn(steps, n, INPUTS), torch.rand(steps, n) < START_RATE
    ours: dict[str, Network] = {
        "LSTM": LSTM(INPUTS, HIDDEN),
        "GRU": GRU(INPUTS, HIDDEN),
        "RNN tanh": RNN(INPUTS, HIDDEN),
        "RNN relu": RNN(INPUTS, HIDDEN, nonlinearity="relu"),
        "RNN sigmoid (a loop)": RNN(INPUTS, HIDDEN, nonlinearity="sigmoid"),
        "LSTM with peepholes (a loop)": LSTM(INPUTS, HIDDEN, peephole=True),
        "attention, window 64": Attention(INPUTS, HIDDEN),
        "frame stack, k = 4, and a layer": MLP(FrameStack(INPUTS, 4), HIDDEN),
    }
    lstm, gru, rnn = Masked("LSTM"), Masked("GRU"), Masked("RNN")
    calls: dict[str, Callable[[], Tensor]] = {
        "nn.LSTM per step, masked": lambda: lstm.per_step(x, start),
        "nn.LSTMCell loop, masked": lambda: lstm.cells(x, start),
        "nn.LSTM, one call, WRONG: no resets": lambda: lstm.layer(x)[0],
        "nn.GRU per step, masked": lambda: gru.per_step(x, start),
        "nn.GRUCell loop, masked": lambda: gru.cells(x, start),
        "nn.GRU, one call, WRONG: no resets": lambda: gru.layer(x)[0],
        "nn.RNN per step, masked": lambda: rnn.per_step(x, start),
        "nn.RNNCell loop, masked": lambda: rnn.cells(x, start),
    }
    for name, network in ours.items():
        calls[f"seqrl {name}"] = lambda network=network: network(x, start)[0]
    return {name: lambda f=f: train_once(f()) for name, f in calls.items()}


def kernel_cases(steps: int) -> Cases:
    """Return cases of torch's GRU and ours of few columns, forward and backward."""
    cases: Cases = {}
    for n in (1, 2, 4, 8, 16, 32):
        x, start = torch.randn(steps, n, INPUTS), torch.rand(steps, n) < START_RATE
        peer, ours = nn.GRU(INPUTS, 64), GRU(INPUTS, 64)
        cases[f"nn.GRU, one call, no resets, N={n}"] = lambda f=peer, x=x: train_once(f(x)[0])
        cases[f"seqrl GRU, N={n}"] = lambda f=ours, x=x, s=start: train_once(f(x, s)[0])
    return cases


def train_once(out: Tensor) -> None:
    """Take the gradient of the outputs' mean square."""
    out.square().mean().backward()


def acting_cases(n: int) -> Cases:
    """Return cases of one step of n environments: NumPy observations in, 2 outputs in NumPy."""
    space = spaces.Box(-np.inf, np.inf, (4,))
    obs, start = (
        np.random.default_rng(0).standard_normal((n, 4)).astype(np.float32),
        np.zeros(n, bool),
    )
    body = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
    cases: Cases = {}
    networks: dict[str, Network] = {
        "MLP 2x64": MLP(space),
        "LSTM": LSTM(space, HIDDEN),
        "GRU": GRU(space, HIDDEN),
        "RNN": RNN(space, HIDDEN),
        "attention": Attention(space, HIDDEN),
    }
    for name, network in networks.items():
        head = nn.Linear(network.features, 2)
        cases[f"seqrl {name}, torch"] = _torch_step(network.eval(), head, obs, start)
        fast = numpy_forward(network, head)
        if fast is not None:
            state = fast.step(obs, start)[1]
            cases[f"seqrl {name}, NumPy weights"] = lambda f=fast, s=state: f.step(obs, start, s)
    for kind in ("LSTM", "GRU"):
        cases[f"nn.{kind}Cell by hand"] = _cell_step(Masked(kind), body, obs, start)
    return cases


def _torch_step(
    network: Network, head: nn.Module, obs: np.ndarray, start: np.ndarray
) -> Callable[[], object]:
    @torch.inference_mode()
    def step() -> object:
        x, first = torch.from_numpy(obs)[None], torch.from_numpy(start)[None]
        out, _ = network(x, first, state)
        return head(out[0]).numpy()

    state = network.initial_state(len(obs))
    return step


def _cell_step(
    peer: Masked, body: nn.Module, obs: np.ndarray, start: np.ndarray
) -> Callable[[], object]:
    head, state = nn.Linear(HIDDEN, 2), peer.zeros(len(obs))

    @torch.inference_mode()
    def step() -> object:
        mask = 1.0 - torch.from_numpy(start).float()[:, None]
        return head(peer.step(body(torch.from_numpy(obs)), mask, state)[0]).numpy()

    return step


def medians(cases: Cases, repeats: int, calls: int) -> dict[str, float]:
    """Return the median seconds of one call, with the cases interleaved."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(repeats + 1):
        for name, case in cases.items():
            begin = time.perf_counter()
            for _ in range(calls):
                case()
            if repeat:  # the first is a warm-up
                seconds[name].append((time.perf_counter() - begin) / calls)
    return {name: statistics.median(values) for name, values in seconds.items()}


def print_table(title: str, unit: str, scale: float, results: dict[str, float], base: str) -> None:
    """Print one line a case; the last column is the speed relative to `base`."""
    print(f"\n{title}\n{'':42}{unit:>9}   {base!r} / this")
    for name, seconds in results.items():
        print(f"{name:42}{seconds * scale:9.1f}   {results[base] / seconds:6.2f}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=15, help="repetitions (default 15)")
    parser.add_argument("--steps", type=int, default=128, help="T (default 128)")
    parser.add_argument("--envs", type=int, default=8, help="N (default 8)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, numpy {np.__version__}, one thread")
    results = medians(training_cases(args.steps, args.envs), args.repeats, 1)
    sizes = f"T={args.steps}, N={args.envs}, H={HIDDEN}, start probability {START_RATE}"
    print_table(f"forward + backward, {sizes}", "ms", 1e3, results, "nn.LSTM per step, masked")
    results = medians(kernel_cases(args.steps), args.repeats, 1)
    print_table(
        f"GRU of 64 units, T={args.steps}", "ms", 1e3, results, "nn.GRU, one call, no resets, N=1"
    )
    results = medians(acting_cases(args.envs), args.repeats, 50)
    print_table(f"acting, N={args.envs}", "us", 1e6, results, "nn.LSTMCell by hand")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
