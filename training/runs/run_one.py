"""One run in its folder, from the start or a checkpoint to its end: no printing, no signals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple, NoReturn
from zipfile import BadZipFile

import numpy as np

from seqrl.agents.factory import Config
from seqrl.agents.protocol import Taught
from seqrl.core import team
from seqrl.core.errors import RunError, UsageError, UserError, explain
from seqrl.envs.state import why_unkept
from seqrl.envs.wrapping import named
from seqrl.training.loop.callbacks import check_callback, listed
from seqrl.training.loop.evaluation import Evaluation, Evaluator
from seqrl.training.loop.interaction import Interaction
from seqrl.training.loop.interrupt import Stopped
from seqrl.training.loop.protocol import Callback
from seqrl.training.loop.train import results, run_to
from seqrl.training.runs import checkpoint, saved_run
from seqrl.training.runs import folder as runs
from seqrl.training.runs.checkpointer import Checkpointer
from seqrl.training.runs.config import check_names, complete
from seqrl.training.runs.defaults import AUTO, DEFAULTS
from seqrl.training.runs.device_choice import build_new
from seqrl.training.runs.early_stopping import EarlyStopping
from seqrl.training.runs.evaluation_curve import EvaluationCurve
from seqrl.training.runs.global_state import one_at_a_time
from seqrl.training.runs.load import CODE, allowed_config, build_parts
from seqrl.training.runs.parts import RunParts, build
from seqrl.training.runs.remarks import remarks
from seqrl.training.runs.teaching import check_teacher_code, give_teacher
from seqrl.training.runs.telling import telling
from seqrl.training.runs.tensorboard import NoLog, TensorBoard
from seqrl.training.runs.warm_start import begin
from seqrl.training.runs.word_vectors import fill_projector, give_vectors

EVALUATION = "evaluation.npz"  # the last one: returns, lengths and cuts of its episodes
Checkpoint = dict[str, Any]


class Summary(NamedTuple):
    """How a run ended."""

    folder: Path
    contents: dict[str, Any]  # of summary.json
    evaluation: Evaluation | None = None  # the last one; None where none was played to its end
    early_stop: str = ""  # why evaluations ended the run
    interrupted: bool = False
    saved: bool = True  # whether its end could be written
    remarks: Sequence[str] = ()  # where other settings would do better


def run(
    config: Mapping[str, Any],
    folder: str | Path,
    *,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    stop: Event | None = None,
) -> Summary:
    """Train as a config says in a folder, new or empty, and return how it ended.

    `config` has settings by their names in config.toml; what is left out is as the flags have it,
    without presets. `resume` goes on with the run in the folder, whose settings `config` has to
    name again where they import code, and may. `stop`, set in another thread, ends the run after
    the turn under way, saved; so does Ctrl-C, which is raised then. One run at a time in a
    process, from any thread; `Processes` runs many. Nothing is printed, and what is global (random
    numbers, threads, choices of torch) is restored. Raises UsageError before anything is trained,
    RunError for what failed on the way; what was learned until then is saved.
    """
    folder, callbacks = Path(folder).absolute(), listed(callbacks)
    for callback in callbacks:  # before there is a folder, which would have to be new again
        check_callback(callback)
    if stop is not None and not hasattr(stop, "is_set"):
        raise UsageError(f"stop {stop!r}: expected a threading.Event")
    config = stored_config(folder, config) if resume else complete(config)
    if config.get("seeds"):
        raise UsageError(f"seeds {config['seeds']}: a run has one; see training.train_seeds")
    with one_at_a_time(config), ExitStack() as at_the_end:
        if not resume:
            parts = build_new(config)
            at_the_end.callback(parts.envs.close)
            one = RunUnderWay(parts, stop)
            team.of_first("a folder", lambda: runs.new_folder("", "", "", 0, str(folder)))
        with runs.locked(folder):
            saved = None
            if not resume:
                runs.write_config(folder, one.config)
            elif (ended := runs.read_summary(folder, config)) is not None:
                return Summary(folder, ended, read_evaluation(folder))
            else:
                one, saved = continued(folder, config, stop)
                at_the_end.callback(one.parts.envs.close)
            one.begin(folder, callbacks, saved)
            summary = one.finish()
    if one.broken_off:
        raise KeyboardInterrupt
    return summary


class RunUnderWay:
    """A run from its first turn, or a checkpoint, to what it leaves in its folder.

    Made before its folder, which an error of the settings leaves unmade; `begin` it in the locked
    folder, then `finish` it.
    """

    evaluator: Evaluator | None = None
    curve: EvaluationCurve | None = None
    early_stopping: EarlyStopping | None = None
    checkpointer: Checkpointer

    def __init__(self, parts: RunParts, stop: Event | None = None, *, anew: bool = True):
        self.parts, self.config = parts, parts.config
        if anew:
            team.in_all("the beginning", lambda: begin(parts.agent, parts.config))
            give_vectors(parts.agent, parts.config)
        give_teacher(parts.agent, parts.config)
        why_unkept(parts.envs)  # first, as a reset puts right what is tried out
        self.loop = Interaction(parts.agent, parts.envs, compile=self.config["compile"])
        self.loop.reset(parts.streams.envs)
        if isinstance(parts.agent, Taught):  # the teacher is tried before there is a folder
            parts.agent.form_of_turns(self.loop.obs, self.loop.start)
        self.loop.stop = stop or self.loop.stop
        self.abandoned = self.broken_off = False

    def begin(
        self, folder: Path, callbacks: Sequence[Callback] = (), saved: Checkpoint | None = None
    ) -> None:
        """Open the log, evaluate and save on the way, and go to where a checkpoint was written."""
        self.folder, config, loop = folder, self.config, self.loop
        resumed = saved is not None
        recorder = team.in_first("a log", lambda: TensorBoard(folder, append=resumed))
        self.logger = logger = recorder or NoLog()
        self.checkpointer = Checkpointer(
            folder, logger, config, every=config.get("checkpoint_every")
        )
        self.evaluator = self.parts.evaluator(recorder)
        if self.evaluator and config.get("eval_every") == AUTO:
            self.curve = self.parts.evaluation_curve(self.evaluator)
            loop.callbacks.append(self.curve)
        elif self.evaluator and config.get("eval_every"):
            limits = {name: config.get(name) for name in ("stop_at", "patience")}
            save_best = self.checkpointer.save_best
            self.early_stopping = EarlyStopping(self.evaluator, save_best, **limits)
            loop.callbacks += [self.evaluator, self.early_stopping]
        loop.recorder = recorder
        loop.callbacks += [*listed(callbacks), self.checkpointer]
        logger.begin(loop, config["steps"])
        if saved is None:
            logger.describe(config, telling(config))
            self.checkpointer.announce(loop)
            if config.get("from"):  # it goes on without the run that it began from
                self.checkpointer.save(loop)
        else:
            self._restore(saved)

    def _restore(self, saved: Checkpoint) -> None:
        """Go on where a checkpoint was written; close the log if that fails."""
        try:
            self.checkpointer.restore(self.loop, saved)
        except BaseException:
            self.logger.close(success=False)
            raise
        self.loop.books.wanted = self.config.get("episodes")
        self.loop.stopped = self.loop.books.enough or bool(self.early_stop)

    @property
    def early_stop(self) -> str:
        """Why evaluations ended the run, "" where they did not."""
        return self.early_stopping.reason if self.early_stopping else ""

    @property
    def interrupted(self) -> bool:
        """Whether the run was asked to stop, or KeyboardInterrupt was raised in it."""
        return self.broken_off or self.loop.stop.is_set()

    @property
    def path(self) -> str:
        """Which way the turns go, where the agent computes, and why."""
        agent: Any = self.loop.agent
        reason = getattr(agent, "device_reason", "")
        return f"{self.loop.path}; {agent.device}: {reason}" if reason else self.loop.path

    def interrupt(self, times: int = 1) -> bool:
        """Stop after the turn under way; return whether to raise KeyboardInterrupt now.

        That loses nothing where it is compiling or evaluating. A second time nothing more is saved.
        """
        self.loop.stop.set()
        self.abandoned = times > 1
        playing = self.evaluator is not None and self.evaluator.playing
        return self.abandoned or self.loop.preparing or playing

    def finish(self) -> Summary:
        """Run to the end, save and evaluate; raise RunError for what failed, saved before it."""
        problem, _ = self._attempt(self._play)
        if team.size() > 1 and (self.abandoned or team.is_own(problem)):
            self._leave(problem)
        if not self.abandoned:
            self.checkpointer.save(self.loop)
        evaluation = None
        if self.evaluator and not any(team.agreed("the end", bool(problem), self.interrupted)):
            problem, evaluation = self._attempt(self.evaluator.final, self.loop)
        if self.evaluator:
            self.evaluator.envs.close()
        if self.curve:
            self.curve.player.envs.close()
        self.logger.text("path", self.path)
        if team.is_first():
            fill_projector(self.folder, self.loop.agent, self.config)
        self.logger.close(success=not (problem or self.interrupted))
        if problem is not None:
            fail(problem, f"what was learned until then is in {self.folder}")
        contents = self._summary(evaluation)
        ended = self.folder, contents, evaluation, self.early_stop, self.interrupted
        said = list(remarks(self.config, self.loop, interrupted=self.interrupted))
        return Summary(*ended, saved=self._write(contents, evaluation), remarks=said)

    def _leave(self, problem: Exception | None) -> NoReturn:
        """End apart from the run's other processes, from which nothing can be had any more."""
        self.logger.close(success=False)
        if problem is None:
            raise KeyboardInterrupt
        fail(problem, f"what was saved until then is in {self.folder}")

    def _play(self) -> None:
        """Run to the end that the config names, and save at each pause."""
        while True:
            run_to(self.loop, self.config["steps"], episodes=self.config.get("episodes"))
            if not any(team.agreed("a pause", self.loop.paused)):
                return
            self.loop.paused = False
            self.checkpointer.save(self.loop)

    def _attempt(self, action: Callable[..., Any], *args: Any) -> tuple[Exception | None, Any]:
        """Return the exception of an action and its result; what stops it gives neither."""
        try:
            return None, action(*args)
        except Stopped:
            return None, None
        except KeyboardInterrupt:
            self.broken_off = True
            self.abandoned |= self.loop.interrupt.in_turn
            return None, None
        except Exception as error:
            return error, None

    def _summary(self, evaluation: Evaluation | None) -> dict[str, Any]:
        """Return the contents of summary.json."""
        return {
            **{name: self.config[name] for name in ("agent", "env", "seed")},
            **results(self.loop),
            "eval_mean_reward": None if evaluation is None else evaluation.mean,
            "finished": not self.interrupted,
            "compiled": self.loop.compiled,
            "path": self.path,
            "device": str(self.loop.agent.device),
            "versions": runs.versions(),
            "digest": checkpoint.digest(self.loop.fingerprint()),
        }

    def _write(self, contents: dict[str, Any], evaluation: Evaluation | None) -> bool:
        """Write summary.json, which marks the run as ended; return whether all could be saved."""
        if not team.is_first():
            return True
        try:
            if not self.checkpointer.failing:
                if evaluation is not None:
                    np.savez(self.folder / EVALUATION, **evaluation._asdict())
                runs.write_summary(self.folder, contents)
            return not self.checkpointer.failing
        except OSError:
            return False


