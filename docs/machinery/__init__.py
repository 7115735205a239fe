"""What makes the documentation site of docs/: MkDocs calls `hooks`, and `.ci/site` is the command.

`notebooks` runs the notebooks and makes pages of them, `command_line` makes a page of the parser, `docstrings` tells
mkdocstrings what is in a docstring, `links` looks at what was built.
"""
