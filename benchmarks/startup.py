"""How long lnsnum takes to start, against starting without it, in fresh processes, medians of interleaved repeats.

    python benchmarks/startup.py

`import lnsnum` is set against `import numpy, numba`; `lnsnum train`, stopped after its first training step, against a
program that only imports torch. The first run compiles the kernels into an empty cache, the later ones find them there.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

REPEATS = 7

FIRST_STEP = """
import os, sys
sys.argv[1:] = ["train", "--out", {out!r}]
from lnsnum import cli
from lnsnum.tasks import training
steps = training.train
def stop_after_one(*arguments, **options):
    next(steps(*arguments, **options))
    os._exit(0)
training.train = stop_after_one
cli.main()
"""


def user(cache):
    """What a user's process has around it: kernels compiled into this folder, and bytecode that Python keeps."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"NUMBA_CACHE_DIR": cache}


def seconds(code, environment):
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main():
    with tempfile.TemporaryDirectory() as folder:
        environment = user(folder)
        programs = {
            "import numpy, numba": "import numpy, numba",
            "import lnsnum": "import lnsnum",
            "import torch": "import torch",
            "lnsnum train, first step": FIRST_STEP.format(out=os.path.join(folder, "w.safetensors")),
        }
        first = seconds(programs["lnsnum train, first step"], environment)
        times = {name: [] for name in programs}
        for _ in range(REPEATS):
            for name, code in programs.items():
                times[name].append(seconds(code, environment))
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, value in median.items():
        print(f"{name:26} {value:6.2f} s")
    print(f"{'the same, empty cache':26} {first:6.2f} s")
    print(f"import lnsnum / import numpy, numba:   {median['import lnsnum'] / median['import numpy, numba']:.2f}")
    print(f"first step - import torch:             {median['lnsnum train, first step'] - median['import torch']:.2f} s")
    print(f"the same, empty cache:                 {first - median['import torch']:.2f} s")


if __name__ == "__main__":
    main()
