"""Models with LNS weights on several processes, on the groups of torch.distributed.

Read `replicas` first: what DistributedDataParallel needs; by `exchange` processes tell each other what they have.
"""
