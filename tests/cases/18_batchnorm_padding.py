"""BatchNorm network: running statistics must be those of what was observed, not of padding (constant obs 5, episodes of 2 and 40 steps)."""
from _lib import *
import torch; from torch import nn
from seqrl.agents import DeepQ, ReplaySettings, Reinforce; from seqrl.networks import GRU; from seqrl.training import train
sp = spaces.Box(-10, 10, (2,), np.float32); res = []
class E(Tiny):
    n = 0
    def reset(self, *, seed=None, options=None):
        self.n += 1; self.length = 2 if self.n % 4 else 40
        return super().reset(seed=seed)
class N(nn.Module):
    def __init__(s): super().__init__(); s.bn = nn.BatchNorm1d(2); s.l = nn.Linear(2, 4)
    def forward(s, x): return torch.tanh(s.l(s.bn(x)))
for cls in (Reinforce, DeepQ):
    env = E(sp, obs=lambda s, t: np.full(2, 5.0, np.float32)); net = N()
    kw = {"replay": ReplaySettings(learning_starts=10)} if cls is DeepQ else {}
    a = cls(net, env.action_space, sp, seed=0, **kw)
    r = oneline(lambda: train(a, env, steps=4000, seed=0))
    res.append((cls.__name__, r[0], net.bn.running_mean.tolist()))
done(all(k == "ok" and np.allclose(m, 5, atol=0.1) for _, k, m in res), res)
