"""The built-in task: pairs of a German-like language, judge and ratings."""
