"""Agent without observation_space on a lazy network: first batch builds it under inference_mode -> 'Inference tensors' errors in learning."""
from _lib import *
import torch; from torch import nn
from seqrl.agents import DeepQ, ReplaySettings, Reinforce; from seqrl.training import train
from seqrl.networks import GRU
res = []
for name, mk in (("lazy", lambda: nn.Sequential(nn.LazyLinear(8), nn.Tanh())), ("gru", lambda: GRU(nn.Sequential(nn.LazyLinear(8), nn.Tanh()), 8)), ("lazybn", lambda: nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d()))):
    for cls in (Reinforce, DeepQ):
        env = Tiny(spaces.Box(-1, 1, (3,), np.float32))
        kw = {"replay": ReplaySettings(learning_starts=10)} if cls is DeepQ else {}
        r = oneline(lambda: train(cls(mk(), env.action_space, seed=0, **kw), env, steps=200, seed=0))
        res.append((name, cls.__name__, r[0], str(r[1])[:200]))
done(all(r[2] == "ok" for r in res), res)
