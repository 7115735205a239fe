"""Settings of the test suite: no Hypothesis deadlines (first calls compile), and the same examples in every CI run."""

import os

from hypothesis import settings

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
