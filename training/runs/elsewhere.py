"""Settings and commands by the names of other libraries, and what is here in their place."""

from __future__ import annotations

SAME = {"algo": "agent", "env_id": "env", "total_timesteps": "steps", "lr": "learning_rate"}
MEANT = {
    "out": "--run-dir FOLDER",
    "output": "--run-dir FOLDER",
    "log_dir": "--logdir FOLDER",
    "tensorboard_log": "--logdir FOLDER",
    "timesteps": "--steps N",
    "n_timesteps": "--steps N",
    "n_envs": "--num-envs N",
    "cuda": "--device cuda",
    "gpu": "--device cuda",
    "eval_freq": "--eval-every N",
    "save_freq": "--checkpoint-every N",
    "clip_range": "--clip X",
    "ent_coef": "--entropy-coef X",
    "vf_coef": "--value-coef X",
    "n_steps": "--rollout N (ppo) or --n-step N",
    "policy": "--network NAME",
    "load": "--resume RUN",
    "engine": "seqrl compare --engine NAME, where each seed is a run of its own",
    # what is typed as a flag and belongs to the network or the environment
    "attention": "--network-arg attention=NAME",
    "networks": "--network NAME; several are compared by --grid network=NAME,NAME",
    "core": "--network-arg core=NAME",
    "hidden_size": "--network-arg hidden_size=N",
    "path": "--env-arg path=FILE",
    "file": "--env-arg path=FILE",
    "data": "--env-arg path=FILE, of recorded episodes --dataset FOLDER",
    "reward": "--env-arg reward=NAME",
    "rule": "--env-arg rule=NAME",
    "part": "--env-arg part=NAME",
}
COMMANDS = {
    "resume": "train --resume RUN",
    "play": "evaluate RUN",
    "enjoy": "evaluate RUN",
    "test": "evaluate RUN",
    "plot": "compare --runs RUN RUN",
    "tune": "search",
    "check": "doctor",
    "help": "--help",
}


def here(name: str) -> str:
    """Return ' Here it is --num-envs N' for the name or flag of a setting elsewhere, or ''."""
    name = name.lstrip("-").replace("-", "_")
    meant = SAME.get(name) or MEANT.get(name)
    return f" Here it is {meant}" if meant else ""
