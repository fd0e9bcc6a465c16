"""Datasets in Minari's local format as recordings; Minari is imported only here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.agents.experience.recording import Recording
from seqrl.core import tree
from seqrl.core.errors import UsageError, explain
from seqrl.envs.batches import brief
from seqrl.envs.observations import SIMPLE
from seqrl.envs.recorded import SPACES, fitted
from seqrl.training.runs.folder import CONFIG

INSTALL = 'it takes Minari: pip install "seqrl[offline]"'


def data_folder(name: str) -> Path:
    """Return the folder of a dataset's data by its path or id; UsageError where it is not here."""
    for path in (Path(name), Path(name) / "data"):
        if (path / "metadata.json").exists():
            return path
    if Path(name).exists():
        found = "there is no dataset, neither of ours nor of Minari's"
        more = "; `seqrl record` makes one of a run" if (Path(name) / CONFIG).exists() else ""
        raise UsageError(f"--dataset {name}: {found}{more}")
    try:
        from minari.storage.datasets_root_dir import get_dataset_path
    except ImportError as error:
        raise UsageError(f"--dataset {name}: no such folder; as an id {INSTALL}") from error
    path = Path(get_dataset_path(name)) / "data"
    if not path.exists():
        remedy = f"name a folder, or fetch it by `minari download {name}`"
        raise UsageError(f"--dataset {name}: no such folder, and no dataset of Minari's; {remedy}")
    return path


def read_about(name: str) -> dict[str, Any]:
    """Return what a dataset says of its environment, and its spaces; nothing is imported for it."""
    folder = data_folder(name)
    try:
        metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
        spec = json.loads(metadata.get("env_spec") or "{}")
        from minari.serialization import deserialize_space

        # without these Minari would make the environment, which imports what the file names
        spaces = {part: deserialize_space(metadata[part]) for part in SPACES}
        about = {"env": spec.get("id"), "env_args": spec.get("kwargs") or {}}
        limit = spec.get("max_episode_steps")
    except ImportError as error:
        raise UsageError(f"--dataset {name}: {INSTALL}") from error
    except Exception as error:  # whatever a file may hold
        raise UsageError(f"--dataset {name}: {folder}: {explain(error)}") from error
    return {**about, "limit": limit, "algorithm": metadata.get("algorithm_name"), **spaces}


def read(name: str) -> Recording:
    """Return a dataset of Minari's as a recording."""
    about, folder = read_about(name), data_folder(name)
    spaces = {part: about.pop(part) for part in SPACES}
    if not isinstance(spaces["action_space"], SIMPLE):
        found = f"its actions are of {brief(spaces['action_space'])}"
        expected = "expected Discrete, MultiDiscrete, MultiBinary or Box"
        raise UsageError(f"--dataset {name}: {found}; {expected}")
    try:
        import minari

        episodes = list(minari.MinariDataset(folder).iterate_episodes())
        if not episodes:
            raise UsageError(f"--dataset {name}: there is no episode in it")
        parts = arrays_of(episodes)
    except UsageError:
        raise
    except ImportError as error:
        raise UsageError(f"--dataset {name}: {explain(error)}; {INSTALL}") from error
    except Exception as error:  # whatever a damaged file makes of its reader
        raise UsageError(f"--dataset {name}: it cannot be read: {explain(error)}") from error
    known = {key: value for key, value in about.items() if value is not None}
    return fitted(Recording(**parts, **spaces, about=known), f"--dataset {name}")


def arrays_of(episodes: list[Any]) -> dict[str, Any]:
    """Return the parts of a recording that are arrays, of Minari's episodes."""
    obs = tree.map(lambda *parts: np.concatenate(parts), *(plain(e.observations) for e in episodes))
    actions, rewards = [e.actions for e in episodes], [e.rewards for e in episodes]
    # behind an end the last action stands once more: 0 is not of every space
    action = np.concatenate([np.concatenate([x, x[-1:]]) for x in actions])
    reward = np.concatenate([np.concatenate([x, np.zeros_like(x[:1])]) for x in rewards])
    length = np.array([len(e.rewards) for e in episodes])
    terminated = np.array([bool(e.terminations[-1]) for e in episodes])
    parts = {"obs": obs, "action": action, "reward": reward}
    return parts | {"length": length, "terminated": terminated}


def plain(observations: Any) -> Any:
    """Return observations as a tree of arrays."""
    if isinstance(observations, dict):
        return {key: plain(part) for key, part in observations.items()}
    if isinstance(observations, tuple):
        return tuple(map(plain, observations))
    return np.asarray(observations)
