"""`python tests/mutants SEED [FILE]`: what a mutant is and what becomes of it, in this process and without limits."""

import shutil
import sys
import tempfile
from pathlib import Path


def main() -> None:
    sys.path[0] = str(Path(__file__).parents[1])  # tests: the package is not found from inside
    import mutant_worker

    import mutants

    seed, *target = sys.argv[1:]
    print(mutants.story(seed))
    with tempfile.TemporaryDirectory() as folder:
        if target:
            shutil.copyfile(mutants.write(seed, Path(folder)), target[0])
        mutant_worker.warm(Path(folder))
        print(": ".join(filter(None, mutant_worker.verdict(seed, Path(folder)))))


if __name__ == "__main__":
    main()
