"""The networks: CFCM, the paper's choice, and U-Net, which the paper compares it with.

CFCM is a residual encoder whose features are read coarse to fine by convolutional LSTM memories, written from its paper
(Milletari, Rieke, Baust, Esposito, Navab, arXiv 1806.01413). Differences from it: ``width`` scales all channels (64
there), the memory's cell uses tanh, and the last convolution also sees features at full resolution. U-Net: Ronneberger,
Fischer, Brox, arXiv 1505.04597, with padded convolutions and batch normalisation.
"""

import itertools

import torch
from torch import Tensor, nn

#: Residual blocks per scale, as in ResNet34.
RESNET34_BLOCKS = (3, 4, 6, 3)


class ResidualBlock(nn.Module):  # type: ignore[misc]
    """Pre-activation basic block: normalise, ReLU, convolve, twice, plus the (projected) input."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.normalise_1 = nn.BatchNorm2d(channels_in)
        self.convolve_1 = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.normalise_2 = nn.BatchNorm2d(channels)
        self.convolve_2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.project = nn.Identity() if channels_in == channels else nn.Conv2d(channels_in, channels, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(n, channels_in, h, w) -> (n, channels, h, w)."""
        hidden = self.convolve_1(torch.relu(self.normalise_1(features)))
        hidden = self.convolve_2(torch.relu(self.normalise_2(hidden)))
        return hidden + self.project(features)  # type: ignore[no-any-return]


class ConvolutionalMemory(nn.Module):  # type: ignore[misc]
    """A convolutional LSTM cell; all gates in one 3 x 3 convolution, forget bias 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * channels, 4 * channels, 3, padding=1)
        nn.init.zeros_(self.gates.bias)
        nn.init.ones_(self.gates.bias[channels : 2 * channels])

    def forward(self, features: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """One step; all tensors (n, channels, h, w). Returns the new hidden and cell state."""
        entry, forget, output, candidate = self.gates(torch.cat((features, hidden), 1)).chunk(4, 1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(entry) * torch.tanh(candidate)
        return torch.sigmoid(output) * torch.tanh(cell), cell


class CFCM(nn.Module):  # type: ignore[misc]
    """Coarse-to-fine context memory: image (n, 1, h, w) -> logits (n, classes, h, w); h and w multiples of 16."""

    def __init__(self, *, width: int = 8, classes: int = 5, blocks: tuple[int, ...] = RESNET34_BLOCKS) -> None:
        super().__init__()
        widths = [width * 2**scale for scale in range(len(blocks))]
        self.stem = nn.Conv2d(1, width, 7, padding=3, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.scales = nn.ModuleList(
            nn.ModuleList(ResidualBlock(channels_in if index == 0 else channels, channels) for index in range(count))
            for channels_in, channels, count in zip([width, *widths], widths, blocks, strict=False)
        )
        self.memories = nn.ModuleList(ConvolutionalMemory(channels) for channels in widths)
        finer = [max(width, channels // 2) for channels in widths]
        self.raise_hidden = nn.ModuleList(nn.ConvTranspose2d(c, f, 2, 2) for c, f in zip(widths, finer, strict=True))
        self.raise_cell = nn.ModuleList(
            nn.ConvTranspose2d(c, f, 2, 2) for c, f in zip(widths[1:], finer[1:], strict=True)
        )
        self.merge = nn.Conv2d(2 * width, width, 3, padding=1)
        self.classify = nn.Conv2d(width, classes, 3, padding=1)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """Logits at the size of the image."""
        stem = self.stem(image)
        features, remembered = stem, []
        for blocks in self.scales:
            features = self.pool(features)
            outputs = []
            for block in blocks:  # type: ignore[attr-defined]
                features = block(features)
                outputs.append(torch.relu(features))
            remembered.append(outputs)
        hidden = torch.zeros_like(features)
        cell = torch.zeros_like(features)
        for scale in reversed(range(len(self.scales))):
            for output in reversed(remembered[scale]):  # the deepest block first
                hidden, cell = self.memories[scale](output, hidden, cell)
            hidden = self.raise_hidden[scale](hidden)
            if scale:
                cell = self.raise_cell[scale - 1](cell)
        return self.classify(torch.relu(self.merge(torch.cat((hidden, torch.relu(stem)), 1))))  # type: ignore[no-any-return]


class UNet(nn.Module):  # type: ignore[misc]
    """U-Net of four halvings, ``width`` base filters: image (n, 1, h, w) -> logits; h and w multiples of 16."""

    def __init__(self, *, width: int = 64, classes: int = 5, depth: int = 4) -> None:
        super().__init__()
        widths = [width * 2**scale for scale in range(depth + 1)]
        self.down = nn.ModuleList(_two_convolutions(a, b) for a, b in zip([1, *widths], widths, strict=False))
        self.pool = nn.MaxPool2d(2)
        self.rise = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(_two_convolutions(2 * channels, channels) for channels in widths[:-1])
        self.classify = nn.Conv2d(width, classes, 1)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """Logits at the size of the image."""
        features, skipped = image, []
        for scale, convolve in enumerate(self.down):
            features = convolve(features if scale == 0 else self.pool(features))
            skipped.append(features)
        for scale in reversed(range(len(self.up))):
            features = self.up[scale](torch.cat((skipped[scale], self.rise[scale](features)), 1))
        return self.classify(features)  # type: ignore[no-any-return]


def _two_convolutions(channels_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


def initialise(network: nn.Module) -> None:
    """Xavier's uniform weights in every convolution."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)


def build_network(architecture: str, width: int) -> nn.Module:
    """A network by name, ``cfcm`` or ``unet``, with ``width`` channels at its finest scale.

    Raises:
        ValueError: no such architecture.
    """
    if architecture == "cfcm":
        return CFCM(width=width)
    if architecture == "unet":
        return UNet(width=width)
    raise ValueError(f"no architecture {architecture!r}; there are cfcm and unet")
