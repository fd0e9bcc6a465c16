"""A deep-copied agent must learn on exactly as the original would, and leave the original alone (PBT/Optuna/best-model users)."""
from _lib import *
import copy
from seqrl.agents import DeepQ, DeepSarsa, ReplaySettings, Reinforce; from seqrl.networks import build; from seqrl.training import train; from seqrl.training.runs import checkpoint
from seqrl.envs import make
res = []
def mk(name):
    e = make("CartPole-v1"); o, a = e.single_observation_space, e.single_action_space
    if name.startswith("reinforce"): return Reinforce(build(name.split("-")[1], o), a, o, seed=0)
    return DeepSarsa(build(name.split("-")[1], o), a, o, seed=0) if name[0] == "s" else DeepQ(build(name.split("-")[1], o), a, o, seed=0, replay=ReplaySettings(learning_starts=50))
import torch
for name in ("reinforce-mlp", "reinforce-gru", "q-mlp", "q-gru", "s-mlp"):
    for pre in (0, 400):
        def go():
            torch.manual_seed(0); a = mk(name)
            if pre: train(a, make("CartPole-v1"), steps=pre, seed=0)
            b = copy.deepcopy(a); before = checkpoint.digest(a.state_dict())
            train(b, make("CartPole-v1"), steps=400, seed=1); same = checkpoint.digest(a.state_dict()) == before
            if hasattr(b, "last_metrics"): shared = [k for k, v in b.last_metrics.items() if callable(v) and getattr(v, "__closure__", None) and any(c.cell_contents is a for c in v.__closure__)]
            else: shared = []
            train(a, make("CartPole-v1"), steps=400, seed=1)
            return same, checkpoint.digest(a.state_dict()) == checkpoint.digest(b.state_dict()), shared
        res.append((name, pre, *oneline(go)))
done(all(r[2] == "ok" and r[3] == (True, True, []) for r in res), "\n  ".join(map(str, res)))
