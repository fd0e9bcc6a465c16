"""Flags that say how a policy of tokens is decoded."""

from __future__ import annotations

import argparse
from typing import Any

from seqrl.scripts.options import Parser
from seqrl.scripts.values import number, whole_number

FLAGS = ("beam", "length_penalty", "temperature", "top_k", "top_p")


def add_decoding_flags(parser: Parser) -> None:
    """Add the flags of beam search and of sampling."""
    about = "Decoding: how replies of tokens are found (default: the likeliest token each)"
    add = parser.add_argument_group(about).add_argument
    add("--beam", type=whole_number, metavar="N", help="search with as many hypotheses")
    penalty = "of a beam: 0 is for short replies, 1 about for the mean of their tokens"
    add("--length-penalty", type=number, metavar="X", help=penalty)
    add("--temperature", type=number, metavar="X", help="draw tokens, sharper below 1")
    add("--top-k", type=whole_number, metavar="N", help="draw from the likeliest tokens")
    add("--top-p", type=number, metavar="X", help="draw from the nucleus of this probability")


def told(args: argparse.Namespace) -> dict[str, Any]:
    """Return what was typed of these flags."""
    found = {name: getattr(args, name) for name in FLAGS}
    return {name: value for name, value in found.items() if value is not None}


def episodes_of(args: argparse.Namespace) -> str:
    """Return what episodes are called that are decoded so."""
    if args.beam is not None:
        return f"beam-{args.beam}"
    return "sampled" if told(args) else "greedy"
