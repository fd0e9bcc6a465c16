"""Does the fast suite notice? Each planted bug goes into a copy of the source, alone.

`python tests/planted.py [NAME ...]` says for each bug which test caught it; a test counts only if
it passes without the bug. Exit status 1 where one is not caught, or where a text to
be replaced is not found exactly once.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

HOME = Path(__file__).resolve().parents[1]
ROOMS = ("agents", "core", "envs", "networks", "scripts", "training")
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "typings")
# tried first, as most bugs end here; then the rest of the fast suite
FIRST = (
    "observations any_network action_mask policy_gradient schedules q_learning sarsa monte_carlo "
    "exploration episodes value reinforce networks loop rollout ppo normalize gru_kernel decoding "
    "sac crossings autoencoders word_vectors trees facts"
).split()
ENOUGH = 1.0
# it fails with any bug, for the text that the bug has replaced
TEXTS = "tests/test_architecture.py::test_every_bug_to_be_planted_still_has_its_text"


class Bug(NamedTuple):
    """A text of one file, and what is put in its place."""

    file: str
    right: str
    wrong: str


BUGS = {
    "mask ignored in the bootstrap (network)": Bug(
        "agents/deep/outputs.py",
        "return self._masked(self._evaluate(obs, start, state, noise), legal)",
        "return self._evaluate(obs, start, state, noise)",
    ),
    "mask ignored in the bootstrap (table)": Bug(
        "agents/tabular/q_learning.py",
        "bootstrap = best(m.q, s.next_active, s.next_actions)",
        "bootstrap = best(m.q, s.next_active, range(m.q.shape[1]))",
    ),
    "mask ignored while learning": Bug(
        "agents/deep/outputs.py",
        "return self._masked(self._learn(obs, start, state, valid, noise), legal)",
        "return self._learn(obs, start, state, valid, noise)",
    ),
    "advantage sign": Bug(
        "agents/deep/reinforce.py",
        "total = -gain - self.now",
        "total = gain - self.now",
    ),
    "no bootstrap at truncation (Q-learning)": Bug(
        "agents/tabular/q_learning.py",
        "if s.terminated:",
        "if s.terminated or s.truncated:",
    ),
    "no bootstrap at truncation (REINFORCE)": Bug(
        "agents/deep/reinforce.py",
        "bootstrap = values if self.has_critic else values * 0.0",
        "bootstrap = values * 0.0",
    ),
    "bootstrap at termination (SARSA)": Bug(
        "agents/tabular/sarsa.py",
        "        bootstrap = 0.0 if s.terminated else expected_after(",
        "        bootstrap = expected_after(",
    ),
    "bootstrap at termination (REINFORCE)": Bug(
        "agents/experience/episodes.py",
        "over = (time == length - 1) & (terminated > 0)",
        "over = (time == length) & (terminated > 0)",
    ),
    "return off by one (n steps)": Bug(
        "agents/tabular/returns.py",
        "for k in range(n - 1, -1, -1):",
        "for k in range(n - 2, -1, -1):",
    ),
    "return off by one (REINFORCE)": Bug(
        "agents/deep/targets.py",
        "reward[t] + discount[t] * totals[-1]))",
        "discount[t] * (reward[t] + totals[-1])))",
    ),
    "missing detach": Bug(
        "agents/deep/outputs.py",
        "with torch.no_grad():\n            return self.module(obs, start, state, noise)[0]",
        "with torch.enable_grad():\n            return self.module(obs, start, state, noise)[0]",
    ),
    "epsilon never decays": Bug(
        "agents/tabular/tabular_agent.py",
        "return rate(*self._epsilon, self.steps - self.origin)",
        "return rate(*self._epsilon, 0)",
    ),
    "wrong mask": Bug(
        "agents/experience/episodes.py",
        "inside = time < length",
        "inside = time <= length",
    ),
    "shared RNG stream": Bug("core/seeding.py", ".spawn(4))", ".spawn(1) * 4)"),
    "reward shifted by a step (tables)": Bug(
        "agents/tabular/td.py",
        "m.reward[i, at] = s.reward",
        "m.reward[i, max(at - 1, 0)] = s.reward",
    ),
    "reward shifted by a step (REINFORCE)": Bug(
        "agents/experience/episodes.py",
        "turn = {name: getattr(step, name) for name in TIMED}",
        'self.late, late = step.reward, getattr(self, "late", step.reward * 0)\n'
        "        turn = {name: getattr(step._replace(reward=late), name) for name in TIMED}",
    ),
    "traces not reset at an episode's start": Bug(
        "agents/tabular/td.py",
        "    m.waiting[i] = 0\n    cut(m, i)\n",
        "    m.waiting[i] = 0\n",
    ),
    "memory not reset at an episode's start": Bug(
        "networks/recurrent.py",
        "return tuple(part.masked_fill(start[:, None, None], 0.0) for part in memory)",
        "return memory",
    ),
    "target network never synced": Bug(
        "agents/deep/value_agent.py",
        "            self._move_target()",
        "            pass",
    ),
    "priorities not updated": Bug(
        "agents/deep/deep_q.py",
        "            self.store.prioritise(batch.indices, host(size))",
        "            pass",
    ),
    "gradient divided by the batch's own length": Bug(
        "agents/deep/reinforce.py",
        "self.count = self.batch_steps or float(steps)",
        "self.count = float(steps)",
    ),
    "acting on stale weights": Bug(
        "networks/plain/numpy_forward.py",
        "if self._addresses.changed() or any(old != now for old, now in self._bytes):",
        "if self._addresses.changed():",
    ),
    "padding in batch norm": Bug(
        "networks/batch_norm.py",
        "x = x[valid.flatten()]",
        "pass",
    ),
    "silent cast": Bug(
        "envs/observations.py",
        "if not self.real and (lost := cast != batch).any():",
        "if not self.real and (lost := cast != cast).any():",
    ),
    "an episode's end is where it terminated (PPO)": Bug(
        "agents/experience/rollout.py",
        '"over": step.terminated | step.truncated,',
        '"over": step.terminated,',
    ),
    "value of the next episode at a truncation (PPO)": Bug(
        "agents/deep/targets.py",
        "behind = where(over[:-1], following[:-1], value[1:])",
        "behind = value[1:]",
    ),
    "ratio from the wrong memory (PPO)": Bug(
        "agents/deep/policy_agent.py",
        "out = self.policy.learn(batch.obs, batch.start, own,",
        "out = self.policy.learn(batch.obs, batch.start, None,",
    ),
    "reward learns from another latent (PPO)": Bug(
        "agents/deep/policy_agent.py",
        "own, batch.valid, batch.noise)",
        "own, batch.valid, None)",
    ),
    "memory of another hypothesis (beam)": Bug(
        "agents/decoding/beam.py",
        "pick=pick: leaf[pick]",
        "pick=pick: leaf[pick * 0]",
    ),
    "advantages normalised over padding (PPO)": Bug(
        "agents/deep/targets.py",
        "chosen = taken(each, rows_where(valid, count))",
        "chosen = each.flatten()",
    ),
    "ratio never clipped (PPO)": Bug(
        "agents/deep/ppo.py",
        "gain = torch.minimum(ratio * advantage, most)",
        "gain = ratio * advantage",
    ),
    "memory not reset in the GRU's kernel": Bug(
        "networks/gru_kernel.py",
        "                before[t, b] = 0.0\n",
        "                before[t, b] = h[t - 1, b]\n",
    ),
    "correction of the bound left out (SAC)": Bug(
        "agents/deep/squashed.py",
        "return self.total(normal - self._where_bounded(slope, 0.0))",
        "return self.total(normal)",
    ),
    "target from the online values (SAC)": Bug(
        "agents/deep/sac.py",
        "value = self.target_part.module.head(numbers, action).amin(0)",
        "value = self.critic.module.head(numbers, action).amin(0)",
    ),
    "entropy at terminal states (SAC)": Bug(
        "agents/deep/sac.py",
        "batch.discount[ROW] * (value - coef * log_prob)",
        "batch.discount[ROW] * value - self.gamma * coef * log_prob",
    ),
    "target values never move (SAC)": Bug(
        "agents/deep/sac.py",
        "        move(self.target_part, self.critic, self.target_rate)\n",
        "",
    ),
    "a dimension without two bounds squashed (SAC)": Bug(
        "agents/deep/squashed.py",
        "        if self.flags.all():\n            return each\n",
        "        if self.flags.any():\n            return each\n",
    ),
    "weights of a head left as they are (NumPy learner)": Bug(
        "networks/plain/numpy_mlp.py",
        "view[...] = 0.0 if weight.grad is None else weight.grad.numpy()",
        "view[...] = 0.0",
    ),
    "rewards scaled by a turn that is not whole": Bug(
        "core/moments.py",
        "        if step.whole:\n            self.moments",
        "        if True:\n            self.moments",
    ),
    "horizon kept from the first call": Bug(
        "training/loop/train.py",
        "    agent.horizon = steps\n",
        "    agent.horizon = agent.horizon or steps\n",
    ),
    "steps that are not finite are kept on a device": Bug(
        "core/deferred.py",
        "            for back in undo:\n",
        "            for back in []:\n",
    ),
    "episodes reset on a device where none ended": Bug(
        "envs/draws.py",
        "else where(mask, new, old)",
        "else where(~mask, new, old)",
    ),
    "rows without a step written on a device": Bug(
        "agents/experience/columns.py",
        "where(valid, leaf, column[here, self.every])",
        "leaf",
    ),
    "divergence of codes rewarded (VAE)": Bug(
        "networks/autoencoder.py",
        "term = self.beta * grown",
        "term = -self.beta * grown",
    ),
    "codes drawn with the variance for the spread (VAE)": Bug(
        "networks/autoencoder.py",
        "mean + (0.5 * log_variance).exp()",
        "mean + log_variance.exp()",
    ),
    "noise asked for as well (denoising)": Bug(
        "networks/autoencoder.py",
        "x, counted = self._seen(obs), valid.flatten()",
        "x, counted = self._corrupted(self._seen(obs)), valid.flatten()",
    ),
    "layers below learn in another one's turn": Bug(
        "networks/autoencoder.py",
        "        with torch.no_grad():\n            first",
        "        with torch.enable_grad():\n            first",
    ),
    "auxiliary loss of padding": Bug(
        "agents/deep/outputs.py",
        "counted = torch.ones_like(start, dtype=torch.bool) if valid is None else valid",
        "counted = torch.ones_like(start, dtype=torch.bool)",
    ),
    "frozen weights move": Bug(
        "agents/deep/optim.py",
        "weight.requires_grad_(False)",
        "weight.requires_grad_(True)",
    ),
    "running statistics of a frozen part move": Bug(
        "networks/batch_norm.py",
        "        buffer.copy_(before)\n",
        "        pass\n",
    ),
    "noise drawn as often as words come (Word2Vec)": Bug(
        "envs/tasks/word_context.py",
        "np.maximum(often, 1) ** self.ns_exponent",
        "np.maximum(often, 1)",
    ),
    "contexts go on over a sentence's end (Word2Vec)": Bug(
        "envs/tasks/contexts.py",
        "near = text.line[apart:] == text.line[:-apart]",
        "near = text.line[apart:] >= text.line[:-apart]",
    ),
    "siblings taken in at once (trees)": Bug(
        "networks/sequences/tree.py",
        "below = (deep & (rank == place)).flatten()",
        "below = deep.flatten()",
    ),
    "each hop asks the question alone (memory network)": Bug(
        "networks/sequences/memory_network.py",
        "asked = asked + (weight",
        "asked = self._meaning(self.tables[0], question) + (weight",
    ),
}


def copy_of_the_source(folder: Path) -> None:
    """The whole source, and a `seqrl` through which Python finds the copy first."""
    shutil.copytree(HOME, folder, ignore=LEFT_OUT)
    (folder / "seqrl").mkdir()
    for room in ROOMS:
        (folder / "seqrl" / room).symlink_to(folder / room)
    for path in (folder / "root").glob("*.py"):
        (folder / "seqrl" / path.name).symlink_to(path)
    names = ", ".join(f"seqrl.{room}" for room in ROOMS)
    code = f"import {names}\nfor x in ({names}): print(x.__file__)"
    found = [Path(line).resolve() for line in python(folder, "-c", code).stdout.splitlines()]
    if found != [(folder / room / "__init__.py").resolve() for room in ROOMS]:
        raise SystemExit(f"not the copy is imported: {found}")


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python on a copy."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run tests until one fails."""
    chosen = "-m", "not slow", "--deselect", TEXTS
    return python(folder, "-m", "pytest", "-x", "-q", "--tb=no", *chosen, *arguments)


