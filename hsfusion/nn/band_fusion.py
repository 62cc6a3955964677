"""Band fusion: gates, a learned spectral response per group and channel, then a weighted sum over groups."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from hsfusion.nn.weighted_sum import Constraint, Kind, WeightedSum

# Height of the bumps, in log response, that the curves start with. Channels that start nearly equal stay so if group
# weights are shared.
_START_HEIGHT = 4.0
#: logarithm of a response of 0: finite, as all numbers in a model file, and far below what coefficients can make up for
LOG_NOTHING = -1e4
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

    After :data:`SETTLED` of the training, gates that were driven below 0.5 close for good and the others open fully,
    and there is no more noise or penalty. Bands with the same number in ``gate_of`` (C,) share a gate.

    Source: Yamada et al. (2020), Feature Selection using Stochastic Gates, ICML, arXiv:1810.04247. Their penalty is the
    probability that a gate is open, which hardly falls when a wide-open gate closes a little, so that bands opened by
    chance stay open. The penalty used here pulls equally at every gate that is not closed.
    """

    gate_of: Tensor
    kept: Tensor

    def __init__(self, gate_of: Tensor) -> None:
        super().__init__()
        self.register_buffer("gate_of", gate_of)
        self.register_buffer("kept", torch.zeros(gate_of.shape, dtype=torch.bool))
        self.settled = False  # spares a look at the device in every step
        self.position = nn.Parameter(torch.full((int(gate_of.max()) + 1,), _START))

    @property
    def openness(self) -> Tensor:
        """(C,) between 0, closed, and 1, open."""
        return torch.where(self.kept.any(), self.kept.float(), self.position.clamp(0, 1)[self.gate_of])

    @property
    def cost(self) -> Tensor:
        """1 if all gates are as at the start, fully open; 0 once the bands are chosen."""
        ratio = self.position / _NOISE
        density = torch.exp(-0.5 * ratio**2) / math.sqrt(2 * math.pi)
        cost = (self.position * torch.special.ndtr(ratio) + _NOISE * density).mean()
        return torch.where(self.kept.any(), 0.0, cost)

    def forward(self, x: Tensor) -> Tensor:
        """Applies gates, drawn separately for each b, to (B, C, H, W)."""
        noise = _NOISE * torch.randn(len(x), self.position.numel(), device=x.device)
        gates = (self.position + noise).clamp(0, 1)[:, self.gate_of]  # (B, C)
        gates = torch.where(self.kept.any(), self.kept.float(), gates)
        return x * gates[:, :, None, None].to(x.dtype)

    @torch.no_grad()
    def advance(self, progress: float) -> None:
        """Chooses the bands when it is time; ``progress`` is the share of the training, 0 to 1."""
        if progress >= SETTLED and not self.settled:
            self.settled = True
            open_enough = self.position.max().clamp(max=_SHUT)  # at least one
            if not self.kept.any():
                self.kept.copy_((self.position >= open_enough)[self.gate_of])


