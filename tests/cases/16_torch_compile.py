"""torch.compile'd networks (SB3 / CleanRL reports). Right: trains, or a line that says what to do."""
from _lib import *
import torch; from torch import nn
from seqrl.agents import DeepQ, ReplaySettings, Reinforce; from seqrl.networks import MLP, LSTM; from seqrl.training import train
res = []
sp = spaces.Box(-1, 1, (3,), np.float32)
for name, mk in (("plain", lambda: torch.compile(nn.Sequential(nn.Linear(3, 8), nn.Tanh()), backend="eager")), ("MLP", lambda: torch.compile(MLP(sp), backend="eager")), ("LSTM", lambda: torch.compile(LSTM(MLP(sp), 8), backend="eager"))):
    for cls in (Reinforce, DeepQ):
        env = Tiny(sp); kw = {"replay": ReplaySettings(learning_starts=10)} if cls is DeepQ else {}
        r = oneline(lambda: train(cls(mk(), env.action_space, sp, seed=0, **kw), env, steps=60, seed=0))
        res.append((name, cls.__name__, r[0], str(r[1])[:200]))
done(all(r[2] == "ok" for r in res), "\n  ".join(map(str, res)))
