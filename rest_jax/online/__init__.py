"""Online reinforcement learning: the baseline that ReST is compared with."""
