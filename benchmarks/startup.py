"""How long lnsnum takes to start, against starting without it, in fresh processes, medians of interleaved repeats.

    python benchmarks/startup.py

`import lnsnum` is set against `import numpy, numba`; a whole `lnsnum train --epochs 1`, its 23 training steps, weight
file and memory measurement included, against a program that only imports torch. The first run compiles the kernels into
an empty cache, the later ones find them there.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

REPEATS = 7


def seconds(code, environment):
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main():
    train = "import sys; sys.argv[1:] = ['train', '--epochs', '1', '--out', {!r}]; from lnsnum.cli import main; main()"
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        programs = {
            "import numpy, numba": "import numpy, numba",
            "import lnsnum": "import lnsnum",
            "import torch": "import torch",
            "lnsnum train --epochs 1": train.format(os.path.join(folder, "w.safetensors")),
        }
        first = seconds(programs["lnsnum train --epochs 1"], environment)
        times = {name: [] for name in programs}
        for _ in range(REPEATS):
            for name, code in programs.items():
                times[name].append(seconds(code, environment))
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, value in median.items():
        print(f"{name:26} {value:6.2f} s")
    print(f"{'the first lnsnum train':26} {first:6.2f} s")
    print(f"import lnsnum / import numpy, numba:   {median['import lnsnum'] / median['import numpy, numba']:.2f}")
    print(f"lnsnum train - import torch:           {median['lnsnum train --epochs 1'] - median['import torch']:.2f} s")
    print(f"first lnsnum train - import torch:     {first - median['import torch']:.2f} s")


if __name__ == "__main__":
    main()
