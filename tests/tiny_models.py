"""Tiny language models of Hugging Face's transformers, drawn at random; nothing is downloaded."""

import os

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"

FORMS = {
    "gpt2": ("GPT2", {"n_positions": 256, "attn_pdrop": 0.5, "resid_pdrop": 0.5}),
    "llama": ("Llama", {"num_key_value_heads": 1, "intermediate_size": 24}),
}


def tiny(form, size=16, words=20, seed=0, **more):
    """A model of this form with `words` tokens; without transformers the test is skipped."""
    transformers = pytest.importorskip("transformers")
    name, options = FORMS[form]
    config = getattr(transformers, f"{name}Config")(
        vocab_size=words, hidden_size=size, num_attention_heads=2, bos_token_id=0, eos_token_id=1,
        **{"num_hidden_layers": 2, **options, **more},
    )  # fmt: skip
    cls = getattr(transformers, "GPT2LMHeadModel" if form == "gpt2" else "LlamaForCausalLM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cls(config)
