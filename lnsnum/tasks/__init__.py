"""What `lnsnum train` can train: one module a task, and `training`, the loop that all of them share.

Read `task` first, what a task is; `recipe` says how a network is trained, `registry` which tasks there are.
"""


class TaskError(Exception):
    """A run that cannot go on, such as one whose loss is NaN; the message says why."""
