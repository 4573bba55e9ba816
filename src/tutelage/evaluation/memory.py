"""How much memory a network needs to answer, counted."""

import weakref

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tutelage.evaluation.cost import example
from tutelage.taps import evaluating

__all__ = ["file_size", "peak_memory"]


def file_size(network: nn.Module) -> int:
    """Bytes of the weights and buffers as they would be saved, headers aside."""
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())


def peak_memory(network: nn.Module, image_size: tuple[int, int, int], batch_size: int = 1) -> int:
    """Bytes that are alive at the worst moment of one forward pass in eval mode, eagerly executed.

    Counted are weights, buffers, images, and every tensor that an operation puts out, until nobody
    holds it any more. Not counted is what operations need inside (a convolution's workspace) and
    what an allocator keeps, so this is a lower bound that does not depend on the machine.

    Args:
        image_size: channels, height, width.

    >>> peak_memory(nn.ReLU(), (1, 4, 4))  # 16 numbers of 4 bytes in, as many out
    128
    """
    images = example(network, image_size, batch_size)
    held = {tensor.untyped_storage().data_ptr(): tensor for tensor in network.state_dict().values()}
    resident = sum(tensor.untyped_storage().nbytes() for tensor in (*held.values(), images))
    with evaluating(network), _Counter() as counter:
        network(images)
    return resident + counter.peak


class _Counter(TorchDispatchMode):
    """Adds up the storages that operations put out, and takes off those that are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Runs the operation and counts what it made."""
        del types
        given = {_key(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and _key(leaf) not in given | self._known:
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = _key(tensor), storage.nbytes()
        self._known.add(key)
        self._alive += size
        self.peak = max(self.peak, self._alive)
        weakref.finalize(storage, self._let_go, key, size)

    def _let_go(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._alive -= size


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
