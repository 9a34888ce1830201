"""NNI's training service, used as an engine."""
