"""The study: which networks are trained how, many times over, and the tables that come of it."""
