"""Networks: architectures as frozen objects, which build modules and fill them with random weights."""

from condensekit.networks.adaptor import TorchvisionNetwork
from condensekit.networks.base import FeatureNetwork, Network, separable
from condensekit.networks.convnet import ConvNet
from condensekit.networks.cost import Shape
from condensekit.networks.resnet import ResNet18

__all__ = ["ConvNet", "FeatureNetwork", "Network", "ResNet18", "Shape", "TorchvisionNetwork", "separable"]
