"""What `lnsnum.strategies` stands on: laws that every arithmetic on codes must keep, and the suite that tries them.

Read `laws` first; `law_suite` tries them on an implementation, over all pairs or with Hypothesis.
"""
