"""The T5 1.1 network, the policy and the scalar-head models."""
