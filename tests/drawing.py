"""What tests of strategies ask of them: values, the same in every run, and the simplest that has a property."""

from hypothesis import HealthCheck, find, given, settings

MANY = settings(max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def minimal(strategy, condition=lambda _: True):
    """What a failing test would be told, the same in every run."""
    return find(strategy, condition, settings=settings(MANY, derandomize=True))


def drawn(strategy, count=400):
    """Values of a strategy, the same in every run."""
    values = []

    @settings(MANY, max_examples=count, derandomize=True)
    @given(strategy)
    def collect(value):
        values.append(value)

    collect()
    return values
