"""Real images: named data sets, files, data set objects, decoding, and the one form they are read in."""
