"""Networks by name, for the command line: the encoder follows the observation space."""

from __future__ import annotations

from collections.abc import Callable, Set
from functools import partial
from typing import Any

from gymnasium import Space, spaces

from seqrl.core import UsageError, closest
from seqrl.networks.attention import Attention
from seqrl.networks.base import Network
from seqrl.networks.cnn import is_image
from seqrl.networks.encoders import OF_PARTS, encoder, encoder_options, options_of, parts
from seqrl.networks.layers import IDENTITY
from seqrl.networks.mlp import MLP
from seqrl.networks.options import lookup
from seqrl.networks.recurrent import GRU, LSTM, RNN
from seqrl.networks.stack import FrameStack
from seqrl.networks.tokens import Tokens

NETWORKS = {
    "mlp": "multi-layer perceptron on the flattened observation; no memory",
    "cnn": "convolutions for images: presets small, nature, impala; no memory",
    "rnn": "Elman's recurrent network: tanh (from the identity), relu, sigmoid or identity",
    "lstm": "long short-term memory, with peepholes if asked",
    "gru": "gated recurrent unit",
    "attention": "causal self-attention over a window of past steps",
    "frame-stack": "the last k observations side by side, then an MLP",
}
CORES: dict[str, type[RNN | LSTM | GRU | Attention]] = {
    "rnn": RNN,
    "lstm": LSTM,
    "gru": GRU,
    "attention": Attention,
}

# What makes a core remember from the start: gates that keep for 1 / (1 - sigmoid(4)), about 50
# steps; orthogonal weights, which neither shrink nor blow up what goes round (Saxe et al. 2014);
# the identity for Elman's network (Le et al. 2015).
REMEMBERING: dict[str, dict[str, Any]] = {
    "rnn": {"init": "identity", "shortcut": True},
    "lstm": {"init": "orthogonal", "forget_bias": 4.0, "shortcut": True},
    "gru": {"init": "orthogonal", "keep_bias": 4.0, "shortcut": True},
    "attention": {},
}


def build(name: str, observation_space: Space, **args: Any) -> Network:
    """The network of that name for that space.

    args: the keyword arguments of its class and of the encoder for the space (see `encoder`);
    one that both know, such as init or dropout, goes to both. For cores on MultiDiscrete,
    tokens="gru" (or another core) reads the observation as a sequence (see Tokens). Recurrent
    cores remember from the start unless args say otherwise (see REMEMBERING); their classes are
    as in the textbook. Anything unknown or out of range is a UsageError.
    """
    name = lookup("network", name, NETWORKS)
    try:
        return _make(name, observation_space, args)
    except UsageError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"network {name} for {observation_space}: {error}") from error


def _make(name: str, space: Space, args: dict[str, Any]) -> Network:
    if name == "mlp":
        _check(name, args, options_of(MLP))
        return MLP(space, **args)
    if name == "cnn":
        return _cnn(space, args)
    if name == "frame-stack":
        return _frame_stack(space, args)
    return _core(name, space, args)


def _core(name: str, space: Space, args: dict[str, Any]) -> Network:
    core, own = CORES[name], options_of(CORES[name])
    if "tokens" in args:
        reader = CORES[lookup("tokens", args["tokens"], CORES)]
        first: Callable[..., Network] = partial(Tokens, core=reader)
        options = options_of(Tokens) - {"core", "hidden_size"}
    else:
        first, options = encoder, encoder_options(space)
    _check(name, args, own | options | {"tokens"})
    if args.get("init") in IDENTITY:  # of recurrent weights only
        options = options - {"init"}
    return core(first(space, **_among(args, options)), **_remembering(name, args, own))


def _remembering(name: str, args: dict[str, Any], own: Set[str]) -> dict[str, Any]:
    """The core's arguments; it remembers from the start where nothing else is asked for."""
    known = dict(REMEMBERING[name])
    if args.get("nonlinearity", "tanh") != "tanh":
        known.pop("init", None)  # the identity is for tanh
    return known | _among(args, own)


def _frame_stack(space: Space, args: dict[str, Any]) -> Network:
    last = options_of(MLP) - OF_PARTS
    _check("frame-stack", args, {"k"} | OF_PARTS | last)
    stack = FrameStack(parts(space, **_among(args, OF_PARTS)), **_among(args, {"k"}))
    return MLP(stack, **_among(args, last))


def _cnn(space: Space, args: dict[str, Any]) -> Network:
    if not _has_image(space):
        raise UsageError(
            f"network cnn: no image in the observation space {space}; expected Box with three "
            'axes, or uint8 with two: use network "mlp"'
        )
    _check("cnn", args, encoder_options(space))
    return encoder(space, **args)


def _has_image(space: Space) -> bool:
    if isinstance(space, spaces.Dict):
        return any(map(_has_image, space.values()))
    if isinstance(space, spaces.Tuple):
        return any(map(_has_image, space))
    return is_image(space)


def _check(name: str, args: dict[str, Any], known: Set[str]) -> None:
    for key in args:
        if key not in known:
            raise UsageError(
                f"network {name}: unknown argument {key!r}.{closest(key, known)} "
                f"Known: {', '.join(sorted(known))}"
            )


def _among(args: dict[str, Any], names: Set[str]) -> dict[str, Any]:
    return {key: value for key, value in args.items() if key in names}
