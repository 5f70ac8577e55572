"""From a run folder and data to all that is said of the model: answers, numbers, figures, tables."""
