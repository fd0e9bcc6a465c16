"""A network that holds a lock, an open file or a logger (SB3 'cannot pickle _thread.lock'): REINFORCE copies it for its value network. Right: works or one line."""
from _lib import *
import torch, threading, logging; from torch import nn
from seqrl.agents import DeepQ, ReplaySettings, Reinforce, Updates; from seqrl.training import train
sp = spaces.Box(-1, 1, (4,), np.float32); res = []
for name, extra in (("lock", lambda: threading.Lock()), ("file", lambda: open(os.devnull, "w")), ("logger", lambda: logging.getLogger("x")), ("module", lambda: np), ("generator", lambda: torch.Generator()), ("lambda", lambda: (lambda x: x)), ("cached output", lambda: None)):
    class N(nn.Module):
        def __init__(s): super().__init__(); s.l = nn.Linear(4, 8); s.extra = extra()
        def forward(s, x):
            y = torch.tanh(s.l(x))
            if name == "cached output": s.extra = y
            return y
    for cls in (Reinforce, DeepQ):
        env = Tiny(sp); kw = {"replay": ReplaySettings(learning_starts=10), "updates": Updates(4, 4, 1)} if cls is DeepQ else {}
        res.append((name, cls.__name__, *oneline(lambda: train(cls(N(), env.action_space, sp, seed=0, **kw), env, steps=60, seed=0)["steps"])))
bad = [r for r in res if r[2] == "raw"]
done(not bad, "\n  ".join(map(str, bad)) or f"{len(res)} ok")
