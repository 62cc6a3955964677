"""Gates in front of the bands: what makes a network do with few of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_NOISE = 0.5  # standard deviation of a gate in training, as in the paper
_START, _SHUT = 1.0, 0.5  # where gates start, open; and below what they are shut for good
_SHIFT_PER_UNIT = 0.3  # makes a step of an optimizer as good for a centre as for the rest of the fusion
#: share of the training after which the bands are chosen and the rest of it runs on these alone
SETTLED = 0.55


class StochasticGates(nn.Module):
    r"""One gate per band that opens and closes at random in training, and a sparsity penalty on open gates.

    .. math::
        z_c = \min(1, \max(0, \mu_c + \epsilon)), \quad \epsilon \sim N(0, 0.5^2), \qquad
        \mathrm{cost} = \mathrm{mean}_c \, E[\max(0, \mu_c + \epsilon)]

    After :data:`SETTLED` of the training, gates that were driven below 0.5 shut for good and the others open, and there
    is neither noise nor penalty any more. Bands with the same number in ``gate_of`` (C,) share a gate.

    Source: Yamada et al. (2020), Feature Selection using Stochastic Gates, ICML, arXiv:1810.04247. Their penalty is the
    probability that a gate is open, which hardly falls when one that is wide open closes a little: bands that came to
    be open by chance stay so. This one asks the same of every gate that is not closed.
    """

    gate_of: Tensor
    kept: Tensor

    def __init__(self, gate_of: Tensor) -> None:
        super().__init__()
        self.register_buffer("gate_of", gate_of)
        self.register_buffer("kept", torch.zeros(gate_of.shape, dtype=torch.bool))
        self._settled = False  # spares a look at the device in every step
        self.position = nn.Parameter(torch.full((int(gate_of.max()) + 1,), _START))

    @property
    def openness(self) -> Tensor:
        """(C,) between 0, closed, and 1, open."""
        return torch.where(self.kept.any(), self.kept.float(), self.position.clamp(0, 1)[self.gate_of])

    @property
    def cost(self) -> Tensor:
        """1 where all gates stand as they started, fully open; 0 once the bands are chosen."""
        ratio = self.position / _NOISE
        density = torch.exp(-0.5 * ratio**2) / math.sqrt(2 * math.pi)
        cost = (self.position * torch.special.ndtr(ratio) + _NOISE * density).mean()
        return torch.where(self.kept.any(), 0.0, cost)

    def forward(self, x: Tensor) -> Tensor:
        """Lets (B, C, H, W) through gates drawn anew for each b."""
        noise = _NOISE * torch.randn(len(x), self.position.numel(), device=x.device)
        gates = (self.position + noise).clamp(0, 1)[:, self.gate_of]  # (B, C)
        gates = torch.where(self.kept.any(), self.kept.float(), gates)
        return x * gates[:, :, None, None].to(x.dtype)

    @torch.no_grad()
    def advance(self, progress: float) -> None:
        """Chooses the bands when it is time; ``progress`` is the share of the training, 0 to 1."""
        if progress >= SETTLED and not self._settled:
            self._settled = True
            open_enough = self.position.max().clamp(max=_SHUT)  # at least one
            if not self.kept.any():
                self.kept.copy_((self.position >= open_enough)[self.gate_of])


class BandCentres(nn.Module):
    r"""Windows around k learned centres, narrowing in training until each is one band.

    .. math:: z_c = 1 - \prod_{j=1}^{k} \left(1 - e^{-(r_c - m_j)^2 / 2 \sigma^2}\right)

    with the rank r (C,) of band c by wavelength, below 0 for bands that may not be chosen, and centres m that start
    evenly spaced. The width :math:`\sigma` falls from 0.6 of the spacing of the centres to half a band over the first
    :data:`SETTLED` of the training; there each centre takes the nearest band that is still free, and the rest of the
    training runs on these k bands alone. Those in ``always`` (C,), such as layers of other rasters, stay open and are
    not counted.
    """

    rank: Tensor
    always: Tensor
    kept: Tensor
    width: Tensor

    def __init__(self, rank: Tensor, number: int, *, always: Tensor | None = None) -> None:
        super().__init__()
        bands = int((rank >= 0).sum())
        if not 1 <= number <= bands:
            raise ValueError(f"keep_bands is {number}, expected 1 to {bands}")
        self._spacing = bands / number
        self.register_buffer("rank", rank.float())
        self.register_buffer("always", torch.zeros(rank.shape, dtype=torch.bool) if always is None else always)
        self.register_buffer("kept", torch.zeros(rank.shape, dtype=torch.bool))
        self._settled = False
        self.register_buffer("width", torch.tensor(self._width(0.0)))
        self.shift = nn.Parameter(torch.zeros(number))

    @property
    def centres(self) -> Tensor:
        """(k,) centres, as ranks."""
        start = (torch.arange(self.shift.numel(), device=self.shift.device) + 0.5) * self._spacing - 0.5
        return start + _SHIFT_PER_UNIT * self._spacing * self.shift

    @property
    def openness(self) -> Tensor:
        """(C,) between 0, closed, and 1, open."""
        distance = (self.rank - self.centres[:, None]) / self.width  # (k, C)
        window = 1 - (1 - torch.exp(-0.5 * distance**2)).prod(0)
        window = torch.where(self.kept.any(), self.kept.float(), torch.where(self.rank >= 0, window, 0.0))
        return torch.where(self.always, 1.0, window)

    @property
    def cost(self) -> Tensor:
        """0: the number of bands is given."""
        return torch.zeros((), device=self.shift.device)

    def forward(self, x: Tensor) -> Tensor:
        """Lets (B, C, H, W) through."""
        return x * self.openness[:, None, None].to(x.dtype)

    @torch.no_grad()
    def advance(self, progress: float) -> None:
        """Narrows the windows, then chooses the bands; ``progress`` is the share of the training, 0 to 1."""
        if progress < SETTLED:
            self.width.fill_(self._width(progress / SETTLED))
        elif not self._settled:
            self._settled = True
            if not self.kept.any():
                self._choose()

    def _choose(self) -> None:
        distance = torch.where(self.rank >= 0, (self.rank - self.centres[:, None]).abs(), torch.inf)  # (k, C)
        for _ in range(len(distance)):  # the closest pair first
            centre, band = divmod(int(distance.argmin()), distance.shape[1])
            self.kept[band] = True
            distance[centre], distance[:, band] = torch.inf, torch.inf

    def _width(self, share: float) -> float:
        start = 0.6 * self._spacing
        return start * (0.5 / start) ** share
