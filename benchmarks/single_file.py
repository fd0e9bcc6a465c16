"""PPO as a single file has it, to be timed beside ours: what CleanRL's users run.

In the manner of CleanRL's `ppo.py` and `ppo_atari_lstm.py` (Huang et al., 2022), written for this
comparison: a vector of environments, a buffer of tensors, one optimiser over policy and values;
with memory one LSTM that both share, stepped with masks, and whole columns as minibatches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

GAMMA, DECAY, CLIP = 0.99, 0.95, 0.2


def layer(inputs: int, outputs: int, gain: float = 2**0.5) -> nn.Linear:
    """Return an orthogonal layer without bias at first."""
    made = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(made.weight, gain)
    nn.init.zeros_(made.bias)
    return made


class Model(nn.Module):
    """Policy and values: two networks of two layers of 64, or heads on one LSTM."""

    def __init__(self, inputs: int, actions: int, lstm: int):
        super().__init__()
        self.lstm = nn.LSTM(inputs, lstm) if lstm else None

        def head(outputs: int, gain: float) -> nn.Module:
            if lstm:
                return layer(lstm, outputs, gain)
            hidden = layer(inputs, 64), nn.Tanh(), layer(64, 64), nn.Tanh()
            return nn.Sequential(*hidden, layer(64, outputs, gain))

        self.policy, self.critic = head(actions, 0.01), head(1, 1.0)

    def features(self, obs: Tensor, done: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Return [T * N, F] of obs [T, N, ...] and the memory behind it."""
        if self.lstm is None:
            return obs.flatten(0, 1), state
        seen = []
        for one, over in zip(obs, done, strict=True):
            state = tuple((1.0 - over)[None, :, None] * part for part in state)
            out, state = self.lstm(one[None], state)
            seen.append(out)
        return torch.cat(seen).flatten(0, 1), state

    def forward(
        self, obs: Tensor, done: Tensor, state: Any, action: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Any]:
        """Return action, its log-probability, entropy, value, each [T * N], and memory."""
        features, state = self.features(obs, done, state)
        chances = Categorical(logits=self.policy(features))
        action = chances.sample() if action is None else action
        value = self.critic(features)[:, 0]
        return action, chances.log_prob(action), chances.entropy(), value, state


def single_file_ppo(
    make_env: Callable[[], gym.Env], n: int, turns: int, passes: int, minibatches: int, lstm: int
) -> Callable[[int], object]:
    """Return a function that trains for some env steps, in whole rollouts of `turns` turns."""
    envs = gym.vector.SyncVectorEnv([make_env] * n)
    space: Any = envs.single_observation_space
    actions: Any = envs.single_action_space
    torch.manual_seed(0)
    model = Model(space.shape[0], int(actions.n), lstm)
    optimizer = torch.optim.Adam(model.parameters(), lr=2.5e-4, eps=1e-5)
    obs, value, reward, done, log_prob = (
        torch.zeros(turns, n, *shape) for shape in (space.shape, (), (), (), ())
    )
    action = torch.zeros(turns, n, dtype=torch.long)
    now = torch.as_tensor(envs.reset(seed=0)[0])
    over = torch.zeros(n)
    state: Any = tuple(torch.zeros(1, n, lstm) for _ in range(2))

    def rollout() -> Tensor:
        """Fill the buffer; return the advantages [T, N]."""
        nonlocal now, over, state
        for t in range(turns):
            obs[t], done[t] = now, over
            with torch.no_grad():
                action[t], log_prob[t], _, value[t], state = model(now[None], over[None], state)
            seen, earned, terminated, truncated, _ = envs.step(action[t].numpy())
            reward[t], now = torch.as_tensor(earned), torch.as_tensor(seen)
            over = torch.as_tensor(np.logical_or(terminated, truncated), dtype=torch.float32)
        with torch.no_grad():
            following = model(now[None], over[None], state)[3]
        advantages, newest, ends = torch.zeros(turns, n), torch.zeros(n), over
        for t in reversed(range(turns)):
            error = reward[t] + GAMMA * following * (1 - ends) - value[t]
            advantages[t] = newest = error + GAMMA * DECAY * (1 - ends) * newest
            following, ends = value[t], done[t]
        return advantages

    def learn(before: Any, advantages: Tensor) -> None:
        returns = advantages + value
        size = (n if lstm else n * turns) // minibatches
        for _ in range(passes):
            for chosen in torch.randperm(size * minibatches).split(size):

                def pick(leaf: Tensor, chosen: Tensor = chosen) -> Tensor:
                    return leaf[:, chosen] if lstm else leaf.flatten(0, 1)[chosen][None]

                memory = tuple(part[:, chosen] for part in before) if lstm else ()
                flat = [pick(x).flatten() for x in (log_prob, advantages, returns, value)]
                old_log_prob, advantage, target, old_value = flat
                own = pick(action).flatten()
                _, new, entropy, guess, _ = model(pick(obs), pick(done), memory, own)
                ratio = (new - old_log_prob).exp()
                with torch.no_grad():  # which it logs
                    ((ratio - 1) - ratio.log()).mean()
                    ((ratio - 1.0).abs() > CLIP).float().mean().item()
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                cut = ratio.clamp(1 - CLIP, 1 + CLIP)
                gain = torch.min(advantage * ratio, advantage * cut).mean()
                near = old_value + (guess - old_value).clamp(-CLIP, CLIP)
                error = 0.5 * torch.max((guess - target) ** 2, (near - target) ** 2).mean()
                loss = 0.5 * error - gain - 0.01 * entropy.mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()

    def run(steps: int) -> None:
        for _ in range(max(1, steps // (turns * n))):
            before = state
            learn(before, rollout())

    return run
