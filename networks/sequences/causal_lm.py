"""A causal language model of Hugging Face's transformers, whose key-value cache is the memory."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gymnasium import Space
from torch import Tensor, nn

from seqrl.core.checks import check_whole
from seqrl.core.errors import UsageError, explain
from seqrl.core.tokens import BEGIN, END, PAD, token_space
from seqrl.core.types import State
from seqrl.networks.attention import ages
from seqrl.networks.base import Network, copied, refuse
from seqrl.networks.sequences.sources import check_sources

INSTALL = 'it takes transformers: pip install "seqrl[hf]"'
SPECIAL = END + 1  # tokens of ours that no model has


class CausalLM(Network):
    """A decoder alone, such as GPT-2 or Llama: it reads the source, then writes behind it.

    Where an episode starts, and wherever `previous` is BEGIN, the source's tokens go in before
    `previous`; else `previous` goes in alone. Features are the last hidden state at `previous`.
    All steps go through one call. An episode is one text, so it remembers earlier turns.

    space: a Dict of source and previous (see `token_space`).
    model: the folder of a model that `save_pretrained` has written, or the model itself, which is
        copied. Nothing is downloaded, and no code in the folder is run. Its dropout stays off.
    window: a token attends to itself and the window - 1 before it in its episode.
    own_tokens: the space's tokens from 3 on are the model's 0, 1, ...; BEGIN and END become its
        own, and the layer of the agent's choices begins as its output layer. By default words are
        the space's, and their embedding is drawn anew.
    Memory: a dict of "cache" [N, layers, 2, heads, window - 1, D], keys and values, and "age" [N],
    the number of the episode's tokens so far, which says how much of the cache is valid.
    """

    def __init__(
        self,
        space: Space,
        model: str | Path | nn.Module | None = None,
        *,
        window: int = 256,
        own_tokens: bool = False,
    ) -> None:
        super().__init__()
        self.tokens, self.window = token_space(space, "network CausalLM"), window
        if check_whole("window", window) <= self.tokens.length:
            expected = f"expected more than a source, {self.tokens.length} tokens"
            raise UsageError(f"window {window}: {expected}")
        self.own_tokens = own_tokens
        whole = load_model(model)
        self.body: Any = whole.base_model
        self._take_tokens(whole)
        keywords = inspect.signature(self.body.forward).parameters
        self.keyword = "cache" if "cache" in keywords else "past_key_values"
        self.positions = getattr(self.body.config, "max_position_embeddings", None)
        self._try()
        self.eval().train()

    # tokens

    def _take_tokens(self, whole: Any) -> None:
        """Give the model an embedding of the space's tokens, its own rows where they are meant."""
        theirs = self.body.get_input_embeddings().weight.detach()
        same = self.tokens.source == self.tokens.previous
        self.offset = 0 if same else self.tokens.source  # of `previous` in the embedding
        table = nn.Embedding(self.offset + self.tokens.previous, theirs.shape[1])
        nn.init.normal_(table.weight, 0.0, getattr(self.body.config, "initializer_range", 0.02))
        self.body.set_input_embeddings(table)
        self.output: nn.Parameter | None = None
        if self.own_tokens:
            self._check_counts(len(theirs), same)
            layer = whole.get_output_embeddings()
            weight = theirs if layer is None else layer.weight.detach()
            table.weight = nn.Parameter(self._own_rows(theirs))
            tied = layer is None or getattr(self.body.config, "tie_word_embeddings", False)
            self.output = table.weight if tied else nn.Parameter(self._own_rows(weight))

    def _check_counts(self, theirs: int, same: bool) -> None:
        """Refuse tokens that cannot be the model's own."""
        if not same:
            raise UsageError("own_tokens: source and previous differ; expected one vocabulary")
        if self.tokens.previous > theirs + SPECIAL:
            most = f"the model has {theirs:,}, and {SPECIAL} are not the model's"
            raise UsageError(f"own_tokens: the task has {self.tokens.previous:,} tokens; {most}")

    def _own_rows(self, weight: Tensor) -> Tensor:
        """Return the rows of the model's weights for our tokens: PAD, BEGIN and END come first."""
        config = self.body.config
        ends = (config.eos_token_id, config.bos_token_id, config.eos_token_id)
        firsts = (token[0] if isinstance(token, list) else token for token in ends)
        special = [x if x is not None and x < len(weight) else 0 for x in firsts]
        rows = [*special, *range(self.tokens.previous - SPECIAL)]
        return weight[rows].clone()

    def output_weight(self) -> Tensor | None:
        """Return the weights that the layer of the agent's choices shares, for own tokens."""
        return self.output

    # the model

    def _try(self) -> None:
        """Find features and the form of the cache by one token; refuse models that do not fit."""
        one = torch.zeros(1, 1, dtype=torch.int64)
        self.body.eval()
        try:
            with torch.no_grad():
                out, cache = self._run(one, torch.zeros(1, 1, 1, 1), one, None)
        except Exception as error:  # whatever a model of others' may do
            name = type(self.body).__name__
            expected = "expected a decoder with a cache of keys and values, alike in all layers"
            refuse(self, f"{name} failed on one token: {explain(error)}; {expected}", error)
        self.features, self.form = out.shape[-1], (*cache.shape[1:4], cache.shape[-1])

    def train(self, mode: bool = True) -> CausalLM:
        """Set the mode; the model stays in that of evaluation, as its dropout is off."""
        super().train(mode)
        self.body.eval()
        return self

    def initial_state(self, n: int) -> State:
        """Return zeros: an empty cache."""
        weight = self.body.get_input_embeddings().weight
        *form, size = self.form
        cache = weight.new_zeros(n, *form, self.window - 1, size)
        return {"cache": cache, "age": torch.zeros(n, dtype=torch.int64, device=weight.device)}

    def forward(self, obs: Any, start: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Map `obs`, tokens [T, N, L] and [T, N], to features [T, N, hidden] and memory."""
        state = self.initial_state(start.shape[1]) if state is None else state
        self._check(obs, start)
        text = lay_out(obs, start, self.offset)
        position = ages(text.begins.t(), state["age"]).t()
        last = text.end[-1, :, None]
        age = position.gather(1, last - 1)[:, 0] + 1
        position = position.masked_fill(text.behind, 0)
        self._check_positions(position)
        mask = self._mask(text.episode, state["age"], state["cache"].dtype)
        out, cache = self._run(text.ids, mask, position, state["cache"])
        kept = last + torch.arange(
            self.window - 1, device=last.device
        )  # the newest, [N, window - 1]
        cache = cache.take_along_dim(kept[:, None, None, None, :, None], -2)
        every = torch.arange(start.shape[1], device=start.device)
        return out[every, text.end - 1], {"cache": cache, "age": age}

    def _run(
        self, ids: Tensor, mask: Tensor, position: Tensor, cache: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return hidden states [N, K, H] of tokens [N, K], and the cache with these behind."""
        from transformers import DynamicCache

        past = DynamicCache()
        for i, layer in enumerate(() if cache is None else cache.unbind(1)):
            past.update(*layer.unbind(1), i)
        given = {"attention_mask": mask, "position_ids": position, self.keyword: past}
        out = self.body(input_ids=ids, use_cache=True, **given)[0]
        both = [torch.stack([layer.keys, layer.values], 1) for layer in past.layers]
        return out, torch.stack(both, 1)

    def _mask(self, episode: Tensor, age: Tensor, dtype: torch.dtype) -> Tensor:
        """Return what is added to scores [N, 1, K, window - 1 + K], for episodes [N, K]."""
        past, count = self.window - 1, episode.shape[1]
        lags = torch.arange(past, 0, -1, device=age.device)
        cached = torch.where(lags <= age[:, None], 0, -1)  # of this episode or not
        key = torch.cat([cached, episode], 1)[:, None]
        query = torch.arange(count, device=age.device)[:, None] + past
        lag = query - torch.arange(past + count, device=age.device)
        seen = (key == episode[..., None]) & (lag >= 0) & (lag < self.window)
        nothing = torch.zeros(seen.shape, dtype=dtype, device=age.device)
        return nothing.masked_fill(~seen, torch.finfo(dtype).min)[:, None]

    def _check(self, obs: Any, start: Tensor) -> None:
        """Refuse sources that cannot be read."""
        opens = start | (obs["previous"] == BEGIN)
        check_sources(self, obs["source"][opens], obs["previous"][opens], self.tokens.source)

    def _check_positions(self, position: Tensor) -> None:
        """Refuse an episode that is longer than the model has positions for."""
        if self.positions is not None and int(position.max()) >= self.positions:
            remedy = "expected shorter episodes, or a model with more (max_position_embeddings)"
            refuse(self, f"an episode of more than {self.positions:,} tokens; {remedy}")


class Text(NamedTuple):
    """A rollout [T, N] as N texts of up to K tokens."""

    ids: Tensor  # [N, K] rows of the embedding
    begins: Tensor  # [N, K] whether an episode begins with the token
    episode: Tensor  # [N, K] how many have begun so far
    behind: Tensor  # [N, K] padding behind the last token
    end: Tensor  # [T, N] tokens of the text up to this step


def lay_out(obs: Any, start: Tensor, offset: int) -> Text:
    """Return the texts: at each step `previous`, where a source is read the source before it."""
    source, previous = obs["source"].long(), obs["previous"].long()
    length = (source != PAD).sum(-1) * (start | (previous == BEGIN))
    end = (length + 1).cumsum(0)
    n = start.shape[1]
    place = torch.arange(int(end[-1].max()), device=end.device).expand(n, -1).contiguous()
    step = torch.searchsorted(end.t().contiguous(), place, right=True).clamp(max=len(end) - 1)

    def at_tokens(x: Tensor) -> Tensor:
        return x.t().gather(1, step)

    left = at_tokens(end) - 1 - place  # how many tokens of the step follow
    column = torch.arange(n, device=end.device)[:, None]
    which = (at_tokens(length) - left).clamp(0, source.shape[-1] - 1)
    ids = torch.where(left > 0, source[step, column, which], at_tokens(previous) + offset)
    begins = at_tokens(start) & (left == at_tokens(length))
    return Text(ids, begins, at_tokens(start.cumsum(0)), left < 0, end)


def load_model(model: Any) -> Any:
    """Return a causal language model of transformers, by its folder, or a copy of the one given."""
    try:
        import transformers
    except ImportError as error:
        raise UsageError(f"network CausalLM: {INSTALL}") from error
    if isinstance(model, transformers.PreTrainedModel):
        return copied(model).float()
    folder = Path(model).expanduser() if isinstance(model, str | Path) else None
    if folder is None or not (folder / "config.json").is_file():
        expected = "expected the folder of a model that save_pretrained has written"
        remedy = "nothing is downloaded; name one by --network-arg model=FOLDER"
        raise UsageError(f"model {model!r}: {expected}; {remedy}")
    try:
        with _quiet(transformers.utils.logging):
            found, told = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # whatever a file may hold
        raise UsageError(f"model {str(model)!r}: {explain(error)}") from error
    if told["missing_keys"]:
        missing = ", ".join(sorted(told["missing_keys"])[:3])
        raise UsageError(f"model {str(model)!r}: weights are not there, such as {missing}")
    return found.float()


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Show no bar of weights that are read."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
