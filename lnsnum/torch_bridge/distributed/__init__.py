"""Models with LNS weights on several processes, on the groups of torch.distributed.

Read `replicas` first: what DistributedDataParallel needs; by `exchange` processes tell each other what they have, and
`gradient_codes` ships gradients. For fully_shard `gathering` ships codes, `shard_step` steps shards as the whole,
`dtensors` does so on torch's DTensors, and `conversions` compares who has codes at all. `parallel_files` writes weight
files, one a process.
"""
