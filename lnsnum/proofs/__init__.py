"""What `lnsnum.certify` runs: scans that hold a kernel against the same position computed another way.

Read `scanning` first, what a scan counts; `conversions` and `operations` are the scans, `judgement` is about
approximate Gaussian logarithms.
"""
