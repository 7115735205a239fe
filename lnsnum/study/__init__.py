"""The study: which networks are trained how, many times over, and the tables that come of it.

Read `plan` first, what is run, and `second_plan`, what the second edition runs; `runner` runs it and `journal` keeps
it, `results` and `tables` say what came of it.
"""
