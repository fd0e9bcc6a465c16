"""Network with float64 / bfloat16 / half weights (SB3, skrl: dtype mismatch). Right: works, or one line when the agent is built."""
from _lib import *
import torch; from torch import nn
from seqrl.agents import DeepQ, ReplaySettings, Reinforce; from seqrl.training import train
res = []
for dt in (torch.float64, torch.bfloat16, torch.float16):
    class N(nn.Module):
        def __init__(s): super().__init__(); s.l = nn.Linear(3, 8).to(dt)
        def forward(s, x): return torch.tanh(s.l(x.to(dt)))
    for cls in (Reinforce, DeepQ):
        for given in (True, False):
            env = Tiny(spaces.Box(-1, 1, (3,), np.float32))
            r = oneline(lambda: train(cls(N(), env.action_space, env.observation_space if given else None, seed=0, **({"replay": ReplaySettings(learning_starts=10)} if cls is DeepQ else {})), env, steps=150, seed=0))
            res.append((str(dt)[6:], cls.__name__, "space" if given else "nospace", r[0], str(r[1])[:130]))
done(all(r[3] != "raw" for r in res), "\n  ".join(map(str, res)))
