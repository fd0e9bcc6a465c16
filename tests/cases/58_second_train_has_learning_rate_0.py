"""SB3 #433/#1513 kind: train() called again on the same agent (more steps, curriculum, several learn calls). Default REINFORCE must still learn."""
from _lib import *
import torch
from seqrl.agents import Reinforce, QLearning; from seqrl.networks import MLP; from seqrl.training import train
from seqrl.envs import make
torch.manual_seed(0); e = make("CartPole-v1"); o, ac = e.single_observation_space, e.single_action_space
a = Reinforce(MLP(o), ac, o, seed=0); train(a, e, steps=2000, seed=0)
w = {k: v.clone() for k, v in a.policy.module.state_dict().items()}; n = a.updates
train(a, make("CartPole-v1"), steps=4000, seed=1)
moved = any(not torch.equal(v, w[k]) for k, v in a.policy.module.state_dict().items())
f = make("FrozenLake-v1"); q = QLearning(f.single_observation_space, f.single_action_space, seed=0); train(q, f, steps=1000, seed=0); h = q.horizon
train(q, f, steps=5000, seed=1)
done(moved, f"second train(): {a.updates - n} updates, weights moved: {moved}, learning rate {a.policy.optimizer.param_groups[0]['lr']}; horizon kept at {a.horizon}; QLearning horizon {h} -> {q.horizon}")
