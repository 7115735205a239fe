"""What `lnsnum train` can train: one module a task, and `training`, the loop that all of them share.

Read `task` first, what a task is; `recipe` says how a network is trained, `registry` which tasks there are.
"""

TASK_ENTRY, RUN_ENTRY = "lnsnum.task", "lnsnum.run"
"""Metadata of the weight files of `lnsnum train`: the task, and the run's arguments and result as JSON."""

RESUME_ENTRY = "lnsnum.resume"
"""Metadata of a run that can be resumed: its arguments as JSON."""


class TaskError(Exception):
    """A run that cannot go on, such as one whose loss is NaN; the message says why."""
