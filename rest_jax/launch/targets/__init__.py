"""Launch targets: each builds and runs the commands of a launch."""
