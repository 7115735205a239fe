"""Settings of the test suite: no Hypothesis deadlines (the first call of a kernel compiles), reproducible examples in CI."""

import os

from hypothesis import settings

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
