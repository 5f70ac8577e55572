"""Arrays in; numbers, tables and figures out: what the run folder and the terminal show of a model."""
