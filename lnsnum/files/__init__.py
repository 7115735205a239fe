"""What `lnsnum.weight_file` stands on: docs/weight_file.md as code, and files that are replaced at once or not at all.

Read `layout` first, what a header says; `single` writes and reads one file, `sharded` a set of them. `system_errors`
has the sentences in which files fail, `pickles` reads what others have pickled, and executes nothing.
"""
