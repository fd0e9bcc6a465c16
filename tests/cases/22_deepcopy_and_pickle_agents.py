"""copy.deepcopy / pickle / cloudpickle of an agent (Optuna, best-model keeping; SB3 pickling reports)."""
from _lib import *
import copy, pickle
from seqrl.agents import QLearning, Sarsa, MonteCarlo, DeepQ, ReplaySettings, Reinforce; from seqrl.networks import build; from seqrl.training import train, evaluate
from seqrl.envs import make
res = []
def agents():
    e = make("FrozenLake-v1"); o, a = e.single_observation_space, e.single_action_space
    yield "q", QLearning(o, a, seed=0); yield "sarsa", Sarsa(o, a, seed=0); yield "mc", MonteCarlo(o, a, seed=0)
    for n in ("mlp", "gru"):
        yield "reinforce-" + n, Reinforce(build(n, o), a, o, seed=0); yield "value-" + n, DeepQ(build(n, o), a, o, seed=0, replay=ReplaySettings(learning_starts=50))
for when in ("fresh", "trained"):
    for name, a in agents():
        if when == "trained": train(a, make("FrozenLake-v1"), steps=400, seed=0)
        for how, f in (("deepcopy", copy.deepcopy), ("pickle", lambda x: pickle.loads(pickle.dumps(x)))):
            def go():
                b = f(a)
                if when == "fresh": train(b, make("FrozenLake-v1"), steps=400, seed=0)
                return evaluate(b, make("FrozenLake-v1"), 5, seed=0).mean
            r = oneline(go); res.append((when, name, how, *r))
bad = [r for r in res if r[3] != "ok"]
done(not bad, "\n  ".join(map(str, bad)) or f"{len(res)} ok")
