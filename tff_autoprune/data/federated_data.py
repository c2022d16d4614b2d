"""What every data set is to the rest of the project: three `ClientData` and a description."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Optional

from tff_autoprune.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf
    import tensorflow_federated as tff

MAX_RESIZE = 1024


@dataclasses.dataclass(frozen=True)
class PixelOptions:
    """What happens to every image between the source and the model, in this order.

    Attributes:
      crop: `(start, stop)`: rows and columns kept, as in `image[start:stop, start:stop]`; None
        keeps all of them.
      resize: Height and width after resizing, in pixels; None keeps the size.
      invert: Whether pixels then become 1 - value.
    """

    invert: bool = False
    crop: Optional[tuple[int, int]] = None
    resize: Optional[int] = None

    def check(self, source_shape: tuple[int, int, int]) -> None:
        """Raises `UserError` unless these options fit images of `source_shape`."""
        if self.crop is None:
            return
        start, stop = self.crop
        limit = min(source_shape[:2])
        if not 0 <= start < stop <= limit:
            raise UserError(
                f"data.crop: expected 0 <= start < stop <= {limit} (images are"
                f" {source_shape[0]}x{source_shape[1]}), found {self.crop}."
            )

    def output_shape(self, source_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Returns (height, width, channels) of an image of `source_shape` after the options."""
        height, width, channels = source_shape
        if self.crop is not None:
            height = width = self.crop[1] - self.crop[0]
        if self.resize is not None:
            height = width = self.resize
        return height, width, channels

    @property
    def identity(self) -> bool:
        """Whether images stay as they are."""
        return not self.invert and self.crop is None and self.resize is None

    def apply(self, images: tf.Tensor) -> tf.Tensor:
        """Applies the options to raw images, with TensorFlow operations that TFLite has too.

        Args:
          images: float32 [h, w, c], or [n, h, w, c], in [0, 1].

        Returns:
          float32, [h', w', c] or [n, h', w', c], in [0, 1].
        """
        import tensorflow as tf

        if self.crop is not None:
            start, stop = self.crop
            images = images[..., start:stop, start:stop, :]
        if self.resize is not None:
            images = tf.image.resize(images, (self.resize, self.resize), method="bilinear")
        if self.invert:
            images = 1.0 - images
        return images


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """What a data set holds, and what was done to its pixels.

    Attributes:
      name: The data set's name in the registry.
      image_shape: (height, width, channels) of the examples, after the pixel options.
      source_shape: (height, width, channels) of the source's images, before the pixel options.
      num_classes: Number of labels; labels are 0 to `num_classes - 1`.
      label_names: A name for each label.
      pixels: What was done to the source's pixels.
      held_out: "clients" if validation and test clients never trained; "examples" if they train,
        too, on other examples of theirs (the option `split=examples`).
      dtype: "float32" or "int32": the type of the inputs. Those that are no images have any shape,
        which is `image_shape` then.
      ignored_label: The label of places that do not count, if there is one.
    """

    name: str
    image_shape: tuple[int, int, int]
    source_shape: tuple[int, int, int]
    num_classes: int
    label_names: tuple[str, ...]
    pixels: PixelOptions
    held_out: str = "clients"
    dtype: str = "float32"
    ignored_label: Optional[int] = None

    @classmethod
    def build(
        cls,
        name: str,
        source_shape: tuple[int, int, int],
        label_names: tuple[str, ...],
        pixels: PixelOptions,
        held_out: str = "clients",
    ) -> DataSpec:
        """Returns the description that follows from the source and the pixel options.

        Raises:
          UserError: If the pixel options do not fit the source's images, or there is nothing to
            tell apart.
        """
        pixels.check(source_shape)
        if len(label_names) < 2:
            raise UserError(
                f"data.name: expected at least 2 classes in {name!r}, found {len(label_names)}."
            )
        return cls(
            name=name,
            image_shape=pixels.output_shape(source_shape),
            source_shape=source_shape,
            num_classes=len(label_names),
            label_names=label_names,
            pixels=pixels,
            held_out=held_out,
        )

    def apply(self, images: tf.Tensor) -> tf.Tensor:
        """Turns raw images into what the model was trained on; see `PixelOptions.apply`."""
        return self.pixels.apply(images)

    def to_json(self) -> dict[str, Any]:
        """Returns the description as plain JSON values."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class FederatedData:
    """A data set, split by client.

    Attributes:
      train: Clients that train.
      validation: Clients on which decisions are made. None of them trains, or, where
        `spec.held_out` is "examples", none of these examples is trained on.
      test: Clients on which the final figures are measured; as for validation, and none of them
        validates.
      spec: What the examples are.
    """

    train: tff.simulation.datasets.ClientData
    validation: tff.simulation.datasets.ClientData
    test: tff.simulation.datasets.ClientData
    spec: DataSpec
