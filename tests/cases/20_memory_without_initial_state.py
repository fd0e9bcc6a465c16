"""User's Network with memory that does not override initial_state (the page does not name it): value agents learn as if it had no memory, silently."""
from _lib import *
import torch; from torch import nn
from seqrl.agents import DeepQ, ReplaySettings, Reinforce; from seqrl.networks import Network, check_network; from seqrl.training import train
sp = spaces.Box(-1, 1, (3,), np.float32)
class Mine(Network):
    features = 8
    def __init__(s): super().__init__(); s.cell = nn.GRUCell(3, 8)
    def forward(s, obs, start, state=None):
        h = torch.zeros(start.shape[1], 8) if state is None else state
        out = []
        for t in range(len(start)):
            h = s.cell(obs[t], torch.where(start[t][:, None], 0.0, h)); out.append(h)
        return torch.stack(out), h
env = Tiny(sp)
kind, what = oneline(lambda: DeepQ(Mine(), env.action_space, sp, seed=0, replay=ReplaySettings(learning_starts=10)))
mem = getattr(what, "memory", None)
chk = oneline(lambda: check_network(Mine(), sp))
done(kind == "line" or mem, f"DeepQ: {kind}, memory={mem}; check_network: {chk}")
