"""The running program: progress, interruption, profiling, terminal."""