def read_evaluation(folder: Path) -> Evaluation | None:
    """Return the last evaluation of a finished run, None where its folder has none."""
    try:
        with np.load(folder / EVALUATION) as arrays:
            found = Evaluation(*(arrays[name] for name in Evaluation._fields))
        if {x.shape for x in found} != {(len(found.returns),)} or found.returns.dtype.kind != "f":
            raise ValueError("arrays of other kinds or lengths")
        return found
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, TypeError, KeyError, BadZipFile) as error:
        raise UsageError(f"{folder / EVALUATION} is not what a run writes: {error}") from error


def continued(
    folder: Path, config: Config, stop: Event | None = None
) -> tuple[RunUnderWay, Checkpoint | None]:
    """Return a run, not begun, and its newest checkpoint; None where it is to start anew."""
    runs.clear_temporary_files(folder)
    saved = team.of_first("the newest checkpoint", lambda: saved_run.newest(folder))
    if saved is not None:
        saved_run.check_same_config(runs.as_stored(config), saved["config"])
    made = build if saved is not None else partial(build_new, many=True)  # a job of many
    one = RunUnderWay(build_parts(folder, config, made), stop, anew=saved is None)
    if saved is None:
        runs.clear_unsaved_run(folder)
        runs.write_config(folder, one.config)
    return one, saved


