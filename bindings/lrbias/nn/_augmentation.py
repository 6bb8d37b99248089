"""Crops and flips, by Kornia."""

from lrbias.errors import InvalidInput

MARGIN = 4  # pixels on each side, as usual for images of 32 × 32


def crops_and_flips(size):
    """A function of a batch of (h, w) images: each is shifted by up to MARGIN pixels, and mirrored or not."""
    try:
        from kornia.augmentation import AugmentationSequential, RandomCrop, RandomHorizontalFlip
    except ModuleNotFoundError:
        raise InvalidInput("augment needs Kornia: pip install 'lrbias[vision]'.") from None
    crop = RandomCrop(tuple(size), padding=MARGIN, cropping_mode="slice")
    return AugmentationSequential(crop, RandomHorizontalFlip(), data_keys=["input"])
