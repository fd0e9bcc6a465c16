"""CartPole for agents of real actions, where a test plays it for all agents alike."""

import gymnasium as gym
import numpy as np

from seqrl.agents.deep.sac import SAC


class Pushed(gym.ActionWrapper):
    """Two actions as one real number: to the right above 0."""

    def __init__(self, env):
        super().__init__(env)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def action(self, action):
        return int(action[0] > 0)


def wrappers_for(cls):
    """What an environment of two actions is wrapped in, to be played by a class of agents."""
    return [Pushed] if cls is SAC else []
