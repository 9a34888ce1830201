"""NNI's training service as an engine."""
