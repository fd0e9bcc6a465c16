"""Imitation: the likelihood of right answers on any network, with memory or without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from seqrl.agents.deep.devices import Draw
from seqrl.agents.deep.heads import Gaussian
from seqrl.agents.deep.optim import Optim
from seqrl.agents.deep.policy_agent import PolicyAgent
from seqrl.agents.deep.targets import Loss
from seqrl.agents.deep.warm_start import WarmStart
from seqrl.agents.experience.episodes import Episodes
from seqrl.agents.schedules import Rate, schedule
from seqrl.agents.teachers import Teacher, check_teacher, teacher_in
from seqrl.core import action_mask, tree
from seqrl.core.arrays import on_device
from seqrl.core.checks import check_whole
from seqrl.core.errors import RunError, UsageError
from seqrl.core.seeding import Seed
from seqrl.core.types import Array, Batch, Decision, Metrics, State, Transition
from seqrl.networks.base import as_network

STEPS, EPISODES = 64, 8  # a gradient step, unless said: single steps, or whole episodes


class Imitation(PolicyAgent):
    """Maximum likelihood of a teacher's answers (behaviour cloning, teacher forcing).

    The teacher is asked at every step of training and drives, so nothing goes through the network
    until it learns. With `own_share` above 0 that share of the actions is the agent's own, and the
    teacher says what would have been right where these have led: scheduled sampling (Bengio et
    al., 2015) and DAgger (Ross, Gordon and Bagnell, 2011). Finished episodes are learned from in
    passes and minibatches and are then gone. Real actions descend half the squared error, which
    is the likelihood under a spread of 1.

    Args:
        network: a Network or any module from [B, ...] to [B, F]; its `study` may add to the loss.
        action_space: Discrete, MultiDiscrete, MultiBinary or Box.
        observation_space: lets lazy layers be built at once; without it at the first observation.
        teacher: who knows what is right: task, observation, a run's folder, or module:function.
            By observation what is shown is to be given back (see envs.Reconstruction).
            In Python also what `seqrl.load` returns, an agent, a function from one observation to
            one action, or a Teacher.
        optim: learning rate, clipping and optimiser.
        own_share: share of training's actions that are the agent's own, from 0 to 1, a schedule.
        label_smoothing: share of each target spread over all choices, in [0, 1).
        learn_spread: learn the spread of real actions too, by the Gaussian likelihood.
            Else its own actions are means, whatever explores.
        batch_size: columns a gradient step: 64 steps, with memory 8 whole episodes, if not given.
            Episodes have many steps each: 64 would leave few gradient steps.
        epochs: passes over what was gathered, at least 1.
        backend: "torch", "numpy" or "auto": in what plain networks act.
        device: "auto", "cpu", "cuda" or "cuda:0".
        seed: of the agent's own random numbers.
    """

    search_space: ClassVar[dict[str, str]] = {
        "learning_rate": "linear:{log:3e-4:0.05}:0",
        "max_grad_norm": "log:0.1:10",
    }

    draws_in_learning = learns_from_others = True

    def __init__(
        self,
        network: nn.Module,
        action_space: gym.Space,
        observation_space: gym.Space | None = None,
        *,
        teacher: Any = "task",
        optim: Optim = Optim("linear:0.01:0", max_grad_norm=1.0),
        own_share: Rate = 0.0,
        label_smoothing: float = 0.0,
        learn_spread: bool = False,
        batch_size: int | None = None,
        epochs: int = 1,
        backend: str = "auto",
        device: str = "auto",
        seed: Seed = None,
    ):
        self.teacher = check_teacher(teacher)
        self.asked: Teacher | None = None  # in the environments that it learns in
        self.own_share = schedule("own_share", own_share, 0.0, 1.0)
        self.epochs = check_whole("epochs", epochs)
        check_options(action_space, label_smoothing, learn_spread)
        self.columns = batch_size if batch_size is None else check_whole("batch_size", batch_size)
        self.label_smoothing, self.learn_spread = label_smoothing, learn_spread
        network = as_network(network)
        self.brought = network.answering(action_space)
        parts, others = (optim, 1.0, False, 1.0), (False, backend, device, seed)
        super().__init__(
            network, action_space, observation_space, *parts, *others, warm_start=WarmStart()
        )
        self.draws_actions = learn_spread or not isinstance(self.head, Gaussian)

    def __getstate__(self) -> dict[str, Any]:
        """Return all but what refers to environments, which `meet` sets again."""
        return {**vars(self), "asked": None}

    def brought_layer(self) -> nn.Module | None:
        """Return the layer that the network brings for answers, if it does."""
        return self.brought

    def _check_effect(self) -> None:
        """Refuse options that change nothing for this network, or ask for the same twice."""
        super()._check_effect()
        if (number := self.optim.regularisation.auxiliary) and self.brought is not None:
            reason = "the observation is the answer already"
            raise UsageError(f"auxiliary {number}: {reason}; leave it out")

    def make_store(self) -> Episodes:
        """Return episodes, kept until enough are over."""
        return Episodes(self.gamma)

    @property
    def batch_size(self) -> int:
        """Columns a gradient step."""
        usual = EPISODES if self.memory else STEPS
        return usual if self.columns is None else self.columns

    # the teacher

    @property
    def mixes(self) -> bool:
        """Whether some actions of training may be its own: then its memory is kept up."""
        return max(self.own_share.start, self.own_share.end) > 0

    @property
    def plays(self) -> bool:
        """Whether all actions of training are its own."""
        return min(self.own_share.start, self.own_share.end) == 1

    def meet(self, envs: Any) -> None:
        """Let the teacher answer in these environments; UsageError where it cannot."""
        self.asked = teacher_in(envs, self.teacher)

    def act(
        self, obs: Array, start: Array, state: State = None, *, explore: bool = True
    ) -> Decision:
        """Return actions and memory; in training the teacher's answers, which it may drive by.

        Without environments that were met nobody is asked, and the agent's own policy is drawn
        from. The memory of training is the pair (teacher's, own).
        """
        if not explore or self.asked is None:
            return super().act(obs, start, state, explore=explore)
        self._try_once(obs, start)
        taught, own = (None, None) if state is None else state
        action, known, taught = self.asked.answers(obs, start, taught)
        answer = action, known
        if self.mixes:
            decision = super().act(obs, start, own)
            action, own = self._mixed(decision.action, action), decision.state
        return Decision(action, (taught, own), answer=answer)

    def _mixed(self, own: Array, answer: Array) -> Array:
        """Return actions [N, ...], each its own with the chance of now, else the answer."""
        on_host = isinstance(answer, np.ndarray)
        draw = Draw(self.rng if on_host else self.torch_rng)
        mine = draw.uniform((len(answer),)) < self.now(self.own_share)
        mine = mine.reshape((-1,) + (1,) * (answer.ndim - 1))
        chosen: Array = draw.xp.where(mine if on_host else mine.to(answer.device), own, answer)
        return chosen

    def form_of_turns(self, obs: Array, start: Array) -> Decision:
        """Return what `act` decides in training as far as kinds and shapes go; draws nothing."""
        decision = super().act(obs, start, None, explore=False)
        assert self.asked is not None
        *answer, taught = self.asked.answers(obs, start)
        state = taught, decision.state if self.mixes else None
        return decision._replace(state=state, answer=tuple(answer))

    # learning

    def learn(self, step: Transition) -> Metrics:
        """Keep the turn, and learn from finished episodes where they are enough."""
        if step.answer is None:
            remedy = "train by seqrl.training.train, or call agent.meet(envs) before act"
            raise UsageError(f"Imitation was told no answers: {remedy}")
        return super().learn(step)

    def batches(self) -> Iterator[Batch]:
        """Yield minibatches of all finished episodes, pass after pass, when they are enough."""
        gathered = len(self.store) if self.memory else self.store.steps
        if gathered < self.batch_size:
            return
        whole = on_device(self.store.take(), self.device)
        needed = whole._replace(action=None, reward=None, discount=None, final=None)
        rows = needed.without_closing() if self.memory else needed.steps()
        parts = gathered // self.batch_size
        for _ in range(self.epochs):
            yield from rows.split(parts, self.rng) if parts > 1 else [rows]
        self.update_statistics(whole)

    def loss(self, batch: Batch) -> Loss:
        """Return -sum log pi(answer|s) where the answer is known, and the network's own terms."""
        assert batch.answer is not None
        answer, known = batch.answer
        mask = batch.valid & known
        out, terms = self.policy.study(batch.obs, batch.start, batch.state, answer, mask)
        if action_mask.split(batch.obs)[1] is not None:
            self._check_legal(out, answer, mask)
        count = mask.sum().clamp(min=1)
        error = self._error(out, answer, mask)
        if not terms:
            return Loss(error, count, metrics={})
        metrics = {f"train/{name}": term for name, term in terms.items()}
        metrics["train/imitation_loss"] = error / count
        return Loss(error + count * sum(terms.values()), count, metrics=metrics)

    def _check_legal(self, out: Tensor, answer: Tensor, mask: Tensor) -> None:
        """Refuse known answers that may not be given: of no chance, they would teach nothing."""
        forbidden = mask & (self.head.log_prob(out.detach(), answer) < action_mask.FORBIDDEN / 2)
        if bool(forbidden.any()):
            found = f"the right answer {answer[forbidden][0].tolist()} may not be given"
            remedy = f"mend one, or hide the mask by {action_mask.HIDE}"
            raise RunError(f"{found}: the {action_mask.NAME} observed forbids it; {remedy}")

    def _error(self, out: Tensor, answer: Tensor, mask: Tensor) -> Tensor:
        """Return the sum of minus the log-likelihood over the steps [T, B] of a mask."""
        if isinstance(self.head, Gaussian) and not self.learn_spread:
            return self.head.squared_error(out, answer, mask)
        return self.head.negative_log_likelihood(out, answer, mask, self.label_smoothing)

    def update(self, batch: Batch) -> Callable[[], Metrics]:
        """Take a gradient step."""
        with self.studying(batch):
            loss = self.loss(batch)
            norm = self.gradient_step(loss, self.policy)
        self.updates += 1

        def numbers() -> Metrics:
            return {
                "train/loss": (loss.total / loss.count).detach(),
                **tree.map(torch.detach, loss.metrics),
                **(self.head.metrics() if self.draws_actions else {}),
                "train/grad_norm": norm,
                "train/learning_rate": self.now(self.learning_rate),
                "train/own_share": self.now(self.own_share),
            }

        return numbers


def check_options(action_space: gym.Space, label_smoothing: float, learn_spread: bool) -> None:
    """Refuse numbers that are out of range, or have no effect on these actions."""
    real = isinstance(action_space, gym.spaces.Box)
    if not 0 <= label_smoothing < 1:
        raise UsageError(f"label_smoothing {label_smoothing}: expected a number of [0, 1)")
    if label_smoothing and real:
        raise UsageError("label_smoothing: actions are real numbers, no choices; leave it at 0")
    if learn_spread and not real:
        raise UsageError(f"learn_spread: {action_space} has no spread to learn; leave it out")
