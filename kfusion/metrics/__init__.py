"""Numbers about predictions: accuracy, calibration, significance, conflicts, clusters, robustness."""
