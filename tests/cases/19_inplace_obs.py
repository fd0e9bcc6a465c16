"""Network that changes its input in place (x -= 1; x.mul_()): learning must equal that of its out-of-place twin, or be refused."""
from _lib import *
import torch; from torch import nn
from seqrl.agents import DeepMonteCarlo, DeepQ, DeepSarsa, ReplaySettings, Reinforce; from seqrl.networks import check_network; from seqrl.training import train
sp = spaces.Box(-3, 3, (3,), np.float32); res = []
def N(inplace):
    class N(nn.Module):
        def __init__(s): super().__init__(); torch.manual_seed(0); s.l = nn.Linear(3, 8)
        def forward(s, x):
            x = x.mul_(0.5) if inplace else x * 0.5
            return torch.tanh(s.l(x))
    return N()
for cls, kw in ((Reinforce, {}), (DeepQ, {"replay": ReplaySettings(learning_starts=10)}), (DeepSarsa, {}), (DeepMonteCarlo, {})):
    w = []
    for inplace in (False, True):
        env = Tiny(sp, reward=lambda s, a: float(a), length=5); torch.manual_seed(1)
        net = N(inplace); a = cls(net, env.action_space, sp, seed=0, **kw)
        r = oneline(lambda: train(a, env, steps=300, seed=0))
        w.append((r[0], net.l.weight.detach().numpy().copy(), r[1]))
    same = w[0][0] == "ok" and (w[1][0] == "line" or np.array_equal(w[0][1], w[1][1]))
    res.append((cls.__name__, kw, w[1][0], "same" if same else f"DIFFERENT max {abs(w[0][1]-w[1][1]).max():.3g}" ))
res.append(("check_network", oneline(lambda: check_network(N(True), sp))))
done(all(r[3] == "same" for r in res[:-1]), "\n  ".join(map(str, res)))
