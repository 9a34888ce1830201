"""Files and folders of a run."""
