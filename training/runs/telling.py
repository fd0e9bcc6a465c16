"""The few settings of a run that tell it from others."""

from __future__ import annotations

from seqrl.agents.factory import Config
from seqrl.training.runs.config import complete
from seqrl.training.runs.hparams import Setting, hyperparameters

ALWAYS = ("agent", "env", "network", "learning_rate", "seed")


def telling(config: Config) -> dict[str, Setting]:
    """Return the settings in ALWAYS, and those that are not what nothing set would leave."""
    usual = complete({name: config.get(name) for name in ("agent", "env", "network")})
    settings, others = hyperparameters(config), hyperparameters(usual)
    return {
        name: value
        for name, value in settings.items()
        if name in ALWAYS or name not in others or value != others[name]
    }
