"""A model and a data set of one's own: shapes on a noisy ground.

python shapes.py shapes        # draws shapes/{train,validation,test}/{circle,square,triangle}/*.png
hetero-server --model shapes:model --classes 3 ...
hetero-client --model shapes:model --dataset folder:shapes ...
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import nn

SIZE = 24  # pixels per side
CORNERS = {"circle": 0, "square": 4, "triangle": 3}
COUNTS = {"train": 400, "validation": 100, "test": 100}  # images of each class


def model(num_classes: int) -> nn.Sequential:
    """What `--model shapes:model` trains; each layer can be the last one of a device."""
    return nn.Sequential(
        stage(3, 16),
        stage(16, 16),
        stage(16, 32, stride=2),
        stage(32, 64, stride=2),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes)),
    )


def stage(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """One layer, as far as cuts are concerned."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def draw(shape: str, random: np.random.Generator) -> Image.Image:
    """One shape, anywhere, of any size and colour."""
    image = Image.fromarray(random.integers(0, 120, (SIZE, SIZE, 3), dtype=np.uint8))
    radius = float(random.uniform(5, 9))
    x, y = (float(random.uniform(radius, SIZE - radius)) for _ in "xy")
    colour = tuple(int(value) for value in random.integers(130, 255, 3))
    pencil = ImageDraw.Draw(image)
    if CORNERS[shape]:
        angle = int(random.integers(0, 360))
        pencil.regular_polygon((x, y, radius), CORNERS[shape], rotation=angle, fill=colour)
    else:
        pencil.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return image


if __name__ == "__main__":
    generator = np.random.default_rng(seed=0)
    for split, count in COUNTS.items():
        for shape in CORNERS:
            folder = Path(sys.argv[1]) / split / shape
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                draw(shape, generator).save(folder / f"{number:03}.png")