class BandCentres(nn.Module):
    r"""Windows around k learned centres, narrowing in training until each is one band.

    .. math:: z_c = 1 - \prod_{j=1}^{k} \left(1 - e^{-(r_c - m_j)^2 / 2 \sigma^2}\right)

    with the rank r (C,) of band c by wavelength, below 0 for bands that may not be chosen, and centres m that start
    evenly spaced. The width :math:`\sigma` falls from 0.6 of the spacing of the centres to half a band over the first
    :data:`SETTLED` of the training. Then each centre takes the nearest band that is still free, and the rest of the
    training uses only these k bands. Those in ``always`` (C,), such as layers of other rasters, stay open and are
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
        self.settled = False
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
        elif not self.settled:
            self.settled = True
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


class BandFusion(nn.Module):
    """Fuses C bands in G groups into M channels by two readable linear maps.

    ``z[g,m] = p[g,m] Σ_c o[c] s[g,m,c] x[c]`` and ``f[m] = Σ_g a[g,m] z[g,m]``, with ``s[g,m]`` the softmax of
    ``basis @ θ[g,m] + log Δ`` over the bands of g.

    The response s is non-negative and sums to 1 over the bands of its group: it is a density, sampled at bands that
    each cover Δ nm. The weights a are those of :class:`WeightedSum`. Neither can absorb the scale of a
    band. The gates o, between 0 and 1, are the same for all groups and channels. Layers of other rasters (lidar, radar,
    thermal) are further bands, in separate groups.

    A network that was transferred from another sensor starts from its responses there: they replace Δ, and the
    coefficients θ are what it learns in addition. The buffer ``passed``, p, is what the gates let through there;
    otherwise it is 1.

    Args:
        membership: (G, C) bool, the bands of each group; every group has at least one.
        basis: (C, K), the basis of the response curves (the identity gives one free logit per band).
        gates: a :class:`StochasticGates` or :class:`BandCentres`, or None if every band stays open.
        prior: non-negative, what the response is proportional to while the coefficients are 0: (C,) the width in nm
            that each band covers; or (G, M, C) responses of a transferred network. None for equal values.
        channels: M.
        kind: kind of the group weights, see :class:`WeightedSum`.
        constraint: constraint of the group weights.
        neighbourhood: width in pixels of the square from which instance weights are predicted.
    """

    membership: Tensor
    basis: Tensor
    log_prior: Tensor
    passed: Tensor
    _bands: Tensor
    _sizes: list[int]

    def __init__(
        self,
        membership: Tensor,
        basis: Tensor,
        *,
        gates: StochasticGates | BandCentres | None = None,
        prior: Tensor | None = None,
        channels: int = 32,
        kind: Kind = "channel",
        constraint: Constraint = "signed",
        neighbourhood: int = 3,
    ) -> None:
        super().__init__()
        groups, bands = membership.shape
        self.channels = channels
        self.kind = kind
        instance = kind.endswith("instance")
        self.margin = neighbourhood // 2 if instance else 0
        self.register_buffer("membership", membership.bool())
        _index_bands(self)
        self.register_load_state_dict_post_hook(_index_bands)
        self.register_buffer("basis", basis.float())
        prior = torch.ones(bands) if prior is None else prior
        self.register_buffer("log_prior", prior.log().clamp_min(LOG_NOTHING).float())
        self.register_buffer("passed", torch.ones(groups, channels))
        self.gates = gates
        self.coefficients = nn.Parameter(_start(self.membership, self.log_prior, basis=self.basis, channels=channels))
        self.group_sum = WeightedSum(
            groups,
            kind=kind,
            channels=None if kind in {"scalar", "none"} else channels,
            constraint=constraint,
            init="normal" if kind.startswith("channel") and constraint != "convex" else "uniform",
            neighbourhood=neighbourhood if instance else 1,
        )

    @property
    def openness(self) -> Tensor:
        """(C,) between 0, for bands that are never used, and 1."""
        return torch.ones(len(self.basis), device=self.basis.device) if self.gates is None else self.gates.openness

    @property
    def response(self) -> Tensor:
        """(G, M, C) responses s, non-negative, summing to 1 over C and zero outside the group; gates not included."""
        inside = self._responses()
        whole = inside.new_zeros(*inside.shape[:2], len(self.basis))
        return whole.scatter(2, self._bands[:, None].expand_as(inside), inside)

    def _responses(self) -> Tensor:
        """(G, M, L) at the bands of each group, ``_bands``; 0 at others that fill up groups of less than L."""
        prior = self.log_prior.expand(*self.passed.shape, -1) if self.log_prior.dim() == 1 else self.log_prior
        places = self._bands[:, None].expand(-1, self.channels, -1)
        logits = self.coefficients @ self.basis[self._bands].mT + prior.gather(2, places)
        return logits.masked_fill(~self.membership.gather(1, self._bands)[:, None], -torch.inf).softmax(-1)

    @property
    def open_share(self) -> Tensor:
        """(G, M) share of each response that reaches the group tensors, through gates and ``passed``."""
        return (self.response * self.openness).sum(2) * self.passed

    def group_tensors(self, x: Tensor) -> list[Tensor]:
        """The G group tensors z of standardised bands (B, C, H, W), before the weighted sum.

        Each (B, M, H, W), or (B, 1, H, W) for further groups of one band where all channels respond alike.
        """
        if self.gates is not None:
            x = self.gates(x) if self.training else x * self.openness[:, None, None].to(x.dtype)
        response, last = self._responses() * self.passed[:, :, None], x.movedim(1, -1)  # (B, H, W, C)
        tensors = []
        for g, size in enumerate(self._sizes):
            inside = self._bands[g, :size]
            # all channels respond alike unless carried over; the first group gives the number of channels
            if size == 1 and g > 0 and self.log_prior.dim() == 1:
                tensors.append(x[:, inside])
                continue
            # the rest of the response is zero: leaving it out saves G - 1 of G multiplications
            tensors.append((last[..., inside] @ response[g, :, :size].T.to(x.dtype)).movedim(-1, 1))
        return tensors

    def instance_weights(self, x: Tensor) -> Tensor:
        """Group weights at every pixel that the forward pass returns, of standardised bands (B, C, H, W).

        (B, G, H', W') for instance, (B, G, M, H', W') for channel_instance; H' = H - 2 * margin.
        """
        return crop(self.group_sum.predict(*self.group_tensors(x)), self.margin)

    def group_sizes(self, weights: Tensor) -> Tensor:
        """How much each group counts in each channel, (B, G, M, H, W) with sum 1 over G.

        Absolute weights (B, G, M or 1, H, W) times what is let through.
        """
        sizes = weights.abs() * self.open_share[None, :, :, None, None]
        return sizes / sizes.sum(1, keepdim=True).clamp_min(1e-12)

    def matrix(self) -> Tensor:
        """The two linear maps as one (M, C), for weights that do not depend on the input; gates not included."""
        weights = self.group_sum.weights
        if weights.dim() == 1:
            weights = weights[:, None].expand(-1, self.channels)
        parts = (weights * self.passed)[:, :, None] * self._responses()  # (G, M, L)
        whole = parts.new_zeros(self.channels, len(self.basis))
        return whole.index_add(1, self._bands.flatten(), parts.transpose(0, 1).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        """Fuses standardised bands (B, C, H, W) to (B, M, H - 2 * margin, W - 2 * margin)."""
        if self.kind.endswith("instance"):
            return crop(self.group_sum(*self.group_tensors(x)), self.margin)
        if self.gates is None:
            return matrix_product(x, self.matrix())
        if self.training and not self.gates.settled:
            return matrix_product(self.gates(x), self.matrix())
        return matrix_product(x, self.matrix() * self.openness)


class FreeFusion(nn.Module):
    """Unconstrained 1 x 1 convolution from C bands to M channels: the baseline without readable weights.

    ``membership`` (1, C) says which bands may be used.
    """

    margin = 0
    kind = "free"
    gates = None
    membership: Tensor

    def __init__(self, membership: Tensor, *, channels: int = 32) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("membership", membership.bool())
        self.weight = nn.Parameter(torch.randn(channels, membership.shape[1]) / membership.sum() ** 0.5)

    @property
    def openness(self) -> Tensor:
        """(C,) ones: there are no gates."""
        return torch.ones(self.weight.shape[1], device=self.weight.device)

    def matrix(self) -> Tensor:
        """The (M, C) weights, zero for bands that may not be used."""
        return self.weight * self.membership

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, M, H, W)."""
        return matrix_product(x, self.matrix())


