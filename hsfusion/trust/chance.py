"""Comparison with meaningless labels, the same fields in other places, by the rule in docs/weights.md."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: number of moved label maps: to exceed the best of 19 has a significance level of 0.05
MAPS = 19
_ROUNDS = 10  # of 19 random moves
_MOST_TRAIN, _MOST_VAL = 2000, 1000  # pixels
_MOST_NEAR = 1 / 3  # of the pixels may stay within a quarter of height and width
_MOST_ALIKE = 0.8  # adjusted mutual information of a moved map and the labels, as plots may be regular

#: spectra (P, C) of pixels, NaN without data, and which of them are complete (P,)
_Spectra = tuple[NDArray[np.floating], NDArray[np.bool_]]


@dataclass(frozen=True)
class Chance:
    """Scores on validation pixels (Cohen's kappa); None where there is nothing to compare."""

    network: float | None = None
    labels: float | None = None  # of a linear discriminant on the labels as they are
    moved: float | None = None  # the best of the discriminant on moved label maps
    maps: int = 0  # number of moved label maps

    @property
    def beaten(self) -> bool | None:
        """Whether network and labels exceed the best moved map; None if there are fewer than 19."""
        if self.network is None or self.labels is None or self.moved is None:
            return None
        return min(self.network, self.labels) > self.moved


def kappa(truth: NDArray[np.integer], predicted: NDArray[np.integer]) -> float:
    """Cohen's kappa of class indices (N,), from -1 on; 0 where both are one class."""
    number = int(max(truth.max(), predicted.max())) + 2
    shares = [np.bincount(classes + 1, minlength=number) / len(truth) for classes in (truth, predicted)]
    expected = float(shares[0] @ shares[1])
    return (float((truth == predicted).mean()) - expected) / (1 - expected) if expected < 1 else 0.0


def compare_with_moved_labels(
    train: tuple[NDArray[np.int64], NDArray[np.integer]],
    val: tuple[NDArray[np.int64], NDArray[np.integer]],
    predicted: NDArray[np.integer],
    *,
    shape: tuple[int, int],
    read: Callable[[NDArray[np.int64]], NDArray[np.floating]],
    seed: int,
) -> Chance:
    """Scores a network and a linear discriminant on labels, and the discriminant on the same labels moved elsewhere.

    The score is kappa, not the accuracy above the majority class: a classifier that ignores the image gets 0 whatever
    the shares of the classes, which differ slightly between maps if moved pixels have no data.

    Args:
        train: flat indices (N,) and class indices (N,) of the training pixels.
        val: the same for the V validation pixels.
        predicted: (V,) class indices by the network.
        shape: (H, W) of the scene.
        read: returns the spectra (P, C) of pixels (P,), NaN where there are no data.
        seed: for the moves.
    """
    if not len(val[0]):
        return Chance()
    network, labels = kappa(val[1], predicted), np.full(shape, -1, train[1].dtype)
    labels.flat[np.r_[train[0], val[0]]] = np.r_[train[1], val[1]]
    pixels, classes = (
        np.concatenate([thin_evenly(train[i], _MOST_TRAIN), thin_evenly(val[i], _MOST_VAL)]) for i in (0, 1)
    )
    number, rng = min(len(train[0]), _MOST_TRAIN), np.random.default_rng([seed, 18])
    tables: list[_Spectra] = []
    for _ in range(_ROUNDS):
        draws = (moved(pixels, shape, rng) for _ in range(MAPS))
        places = [to for to in draws if _is_null(to, pixels, classes, labels)]
        tables = [*tables, *_moved_spectra(places, read, trained=number)][:MAPS]
        if len(tables) == MAPS:
            break
    else:
        return Chance(network, maps=len(tables))
    fitted = min(int(whole[:number].sum()) for _, whole in tables)
    unmoved = read(pixels)
    tables.append((unmoved, np.all(np.isfinite(unmoved), axis=1)))
    scores = [
        _discriminant_kappa(
            (spectra[:number], classes[:number]), (spectra[number:], classes[number:]), whole=whole, most=fitted
        )
        for spectra, whole in tables
    ]
    return Chance(network, scores[-1], max(scores[:-1]), MAPS)


def _moved_spectra(
    places: Sequence[NDArray[np.int64]], read: Callable[[NDArray[np.int64]], NDArray[np.floating]], *, trained: int
) -> Iterator[_Spectra]:
    """Spectra for each map in which at least half of the training pixels, and half of the others, have data."""
    if not places:
        return
    spectra = read(np.concatenate(places)).reshape(len(places), len(places[0]), -1)
    whole = np.all(np.isfinite(spectra), axis=2)
    enough = np.minimum(whole[:, :trained].mean(1), whole[:, trained:].mean(1)) >= 0.5
    yield from zip(spectra[enough], whole[enough], strict=True)


def null_moves(
    labels: NDArray[np.integer], *, number: int, seed: int, has_data: Callable[[NDArray[np.int64]], NDArray[np.bool_]]
) -> list[int]:
    """Indices, at most ``number``, of moves that take a label map (H, W) to places where it is meaningless.

    At least half of each class gets pixels with data, by ``has_data`` of pixels (N,). :func:`moved_by` applies a move.
    """
    pixels, moves = np.flatnonzero(labels), []
    classes, known = labels.flat[pixels], np.where(labels > 0, labels.astype(np.int64), -1)
    for move in range(_ROUNDS * MAPS):
        if len(moves) == number:
            break
        to = moved_by(pixels, (labels.shape[0], labels.shape[1]), seed=seed, move=move)
        if not _is_null(to, pixels, classes, known):
            continue
        kept = np.bincount(classes[has_data(to)], minlength=classes.max() + 1)
        if (kept >= np.bincount(classes) / 2).all():
            moves.append(move)
    return moves


def moved_by(pixels: NDArray[np.int64], shape: tuple[int, int], *, seed: int, move: int) -> NDArray[np.int64]:
    """Places (N,) of pixels (N,) after a move of :func:`null_moves`."""
    return moved(pixels, shape, np.random.default_rng([seed, 19, move]))


def moved(pixels: NDArray[np.int64], shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.int64]:
    """Places of pixels (N,) of a scene (H, W), mirrored, rotated and shifted at random with wrap-around."""
    (height, width), (rows, cols) = shape, np.divmod(pixels, shape[1])
    mirrored, upside_down, turned = rng.integers(2, size=3)
    shift = rng.integers(shape)
    if mirrored:
        cols = width - 1 - cols
    if upside_down:
        rows, cols = height - 1 - rows, width - 1 - cols
    if turned and height == width:
        rows, cols = cols, height - 1 - rows
    return (rows + shift[0]) % height * width + (cols + shift[1]) % width


def chance_sentence(runs: Sequence[Mapping[str, Any] | None]) -> str:
    """The comparison of one or several runs in words, from the fields of :class:`Chance` of each; None for old runs."""
    compared = [run for run in runs if run and run["moved"] is not None]
    if len(compared) < len(runs):
        which = "The run was" if len(runs) == 1 else f"{len(runs) - len(compared)} of {len(runs)} runs were"
        return (
            f"{which} compared with chance agreement on test pixels, for lack of validation pixels or of {MAPS} moved "
            "label maps: smooth but meaningless labels may pass this test."
        )
    network, labels = (min(run[key] for run in compared) for key in ("network", "labels"))
    least, most = ("", "") if len(runs) == 1 else ("at least ", "at most ")
    return (
        f"On validation pixels the network reaches a kappa of {least}{network:.2f} and a linear discriminant "
        f"{least}{labels:.2f}; on the best of {MAPS} label maps moved elsewhere, which mean nothing, the discriminant "
        f"reaches {most}{max(run['moved'] for run in compared):.2f}."
    )


def thin_evenly(values: NDArray, most: int) -> NDArray:
    """At most ``most`` of the values (N, ...), evenly spaced."""
    return values[np.linspace(0, len(values) - 1, min(most, len(values))).astype(int)]


def _near(pixels: NDArray[np.int64], to: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Which pixels stay within a quarter of height and width."""
    steps = [np.abs(a - b) for a, b in zip(np.divmod(pixels, shape[1]), np.divmod(to, shape[1]), strict=True)]
    return np.logical_and(*(np.minimum(step, size - step) < size / 4 for step, size in zip(steps, shape, strict=True)))


def _is_null(
    to: NDArray[np.int64], pixels: NDArray[np.int64], classes: NDArray[np.integer], labels: NDArray[np.integer]
) -> bool:
    """Whether classes (N,) of pixels (N,) are meaningless at their new places (N,), given the labels (H, W)."""
    if _near(pixels, to, (labels.shape[0], labels.shape[1])).mean() > _MOST_NEAR:
        return False
    return _alike(classes, labels.flat[to]) <= _MOST_ALIKE


def _alike(classes: NDArray[np.integer], labels: NDArray[np.integer]) -> float:
    """Adjusted mutual information of moved classes (N,) and labels (N,) at their new places, -1 for no label."""
    from sklearn.metrics import adjusted_mutual_info_score

    both = labels >= 0
    return float(adjusted_mutual_info_score(labels[both], classes[both])) if both.sum() > len(labels) / 10 else 0.0


def _discriminant_kappa(
    train: tuple[NDArray[np.floating], NDArray[np.integer]],
    val: tuple[NDArray[np.floating], NDArray[np.integer]],
    *,
    whole: NDArray[np.bool_],
    most: int,
) -> float:
    """Kappa of a discriminant fitted to at most ``most`` training pixels; 0 if it cannot be fitted."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis  # slow to import

    fitted, tested = (np.flatnonzero(of) for of in np.split(whole, [len(train[1])]))
    fitted = thin_evenly(fitted, most)
    if not 1 < len(np.unique(train[1][fitted])) < len(fitted):
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes with one pixel
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(train[0][fitted], train[1][fitted])
    return kappa(val[1][tested], np.asarray(model.predict(val[0][tested])))
