"""Load pretrained weights into agent.network after the agent is built (transfer learning; SB3 'load policy weights'): it must act on them at once."""
from _lib import *
import torch; from torch import nn
from seqrl.agents import DeepQ, DeepSarsa, Reinforce; from seqrl.networks import MLP, build
sp = spaces.Box(-1, 1, (4,), np.float32); ac = spaces.Discrete(3); res = []
obs = np.array([[.3, -.2, .9, .1]], np.float32); start = np.ones(1, bool)
def out(a):  # what the agent acts on
    if isinstance(a, Reinforce): return a.policy.act(obs, start, None)[0]
    return a.values_part.act(obs, start, None)[0]
def torch_out(a):
    with torch.no_grad():
        f, _ = a.network(torch.tensor(obs)[None], torch.tensor(start)[None], None)
        return (a.policy.module.layer(f[0]) if isinstance(a, Reinforce) else a.values_part.module.combined(a.values_part.module.layer(f[0]))).numpy()
for name in ("mlp", "gru", "plain"):
    for cls, kw in ((Reinforce, {}), (DeepQ, {}), (DeepSarsa, {})):
        for how in ("copy", "assign", ".data=", "no_grad copy_"):
            mk = lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh()) if name == "plain" else build(name, sp)
            a = cls(mk(), ac, sp, seed=0, **kw); sd = {k: v + 0.5 for k, v in a.network.state_dict().items()}
            if how == "copy": a.network.load_state_dict(sd)
            elif how == "assign": a.network.load_state_dict(sd, assign=True)
            elif how == ".data=":
                for p in a.network.parameters(): p.data = p.data + 0.5
            else:
                with torch.no_grad():
                    for p in a.network.parameters(): p.copy_(p + 0.5)
            gap = float(abs(out(a) - torch_out(a)).max()); res.append((name, cls.__name__, "", how, round(gap, 4)))
bad = [r for r in res if r[-1] > 1e-4]
done(not bad, f"{len(bad)} of {len(res)} act on other weights than those loaded:\n  " + "\n  ".join(map(str, bad)))
