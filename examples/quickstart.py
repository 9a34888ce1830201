"""Condense digits to one image per class, and measure what the images are worth.

python examples/quickstart.py
"""

import condensekit as ck

# scikit-learn's 8x8 digits: 1,797 real images, nothing to download.
train, test = ck.load("digits")

# One synthetic image for each class; `made` knows how it was made, `made.set` holds the images.
made = ck.condense(train, "dm", ipc=1, steps=150)
print(made)
made.set.save("quickstart.safetensors", overwrite=True)

# Networks trained from scratch on the set, and on one random real image per class under the same seed.
print(ck.evaluate(made, test, train=train, against="random", networks=2))
