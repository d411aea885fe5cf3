"""The images of a run, and its architecture."""

from __future__ import annotations

from dataclasses import dataclass

from generalist_core.config.fields import NotNegative, Positive, with_checked_fields
from generalist_core.validation import InvalidConfigError, require


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class DataConfig:
    """Which images are used, how they are split, and how training batches are augmented.

    `name` is one of `generalist_core.data.datasets.DATASETS` or a folder with `train/` and `test/`.
    `n_validation` images are taken from the training images, stratified by label (if None, 500, but
    at most 40 % of them); only `split_seed` decides which, so that runs with different seeds are
    evaluated on the same images. Of the rest, `n_train` images are kept (all if None). `image_size`
    resizes the images to a square, whatever their proportions.
    """

    name: str = "digits"
    root: str = "data"
    download: bool = False
    n_validation: Positive[int] | None = None
    n_train: Positive[int] | None = None
    image_size: Positive[int] | None = None
    crop_padding: NotNegative[int] = 0
    flip: bool = False
    split_seed: int = 0


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class ModelConfig:
    """The architecture that all experts share.

    `name` is one of `generalist_core.models.build.MODELS`, `torchvision:NAME`, or the name
    `FILE.py:FUNCTION` or `MODULE:FUNCTION` of a callable `(n_classes, input_shape) ->
    torch.nn.Module`. `width` scales the built-in models (None: their published width). With `mean`
    and `std`, one number per channel, the model itself normalises its inputs: attacks always see
    images in [0, 1]. `digest` is that of a callable's file and of what it imports
    from its own folder, set when a run begins; a model of another digest is refused.

    `init` is a file with the weights that the experts and the global learner begin from, see
    `generalist_core.models.weights`, and `init_digest` its digest, set when a run begins. No expert
    trains the parameters whose names fit one of the shell patterns `frozen`, such as `layer1.*`;
    buffers, such as the statistics of BatchNorm, still follow the images. Both hold for a model
    that is given from Python too.
    """

    name: str = "convnet"
    width: Positive[int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    digest: str = ""
    init: str | None = None
    init_digest: str = ""
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        mean, std = self.mean or (), self.std or ()
        if len(mean) != len(std):
            raise InvalidConfigError(
                "`mean` and `std` must have the same length, but got "
                f"mean={self.mean}, std={self.std}."
            )
        require(min(std, default=1) > 0, "min(std) > 0", f"std={self.std}")
