"""A data set of tensors for Avalanche."""

from torch.utils.data import TensorDataset


class Targeted(TensorDataset):
    """A data set with the .targets that Avalanche looks for."""

    def __init__(self, images, labels):
        super().__init__(images, labels)
        self.targets = labels.tolist()
