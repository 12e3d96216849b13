"""The built-in task: a German-like language, its judge and its ratings."""
