"""Networks by name, each with the encoder of the observation space."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Set
from contextlib import nullcontext
from functools import partial
from typing import Any

from gymnasium import Space

from seqrl.core import tree
from seqrl.core.action_mask import rest_space
from seqrl.core.checks import check_flag
from seqrl.core.errors import UsageError, closest
from seqrl.core.seeding import Seed, drawing_from, torch_generator
from seqrl.networks.attention import Attention
from seqrl.networks.autoencoder import VAE, AutoEncoder
from seqrl.networks.base import Network, parts_of
from seqrl.networks.bidirectional import ENDS
from seqrl.networks.cnn import is_image
from seqrl.networks.encoders import TREE_OPTIONS, encoder, encoder_options, options_of, tree_encoder
from seqrl.networks.layers import IDENTITY_INPUT_STD
from seqrl.networks.mlp import MLP
from seqrl.networks.options import lookup
from seqrl.networks.recurrent import GRU, LSTM, RNN
from seqrl.networks.sequences.causal_lm import CausalLM
from seqrl.networks.sequences.hred import HRED
from seqrl.networks.sequences.memory_network import MemoryNetwork
from seqrl.networks.sequences.seq2seq import Seq2Seq
from seqrl.networks.sequences.tree import Tree
from seqrl.networks.sequences.vhred import VHRED
from seqrl.networks.sequences.word2vec import Word2Vec
from seqrl.networks.stack import FrameStack
from seqrl.networks.tokens import Tokens

NETWORKS = {
    "mlp": "multi-layer perceptron on the flattened observation; no memory",
    "cnn": "convolutions for images: presets small, nature, impala, lenet, alexnet; no memory",
    "autoencoder": "a code from which the observation is given back; no memory",
    "vae": "the same with a code that is drawn, and can be drawn anew",
    "rnn": "Elman's recurrent network: tanh (from the identity), relu, sigmoid or identity",
    "lstm": "long short-term memory, with peepholes if asked",
    "gru": "gated recurrent unit",
    "attention": "causal self-attention over a window of past steps",
    "frame-stack": "the last k observations side by side, then an MLP",
    "seq2seq": "reads a source of tokens and answers token by token, with attention",
    "hred": "the same for dialogues, with a context network over turns",
    "vhred": "the same with a latent a turn: several replies to the same",
    "causal-lm": "a language model of Hugging Face's, from its folder; its cache is the memory",
    "memory-network": "answers a question from facts, in several hops over them",
    "tree": "a recursive network: reads a tree of tokens from its leaves to its root",
    "word2vec": "a vector a word: skip-gram or CBOW, learned by seqrl/WordContext-v0",
}
MakeNetwork = Callable[..., Network]
SEQUENCES: dict[str, MakeNetwork] = {
    "seq2seq": Seq2Seq,
    "hred": HRED,
    "vhred": VHRED,
    "causal-lm": CausalLM,
    "memory-network": MemoryNetwork,
    "tree": Tree,
    "word2vec": Word2Vec,
}
ENCODERS: dict[str, MakeNetwork] = {"mlp": MLP, "autoencoder": AutoEncoder, "vae": VAE}
CORES: dict[str, MakeNetwork] = {"rnn": RNN, "lstm": LSTM, "gru": GRU, "attention": Attention}
WHOLE = ENCODERS | SEQUENCES  # that take a space and all arguments
MAKERS: list[MakeNetwork] = [MLP, Tokens, *CORES.values(), *SEQUENCES.values()]
FLAGS = {  # arguments that are True or False
    each.name
    for make in MAKERS
    for each in inspect.signature(make).parameters.values()
    if isinstance(each.default, bool)
}

# Initialisations with long memory: gates that keep for 1 / (1 - sigmoid(4)), about 50 steps;
# orthogonal weights, which keep the norm of the memory (Saxe et al. 2014); the identity for
# Elman's network (Le et al. 2015).
MEMORY_DEFAULTS: dict[str, dict[str, Any]] = {
    "rnn": {"init": "identity", "shortcut": True},
    "lstm": {"init": "orthogonal", "forget_bias": 4.0, "shortcut": True},
    "gru": {"init": "orthogonal", "keep_bias": 4.0, "shortcut": True},
}


def build(name: str, observation_space: Space, *, seed: Seed = None, **args: Any) -> Network:
    """Return the network of that name for that space.

    seed: of the weights; None draws them from torch's global generator.
    A space's `action_mask` is not for the network (see `core.action_mask`).

    args: the keyword arguments of its class and of the encoder for the space (see `encoder`);
    one of both, such as init or dropout, goes to both. For cores on MultiDiscrete, tokens="gru"
    (or another core) reads the observation as a sequence (see Tokens). Arguments of cores that
    are not given are those of MEMORY_DEFAULTS; init="torch" leaves weights as torch makes them.
    Wrong arguments raise a UsageError.
    """
    name, observation_space = lookup("network", name, NETWORKS), rest_space(observation_space)
    for flag in FLAGS & args.keys():
        check_flag(flag, args[flag])
    if args.get("init") == "torch":
        args["init"] = None  # which no command line can say
    try:
        with nullcontext() if seed is None else drawing_from(torch_generator(seed)):
            return _make(name, observation_space, args)
    except UsageError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"network {name} for {observation_space}: {error}") from error


def _make(name: str, space: Space, args: dict[str, Any]) -> Network:
    if name == "cnn":
        return _cnn(space, args)
    if name == "frame-stack":
        return _frame_stack(space, args)
    if name in WHOLE:
        _check(name, args, options_of(WHOLE[name]))
        return WHOLE[name](space, **args)
    return _core(name, space, args)


def _core(name: str, space: Space, args: dict[str, Any]) -> Network:
    core, core_options = CORES[name], options_of(CORES[name])
    if "tokens" in args:
        token_core = CORES[lookup("tokens", args["tokens"], CORES)]
        make_source: MakeNetwork = partial(Tokens, core=token_core)
        options = options_of(Tokens) - {"core", "hidden_size"}
    elif "bidirectional" in args:
        raise UsageError(f"network {name}: bidirectional: {ENDS}; within an encoder add tokens")
    else:
        make_source, options = encoder, encoder_options(space)
    _check(name, args, core_options | options | {"tokens"})
    if args.get("init") in IDENTITY_INPUT_STD:  # of recurrent weights only
        options = options - {"init"}
    source = make_source(space, **_select(args, options))
    return core(source, **_core_args(name, args, core_options))


def _core_args(name: str, args: dict[str, Any], options: Set[str]) -> dict[str, Any]:
    """Return the core's arguments, with MEMORY_DEFAULTS where args say nothing."""
    defaults = dict(MEMORY_DEFAULTS.get(name, {}))
    if args.get("nonlinearity", "tanh") != "tanh":
        defaults.pop("init", None)  # the identity is for tanh
    return defaults | _select(args, options)


def _frame_stack(space: Space, args: dict[str, Any]) -> Network:
    mlp_options = options_of(MLP) - TREE_OPTIONS
    _check("frame-stack", args, {"k"} | TREE_OPTIONS | mlp_options)
    stack = FrameStack(tree_encoder(space, **_select(args, TREE_OPTIONS)), **_select(args, {"k"}))
    return MLP(stack, **_select(args, mlp_options))


def _cnn(space: Space, args: dict[str, Any]) -> Network:
    if not any(map(is_image, tree.leaves(parts_of(space)))):
        expected = 'expected Box with three axes, or uint8 with two: use network "mlp"'
        raise UsageError(f"network cnn: no image in the observation space {space}; {expected}")
    _check("cnn", args, encoder_options(space))
    return encoder(space, **args)


def _check(name: str, args: dict[str, Any], known: Set[str]) -> None:
    for key in args:
        if key not in known:
            hint = f"{closest(key, known)} Known: {', '.join(sorted(known))}"
            raise UsageError(f"network {name}: unknown argument {key!r}.{hint}")


def _select(args: dict[str, Any], names: Set[str]) -> dict[str, Any]:
    return {key: value for key, value in args.items() if key in names}
