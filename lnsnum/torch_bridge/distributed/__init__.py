"""Models with LNS weights on several processes, on the groups of torch.distributed.

Read `replicas` first: what DistributedDataParallel needs; by `exchange` processes tell each other what they have. For
fully_shard `gathering` ships codes, `shard_step` steps shards as the whole, and `dtensors` does so on torch's DTensors.
"""
