"""`python -m lnsnum.cli`: the command line, where no script is installed."""

from lnsnum.cli import main

main()
