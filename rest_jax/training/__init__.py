"""One trainer for policies, reward models and value functions."""
