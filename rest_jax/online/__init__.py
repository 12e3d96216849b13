"""Online reinforcement learning (PPO, A2C), as a baseline for ReST."""
