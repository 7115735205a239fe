"""What `lnsnum train` can train: one module a task, and `training`, the loop that all of them share."""


class TaskError(Exception):
    """A run that cannot go on, such as one whose loss is NaN; the message says why."""
