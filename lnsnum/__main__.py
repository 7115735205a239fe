"""`python -m lnsnum`: the command line, where no script is installed, and where torchrun wants a module."""

from lnsnum.cli import main

main()
