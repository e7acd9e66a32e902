"""Which tasks are meant, and may they run? lm-eval's index with one clear error for every way a name goes wrong."""

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Kind, TaskIndex
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.tasks.manager import TaskDict
from yaml import YAMLError

from slackdlm.errors import ConfigError, DataError, SlackDLMError


class Tasks(TaskManager):
    """The tasks of these names: lm-eval's and those of one's own folders.

    lm-eval's list of 14,000 tasks takes many seconds to read; it is read only if a name asks for it.

    Args:
        names: Tasks, groups or tags, or task files (YAML).
        include: Folders with task files of one's own. What these files name with ``!function`` is run.
        run_model_code: Whether tasks may run the code that the model writes.

    Raises:
        ConfigError: If there is no such folder, a name is unknown, or a task runs model code and that was not allowed.
        DataError: If a task file cannot be read.
    """

    def __init__(
        self, names: Sequence[str], include: Sequence[Path] = (), *, run_model_code: bool = False
    ) -> None:
        for folder in include:
            if not folder.is_dir():
                raise ConfigError(f"--include-path {folder}: no such folder of task files")
        included = TaskIndex.build(include)
        known = {name for name, entry in included.items() if entry.kind is Kind.TASK}
        known |= {name for name in names if Path(name).is_file()}
        super().__init__(
            include_path=[str(folder) for folder in include] or None,
            include_defaults=not known.issuperset(names),
        )
        self.names = list(names)
        self.run_model_code = run_model_code
        self._check_names(names)
        for name in names:
            # Before anything is loaded: files of such tasks run code when they are read.
            self._allow_code([leaf for leaf in self._leaves(name) if self._is_unsafe(leaf)])

    def load(self, task_list: Any) -> TaskDict:
        """The tasks with their data; called by lm-eval.

        Raises:
            ConfigError: If a task runs model code, which its file did not say, and that was not allowed.
            DataError: If a task's data or functions cannot be had.
        """
        if self.run_model_code:
            os.environ["HF_ALLOW_CODE_EVAL"] = "1"  # asked for by the metrics of these tasks
        try:
            tasks = super().load(task_list)
        except SlackDLMError:
            raise
        except Exception as error:  # lm-eval, its tasks and the data sets' readers raise all kinds
            raise DataError(
                f"harness: {', '.join(self.names)}: a task or its data set cannot be loaded "
                f"({_first_line(error)}); lm-eval's tasks fetch data from the Hugging Face hub: they need a network "
                "(and HF_TOKEN where the data are gated), or a task file of your own with local data (--include-path)"
            ) from error
        self._allow_code([n for n, t in tasks["tasks"].items() if getattr(t, "UNSAFE_CODE", False)])
        return tasks

    def _check_names(self, names: Sequence[str]) -> None:
        if not names:
            raise ConfigError("harness: no task; name some, such as --tasks gsm8k")
        for name in names:
            if name in self.task_index or Path(name).is_file():
                continue
            near = difflib.get_close_matches(name, self.all_tasks, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "see lm_eval ls tasks"
            raise ConfigError(f"harness: unknown task {name!a}; {hint}")

    def _leaves(self, name: str, seen: frozenset[str] = frozenset()) -> Iterable[str]:
        """Names of the single tasks that a task, group or tag stands for, as far as the index knows them."""
        entry = self.task_index.get(name)
        if entry is None:
            if Path(name).is_file():
                yield name
            return
        if name in seen:
            return
        seen |= {name}
        if entry.kind is Kind.TAG:
            for child in sorted(entry.tags):
                yield from self._leaves(child, seen)
        elif entry.kind is Kind.GROUP and entry.cfg is not None:
            children = entry.cfg.get("task") or []
            for child in [children] if isinstance(children, str) else children:
                yield from self._children(child, seen)
        else:
            yield name

    def _children(self, child: Any, seen: frozenset[str]) -> Iterable[str]:
        """As :meth:`_leaves`, for a member of a group: a name, a task with changes, or a group within."""
        if isinstance(child, str):
            yield from self._leaves(child, seen)
            return
        inner = child.get("task")
        for name in inner if isinstance(inner, list) else [inner]:
            yield from self._children(name, seen)

    def _is_unsafe(self, name: str) -> bool:
        entry = self.task_index.get(name)
        if entry is not None:
            return entry.cfg is not None and bool(entry.cfg.get("unsafe_code"))
        try:
            return bool(load_yaml(Path(name), resolve_func=False).get("unsafe_code"))
        except (OSError, ValueError, AttributeError, YAMLError) as error:
            raise DataError(
                f"{name}: expected a task file of lm-eval ({_first_line(error)})"
            ) from error

    def _allow_code(self, unsafe: Sequence[str]) -> None:
        if unsafe and not self.run_model_code:
            raise ConfigError(
                f"harness: {', '.join(unsafe)} runs the code that the model writes, on this machine and with your "
                "rights; nothing contains it. If you want that, best in a container without a network, add "
                "--run-model-code (run_model_code=True)"
            )


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
