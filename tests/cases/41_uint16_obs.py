"""Depth images / counters: Box uint16, uint32, int8, int64, bool, float16 and MultiBinary observations on networks."""
from _lib import *
from seqrl.agents import DeepQ, ReplaySettings, Reinforce, Updates; from seqrl.networks import build; from seqrl.training import train
res = []
for dt in (np.uint16, np.uint32, np.uint64, np.int8, np.int16, np.int64, np.float16, np.float64):
    for shape in ((3,), (8, 8, 1)):
        sp = spaces.Box(0, 100, shape, dt)
        for cls, net in ((Reinforce, "mlp"), (DeepQ, "mlp"), (DeepQ, "gru"), (Reinforce, "attention")):
            env = Tiny(sp); kw = {"replay": ReplaySettings(learning_starts=20), "updates": Updates(4, 4, 1)} if cls is DeepQ else {"batch_episodes": 2}
            if len(shape) == 3 and net != "gru": continue
            res.append((dt.__name__, shape, cls.__name__, net, *oneline(lambda: train(cls(build(net, sp), env.action_space, sp, seed=0, **kw), env, steps=40, seed=0)["steps"])))
bad = [r for r in res if r[-2] != "ok"]
done(not bad, "\n  ".join(map(str, bad)) or f"{len(res)} ok")
