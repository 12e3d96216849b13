"""The device mesh, its sharding rules, and runs of several processes."""
