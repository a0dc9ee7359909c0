"""Well-known data sets, fetched once and checked; and data that is made up.

`root` is the folder for all of them.  Samples are pairs of a tensor (or text) and the number of its
class, each through its transform.  Nothing is fetched unless `download=True`.
"""

from mlgpu.data.datasets.cifar import CIFAR10, CIFAR100
from mlgpu.data.datasets.digits import KMNIST, MNIST, FashionMNIST, read_idx
from mlgpu.data.datasets.fake import FakeData
from mlgpu.data.datasets.hub import from_hub
from mlgpu.data.datasets.made import make_blobs, make_circles, make_moons
from mlgpu.data.datasets.news import AG_NEWS
from mlgpu.data.datasets.speech import SpeechCommands
from mlgpu.data.datasets.stories import TinyStories

__all__ = ["AG_NEWS", "CIFAR10", "CIFAR100", "KMNIST", "MNIST", "FakeData", "FashionMNIST",
           "SpeechCommands", "TinyStories", "from_hub", "make_blobs", "make_circles", "make_moons",
           "read_idx"]