def reopened(folder: Path, allowed: Config) -> Config:
    """Return the config of a run that is to go on; `allowed` names again what code it imports.

    Arguments of the environment may be named again too, but keep their values.
    """
    wrappers = [name for name, _ in named(allowed["wrappers"])]
    config = allowed_config(folder, {**allowed, "wrappers": wrappers})
    for name, value in (allowed["env_args"] or {}).items():
        own = [config.get(table, {}).get(name) for table in ("env_args", "eval_env_args")]
        if value not in own:
            text = f"the run has {own[0]!r} and keeps it; leave it out"
            raise UsageError(f"--env-arg {name}={value} with --resume: {text}")
    check_teacher_code(folder, config, allowed["teacher"])
    return config


def stored_config(folder: Path, given: Mapping[str, Any]) -> Config:
    """Return the config of a run folder; UsageError where what is given differs from it.

    What is given is completed by what is stored.
    """
    check_names(given)
    allowed: Config = {name: given.get(name) for name in (*CODE, "wrappers", "env_args")}
    allowed["teacher"] = (given.get("agent_args") or {}).get("teacher")
    stored = reopened(folder, allowed)
    given, source = dict(given), given.get("from")
    given.pop("from", None)  # which may be gone
    if source is not None and str(Path(source).absolute()) != stored.get("from"):
        other = f"from {source} (then {stored.get('from')})"
        raise UsageError(f"resume: {folder} was begun with other settings: {other}; leave them out")
    known = {name: x for name, x in stored.items() if name in DEFAULTS and name != "from"}
    tables = {x: {**stored[x], **(given.get(x) or {})} for x in ("agent_args", "env_args")}
    if tables["agent_args"].get("device") == AUTO:  # which has been chosen since
        tables["agent_args"]["device"] = stored["agent_args"]["device"]
    again = runs.as_stored(complete({**known, **given, **tables}))
    again, before = ({name: x[name] for name in given if name in x} for x in (again, stored))
    if found := saved_run.differences(again, before):
        raise UsageError(f"resume: {folder} was begun with other settings: {found}; leave them out")
    return stored


def fail(problem: Exception, kept: str) -> NoReturn:
    """Raise what ended a run as a RunError in one line, which says what was kept."""
    text = str(problem) if isinstance(problem, UserError) else explain(problem)
    raise RunError(f"{text}; {kept}") from problem
