"""A network together with what it wants to be shown.

Everything outside deals in pixels between 0 and 1; how large a picture must be and how it is
normalized is the network's own affair, so a teacher and a student that differ in both can look at
the same picture, and a normalization can neither be forgotten nor applied twice.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils import _pytree as pytree

from tutelage.errors import NetworkError
from tutelage.models.class_map import ClassMap, Strange
from tutelage.models.depth_dynamic import FULL, DepthDynamic, Seen
from tutelage.stages import Stage, Survey, survey
from tutelage.taps import Recorder, evaluating
from tutelage.types import InputSpec, Observation, ObservationShape

__all__ = ["LUMA", "AnyNetwork", "Called", "Network"]

AnyNetwork = nn.Module | Callable[[Tensor], Any]
"""A module, or anything that makes an output of images: the latter can only teach."""

LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue count in gray (ITU-R BT.601)."""


class Called(nn.Module):
    """Any callable from images to an output, as a module without weights."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Float[Tensor, "n c h w"]) -> Any:
        """What the callable makes of the images."""
        return self.function(images)

    def extra_repr(self) -> str:
        """Which it is."""
        return getattr(self.function, "__qualname__", type(self.function).__qualname__)


class Network(nn.Module):
    """Wraps any module that maps images to an output.

    Args:
        module: takes images of shape (n, channels, height, width), normalized. A callable that is
            no module has no weights, so it can only teach, and has no maps to tap.
        spec: what the module wants. None: images are handed on as they come.

    Attributes:
        module: the wrapped module; tap names are the names of its sub-modules.
        class_map: makes other classes of the module's; None if they stay.

    Raises:
        NetworkError: the spec has not one mean and one std above 0 per channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: AnyNetwork,
        spec: InputSpec | None = None,
        *,
        class_map: ClassMap | Strange | None = None,
    ) -> None:
        super().__init__()
        self.module = module if isinstance(module, nn.Module) else Called(module)
        self.spec = spec
        self.class_map = class_map
        self._recorder = Recorder()
        self._plain = spec is not None and spec == spec.plain()
        if spec is not None:
            lengths = {spec.channels, len(spec.mean), len(spec.std)}
            if len(lengths) > 1 or not all(std > 0 for std in spec.std):
                raise NetworkError(
                    "An input spec has one mean and one std above 0 per channel, but this one has "
                    f"{spec.channels} channel(s), mean {spec.mean} and std {spec.std}. Correct it."
                )
            shape = (spec.channels, 1, 1)
            self.register_buffer("mean", torch.tensor(spec.mean).view(shape), persistent=False)
            self.register_buffer("std", torch.tensor(spec.std).view(shape), persistent=False)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Any:
        """The output for pixels in [0, 1]; without a spec, for images as the module takes them."""
        output = self.module(self.prepare(images))
        return output if self.class_map is None else self.class_map(output)

    @property
    def answers(self) -> bool:
        """Whether its output says anything of the classes that it is asked for."""
        return not isinstance(self.class_map, Strange)

    def with_class_map(self, class_map: ClassMap | Strange) -> "Network":
        """The same module, whose classes are taken for others from here on."""
        return Network(self.module, self.spec, class_map=class_map)

    def prepare(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        """Resizes and normalizes, as the spec says.

        A network for RGB gets a gray picture three times, one for gray the luma (ITU-R BT.601) of
        an RGB picture.

        Raises:
            NetworkError: the pictures have other channels.
        """
        if self.spec is None:
            return images
        if images.shape[1] not in (1, 3, self.spec.channels):
            raise NetworkError(
                f"The network takes pictures of {self.spec.channels} channel(s), but these have "
                f"{images.shape[1]}. Convert them, or take a network for such pictures."
            )
        if images.shape[1] == 3 and self.spec.channels == 1:
            red, green, blue = images.unbind(dim=1)
            images = (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]
        size = (self.spec.height, self.spec.width)
        if images.shape[-2:] != size:
            images = interpolate(images, size, mode="bilinear", antialias=True)
        if self._plain:
            return images.expand(-1, self.spec.channels, -1, -1)
        return (images - self.mean) / self.std

    def tap(self, names: Sequence[str], what: str = "network") -> None:
        """Registers permanent taps; call before compiling.

        Raises:
            NetworkError: there is no sub-module of that name.
        """
        self._recorder.attach(self.module, names, what)
        if isinstance(self.module, DepthDynamic):
            self.module.tap(names)

    @property
    def subnets(self) -> tuple[str, ...]:
        """The names of its sub-nets; none of an ordinary network."""
        return self.module.names if isinstance(self.module, DepthDynamic) else ()

    def whole(self) -> "Network":
        """Without sub-nets: itself if it has none, or the whole taken out."""
        return self.extract(FULL) if self.subnets else self

    def extract(self, subnet: str) -> "Network":
        """A sub-net as an ordinary network, with weights of its own.

        Args:
            subnet: one of `subnets`, or "full" for the whole without them.

        Raises:
            NetworkError: there is none of that name.
        """
        if not isinstance(self.module, DepthDynamic):
            raise NetworkError(
                f"This network has no sub-nets, so there is no {subnet!r} to take out. Name none."
            )
        network = Network(self.module.extract(subnet), self.spec)
        first = next(self.module.parameters())
        return network.to(first.device, first.dtype).train(self.training)

    def observe(self, images: Float[Tensor, "n c h w"], taps: Sequence[str] = ()) -> Observation:
        """One forward pass, with the maps at `taps` (registered before by `tap`).

        Of a network with sub-nets the whole is run, and each of them. How a tap's output is a map
        is found out once, by a survey of its own, if no dry run came before.

        Raises:
            NetworkError: the pass did not come through a tap.
        """
        self.learn_layouts(images, taps)
        subnets: dict[str, Seen] = {}
        if isinstance(self.module, DepthDynamic):
            prepared = self.prepare(images)
            output, kept, subnets = self.module.call_all(prepared, taps, self._recorder)
        else:
            self._recorder.start()
            try:
                output = self.forward(images)
            finally:
                kept = self._recorder.stop()
        for name in taps:
            if name not in kept:
                raise NetworkError(_not_kept(name, self.module))
        features = {name: kept[name] for name in taps}
        return Observation(
            pytree.tree_map(_to_float32, output),
            features,
            {
                name: Observation(pytree.tree_map(_to_float32, seen.output), seen.features)
                for name, seen in subnets.items()
            },
        )

    def learn_layouts(self, images: Float[Tensor, "n c h w"], taps: Sequence[str]) -> None:
        """Finds out how what these taps put out is a map, once; call before compiling.

        Args:
            images: like those that it will observe.
        """
        if any(name not in self._recorder.layouts for name in taps):
            self._survey(images.new_full((2, *images.shape[1:]), 0.5), taps)

    def example(self, image_size: tuple[int, int, int] | None, count: int = 2) -> Tensor:
        """Gray pictures of the right shape, on the network's device, for a dry run.

        Args:
            image_size: channels, height, width, for a network without a spec.

        Raises:
            NetworkError: neither says how large a picture is.
        """
        if self.spec is not None:
            image_size = (self.spec.channels, self.spec.height, self.spec.width)
        if image_size is None:
            raise NetworkError(
                "A network's input size is not known. Wrap it as Network(module, InputSpec(...)), "
                "or give image_size=(channels, height, width)."
            )
        first = next(self.module.parameters(), torch.empty(0))
        return torch.full((count, *image_size), 0.5, device=first.device, dtype=first.dtype)

    def stages(self, image_size: tuple[int, int, int] | None = None) -> list[Stage]:
        """The candidate taps, from one dry run; of a network with sub-nets, the whole's."""
        return self._survey(self.example(image_size), ()).stages

    def _survey(self, images: Tensor, taps: Sequence[str]) -> Survey:
        """Watches a pass of these, and remembers how what was put out is a map."""
        module = self.module
        used = module.in_use if isinstance(module, DepthDynamic) else ""
        if isinstance(module, DepthDynamic):
            module.use(FULL)
        try:
            with evaluating(module):
                found = survey(module, self.prepare(images))
        finally:
            if isinstance(module, DepthDynamic):
                module.use(used)
        self._recorder.layouts |= dict.fromkeys(taps) | found.layouts
        return found

    def dry_run(
        self, taps: Sequence[str], image_size: tuple[int, int, int] | None = None
    ) -> Observation:
        """One observation of two gray pictures in eval mode; modes are restored.

        Raises:
            NetworkError: a tap puts out nothing that can be read as a map, or is never reached.
        """
        with evaluating(self):
            seen = self.observe(self.example(image_size), taps)
        for name, value in seen.features.items():
            if not isinstance(value, Tensor) or value.ndim != 4:
                raise NetworkError(_no_map(name, value))
        return seen


def shape_of(seen: Observation) -> ObservationShape:
    """The shapes of an observation, without the batch dimension."""
    return ObservationShape(
        None if not isinstance(seen.output, Tensor) else tuple(seen.output.shape[1:]),
        {name: tuple(value.shape[1:]) for name, value in seen.features.items()},
        {name: shape_of(part) for name, part in seen.subnets.items()},
    )


def _not_kept(name: str, module: nn.Module) -> str:
    """Why a pass did not come through a tap."""
    if name in dict(module.named_modules()):
        return (
            f"The sub-module {name!r} is not called in a forward pass, so it cannot be tapped. "
            "Choose one that is."
        )
    owner, _, place = name.rpartition(".")
    return (
        f"There is no sub-module {name!r} to tap, and {owner!r} puts out no list with an entry "
        f"{place}, counted from 0. `taps: auto` finds the stages."
    )


def _no_map(name: str, value: Any) -> str:
    """Why what a tap puts out cannot be compared."""
    if isinstance(value, list | tuple):
        return (
            f"The tap {name!r} puts out {len(value)} things, and one map is wanted. Tap the "
            f"sub-module that puts out that map, or, if it has no numbered parts, {name}.0, "
            f"{name}.1 and so on."
        )
    return (
        f"The tap {name!r} puts out no map of shape (n, channels, height, width), nor one with "
        "channels last or as tokens. Tap a convolution, a block or a stage."
    )


def _to_float32(leaf: Any) -> Any:
    half = isinstance(leaf, Tensor) and leaf.dtype in (torch.bfloat16, torch.float16)
    return leaf.float() if half else leaf
