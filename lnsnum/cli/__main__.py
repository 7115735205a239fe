"""`python -m lnsnum.cli`: the same as `python -m lnsnum`."""

from lnsnum.cli import main

main()