def _index_bands(fusion: Any, *_: object) -> None:
    """Keeps the indices (G, L) of the bands of each group, its own first; loading tensors can change the groups."""
    membership = fusion.get_buffer("membership")
    fusion._sizes = membership.sum(1).tolist()
    bands = membership.int().argsort(dim=1, descending=True, stable=True)[:, : max(fusion._sizes)].contiguous()
    fusion.register_buffer("_bands", bands, persistent=False)


def _start(membership: Tensor, log_prior: Tensor, *, basis: Tensor, channels: int) -> Tensor:
    """Coefficients (G, M, K) of curves with one bump each, at a random band of the group; 0 if carried over.

    Every band of a group is as likely as any other of its width, so that the expected weights are about uniform. The
    channels share the bands of a group out evenly, in random order: trainings then depend less on the seed.
    """
    if log_prior.dim() == 3:
        return torch.zeros(len(membership), channels, basis.shape[1])
    groups, bands = membership.shape
    share = (membership * log_prior.exp()).cumsum(1)  # (G, C)
    place = (torch.arange(channels) + torch.rand(groups, 1)) / channels * share[:, -1:]  # (G, M)
    centres = torch.searchsorted(share, place).clamp_max(bands - 1)
    centres = centres.gather(1, torch.rand(groups, channels).argsort(1))
    bump = basis[centres]  # (G, M, K)
    return _START_HEIGHT * bump / bump.square().sum(-1, keepdim=True)


def matrix_product(x: Tensor, matrix: Tensor) -> Tensor:
    """(B, C, H, W) to (B, M, H, W) by a matrix (M, C) at every pixel."""
    # a channels-last cube makes the move free and this one plain matrix product
    return (x.movedim(1, -1) @ matrix.T.to(x.dtype)).movedim(-1, 1)


def crop(x: Tensor, margin: int) -> Tensor:
    """(..., H, W) without a number of pixels at each edge."""
    return x[..., margin : x.shape[-2] - margin, margin : x.shape[-1] - margin] if margin else x
