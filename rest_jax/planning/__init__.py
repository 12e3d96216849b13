"""What a run would take on a TPU slice, known without one."""
