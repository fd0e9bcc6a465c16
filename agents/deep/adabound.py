"""AdaBound, the one optimiser of the field's common ones that torch has not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch


class AdaBound(torch.optim.Optimizer):
    """Adam whose rates, one a weight, are bounded ever closer: it ends as SGD (Luo et al., 2019).

    In step t the rate of a weight stays between f (1 - 1 / (gamma t + 1)) and f (1 + 1 / (gamma t))
    where f = final_ratio * lr, so that a schedule moves the bounds too, as in the authors' code.

    lr: of Adam, at least 0. betas: of the running moments. eps: beside the root of the second.
    final_ratio: of the rate at the end to lr; the paper's .1 for its .001.
    gamma: how fast the bounds close. weight_decay: times the weights, added to the gradient.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        final_ratio: float = 100.0,
        gamma: float = 1e-3,
        weight_decay: float = 0.0,
    ):
        bounds = {"final_ratio": final_ratio, "gamma": gamma}
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, **bounds}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every weight that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step_one(weight, group)
        return loss

    def _step_one(self, weight: torch.Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[weight], group["betas"]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(weight)
            state["exp_avg_sq"] = torch.zeros_like(weight)
        state["step"] += 1
        t = float(state["step"])
        grad = weight.grad + group["weight_decay"] * weight
        state["exp_avg"].lerp_(grad, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        rate = group["lr"] * math.sqrt(1 - beta2**t) / (1 - beta1**t)
        final, gamma = group["final_ratio"] * group["lr"], group["gamma"]
        low, high = final * (1 - 1 / (gamma * t + 1)), final * (1 + 1 / (gamma * t))
        rates = (rate / (state["exp_avg_sq"].sqrt() + group["eps"])).clamp(low, high)
        weight.addcmul_(rates, state["exp_avg"], value=-1)
