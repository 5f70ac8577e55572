"""From the files of a run folder to one HTML page that needs nothing else."""