def plant(folder: Path, bug: Bug) -> None:
    """Put a bug in; its text has to be there exactly once."""
    path = folder / bug.file
    text = path.read_text(encoding="utf-8")
    count = text.count(bug.right)
    if count != 1:
        raise SystemExit(f"{bug.file}: found {count} times, expected once: {bug.right!r}")
    path.write_text(text.replace(bug.right, bug.wrong), encoding="utf-8")


def catch(folder: Path, clean: Path, bug: Bug) -> str | None:
    """The first test that fails with the bug, None where none does."""
    plant(folder, bug)
    first = [f"tests/test_{name}.py" for name in FIRST]
    rest = sorted(f"tests/{path.name}" for path in (folder / "tests").glob("test_*.py"))
    answer = pytest(folder, *dict.fromkeys(first + rest))
    shutil.copy2(clean / bug.file, folder / bug.file)
    if answer.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", answer.stdout, re.MULTILINE)
    if found is None:
        raise SystemExit(answer.stdout + answer.stderr)
    if pytest(clean, found[1]).returncode:
        raise SystemExit(f"{found[1]} fails without the bug as well")
    return found[1]


def main(names: list[str]) -> int:
    """Plant them all, or those named."""
    bugs = {name: BUGS[name] for name in names or BUGS}
    with tempfile.TemporaryDirectory() as home:
        clean, folder = Path(home, "clean"), Path(home, "planted")
        copy_of_the_source(clean)
        copy_of_the_source(folder)
        for bug in bugs.values():  # all of them first: a text that has moved is said at once
            plant(folder, bug)
            shutil.copy2(clean / bug.file, folder / bug.file)
        caught = 0
        for name, bug in bugs.items():
            test = catch(folder, clean, bug)
            caught += test is not None
            print(f"{name}: {test or 'NOT CAUGHT'}", flush=True)
    print(f"{caught} of {len(bugs)} caught")
    return 0 if caught >= ENOUGH * len(bugs) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
