"""The device mesh and the rules that shard arrays over it."""
