"""scikit-learn's digits: 1,797 real scans of 8×8 pixels that come with the package.

They are the test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and
Kaynak, 1998); a pixel is the number, 0 to 16, of dark dots in a 4×4 block of the scan.
"""

import torch

from tutelage.data.pictures import Pictures, Source, pixel_statistics
from tutelage.data.subsets import draw_stratified
from tutelage.errors import SettingError

__all__ = ["digits"]


def digits(*, test: int = 500, split_seed: int = 0) -> Source:
    """The digits, gray; nobody divided them, so a stratified test set is carved out.

    Args:
        test: number of test pictures, 1 to 1,796.
        split_seed: another number draws another test set.

    Raises:
        SettingError: `test` is out of range.
    """
    # A second's import that only this source needs.
    from sklearn.datasets import load_digits

    dots, numbers = load_digits(return_X_y=True)
    images = (torch.as_tensor(dots) * (255 / 16)).round().to(torch.uint8).reshape(-1, 8, 8, 1)
    pictures = Pictures.with_labels(images, torch.as_tensor(numbers, dtype=torch.int64))
    if not 1 <= test < len(pictures):
        raise SettingError(
            f"test must lie in 1 … {len(pictures) - 1} for the {len(pictures)} digits, "
            f"but is {test}; 500 is usual."
        )
    chosen = draw_stratified(pictures, test, split_seed, "digits/test")
    rest = torch.ones(len(pictures), dtype=torch.bool)
    rest[chosen] = False
    train = pictures.take(rest.nonzero()[:, 0])
    mean, std = pixel_statistics(train.images)
    return Source(train, pictures.take(chosen), tuple("0123456789"), mean, std)
