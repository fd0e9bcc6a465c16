"""User's Network keeps torch's own LSTM state layout [layers, N, H] with 2 layers: passes the N=2 probe by chance. Right: refused in a line."""
from _lib import *
import torch; from torch import nn
from seqrl.agents import DeepQ, DeepSarsa, ReplaySettings, Reinforce, Sequences, Updates; from seqrl.networks import Network, check_network; from seqrl.training import train
from gymnasium.vector import SyncVectorEnv
sp = spaces.Box(-1, 1, (3,), np.float32)
class Mine(Network):
    features = 8
    def __init__(s): super().__init__(); s.rnn = nn.LSTM(3, 8, num_layers=2)
    def initial_state(s, n): return (torch.zeros(2, n, 8), torch.zeros(2, n, 8))
    def forward(s, obs, start, state=None):
        state = s.initial_state(start.shape[1]) if state is None else state
        out = []
        for t in range(len(start)):
            keep = (~start[t]).float()[None, :, None]
            o, state = s.rnn(obs[t:t+1], tuple(x * keep for x in state)); out.append(o)
        return torch.cat(out), state
res = []
for n in (2, 4):
    for cls, kw in ((Reinforce, {}), (DeepQ, {"replay": ReplaySettings(learning_starts=20), "updates": Updates(4, 4, 1), "sequences": Sequences(4)}), (DeepSarsa, {})):
        envs = SyncVectorEnv([lambda: Tiny(sp)] * n)
        res.append((n, cls.__name__, "", *oneline(lambda: str(train(cls(Mine(), spaces.Discrete(2), sp, seed=0, **kw), envs, steps=400, seed=0))[:60])))
res.append((0, "check_network", *oneline(lambda: check_network(Mine(), sp))))
done(all(r[-2] == "line" for r in res), "\n  ".join(map(str, res)))
