"""Baselines: classifiers without a neural network, on the same pixels."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.special import log_softmax
from scipy.stats import t as student_t
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit, StratifiedKFold
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

#: key -> name in tables
BASELINES = {
    "lda": "shrinkage LDA",
    "logistic": "logistic regression",
    "svm": "RBF SVM",
    "svm_context": "RBF SVM, pixel and mean of the patch",
    "svm_mnf": "RBF SVM, MNF components and their mean",
    "forest": "random forest",
}
BLOCK = 8  # pixels, edge of the blocks that intervals are taken over: neighbours tend to be right or wrong together
_SVM_GRID = {"C": [1.0, 10.0, 100.0, 1000.0], "gamma": ["scale", 0.003, 0.001]}
_PENALTIES = (0.01, 0.1, 1.0, 10.0)  # C of the logistic regression
_COMPONENTS = 40  # of the noise-whitened spectra
_MOST = 20_000  # training pixels
_MOST_OF_SVM = 5000  # whose time grows with their square
# for fits with many small matrix products: on a busy machine the threads of a product wait for each other
_one_blas_thread = threadpool_limits.wrap(limits=1, user_api="blas")


@dataclass(frozen=True, eq=False)
class PixelTable:
    """Pixels as the baselines see them."""

    spectra: NDArray[np.floating]  # (N, C), standardised
    context: NDArray[np.floating]  # (N, C), mean of the standardised spectra over the receptive field
    classes: NDArray[np.integer]  # (N,) class indices

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, rows: NDArray[np.integer]) -> PixelTable:
        return PixelTable(self.spectra[rows], self.context[rows], self.classes[rows])


@dataclass(frozen=True)
class Baseline:
    """One classifier, fitted and applied."""

    name: str  # one of BASELINES
    classes: NDArray[np.int64]  # (T,) predicted class indices of the test pixels
    setting: dict[str, Any]  # what the validation pixels chose
    seconds: float  # to choose, fit and apply


def fit_baselines(
    train: PixelTable,
    val: PixelTable,
    test: PixelTable,
    *,
    noise: NDArray[np.floating],
    names: Sequence[str] = tuple(BASELINES),
    seed: int = 0,
) -> Iterator[Baseline]:
    """Fits classifiers on the training pixels, with settings chosen on validation pixels.

    Without validation pixels, settings are chosen on folds of the training pixels. The discriminant needs more training
    pixels than classes, and is otherwise left out.

    Args:
        train: training pixels, of which at most 20,000 are used, in proportion to the classes, and 5,000 by support
            vector machines.
        val: validation pixels; may be empty.
        test: test pixels, of which only the spectra are used.
        noise: (P, C) standardised differences between neighbouring training pixels, for the MNF components.
        names: of :data:`BASELINES`.
        seed: of folds, draws and trees.
    """
    for name in names:
        if name == "lda" and len(train) == len(np.unique(train.classes)):
            continue
        start = time.perf_counter()
        most = _MOST_OF_SVM if name.startswith("svm") else _MOST
        shown = train[_thinned(train.classes, most=most, seed=seed)]
        features = _features(name, shown, noise)
        estimator, grid = _estimator(name, seed)
        with _isolated_warnings() if name == "forest" else nullcontext():
            pixels = features(shown), shown.classes, features(val), val.classes
            setting = _fit_chosen(estimator, grid, *pixels, seed=seed)
            classes = estimator.predict(features(test))
        yield Baseline(name, classes, setting, time.perf_counter() - start)


@contextmanager
def _isolated_warnings() -> Iterator[None]:
    """Keeps the warning filters, which threads of scikit-learn 1.9 clear for the whole process, with a warning."""
    with warnings.catch_warnings(record=True):
        warnings.resetwarnings()
        warnings.simplefilter("ignore")
        yield


def _thinned(classes: NDArray[np.integer], *, most: int, seed: int) -> NDArray[np.int64]:
    """At most ``most`` of the pixels (N,), in proportion to the classes, at least one per class, ascending."""
    if len(classes) <= most:
        return np.arange(len(classes))
    rng = np.random.default_rng([seed, 6])
    groups = [rng.permutation(np.flatnonzero(classes == k)) for k in np.unique(classes)]
    return np.sort(np.concatenate([rows[: max(1, rows.size * most // len(classes))] for rows in groups]))


@_one_blas_thread
def linear_classifier(
    train: tuple[NDArray[np.floating], NDArray[np.integer]],
    val: tuple[NDArray[np.floating], NDArray[np.integer]],
    *,
    num_classes: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Multinomial logistic regression: weight (K, C) and bias (K,) of the logits, calibrated by a temperature.

    From spectra (N, C) and classes (N,) of training and validation pixels. The penalty is the one with the highest
    likelihood on validation pixels. Classes without training pixels get a bias of -20.
    """
    model = LogisticRegression(max_iter=100, warm_start=True)
    best = (-np.inf, np.zeros((num_classes, train[0].shape[1])), np.zeros(num_classes))
    drawn = _thinned(train[1], most=_MOST, seed=0)
    for penalty in _PENALTIES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # after 100 steps it is near enough
            model.set_params(C=penalty).fit(train[0][drawn], train[1][drawn])
        rows, intercepts = np.asarray(model.coef_), np.asarray(model.intercept_)
        if len(rows) == 1:  # of two classes scikit-learn keeps one row
            rows, intercepts = np.outer([-0.5, 0.5], rows[0]), np.outer([-0.5, 0.5], intercepts)[:, 0]
        weight, bias = np.zeros_like(best[1]), np.full(num_classes, -20.0)
        weight[model.classes_], bias[model.classes_] = rows, intercepts
        softness = temperature(val[0] @ weight.T + bias, val[1])
        weight, bias = weight / softness, bias / softness
        best = max(best, (log_likelihood(val[0] @ weight.T + bias, val[1]), weight, bias), key=lambda tried: tried[0])
    return best[1], best[2]


def temperature(logits: NDArray[np.floating], classes: NDArray[np.integer]) -> float:
    """The divisor of logits (N, K) that maximises the likelihood of the classes (N,): Guo et al. 2017."""
    return min(np.geomspace(0.25, 4, 33).tolist(), key=lambda t: -log_likelihood(logits / t, classes))


def network_share(
    network: NDArray[np.floating], linear: NDArray[np.floating], classes: NDArray[np.integer]
) -> tuple[float, NDArray[np.float64]]:
    """The share w that maximises the likelihood of the classes (N,) under w and 1 - w times two log-probabilities.

    Returned with the log-likelihoods (N,) that it gives.
    """
    network, linear = log_softmax(network, 1), log_softmax(linear, 1)
    scores = {w: log_likelihoods(w * network + (1 - w) * linear, classes) for w in np.linspace(0, 1, 21).tolist()}
    return max(scores.items(), key=lambda item: item[1].mean())


def log_likelihood(logits: NDArray[np.floating], classes: NDArray[np.integer]) -> float:
    """Mean logarithm of the probability of the classes (N,) by logits (N, K)."""
    return float(log_likelihoods(logits, classes).mean())


def log_likelihoods(logits: NDArray[np.floating], classes: NDArray[np.integer]) -> NDArray[np.float64]:
    """Logarithm of the probability of each of the classes (N,) by logits (N, K)."""
    return log_softmax(logits.astype(np.float64), 1)[np.arange(len(classes)), classes]


def paired_difference(
    right: NDArray[np.bool_], other: NDArray[np.bool_], units: NDArray[np.integer]
) -> tuple[float, float, float]:
    """Difference of two overall accuracies on the same pixels, with a 95 % interval over fields or blocks of pixels.

    Pixels of a unit tend to be right or wrong together: the standard error is that of a ratio of sums over units, with
    the t quantile for their number. With a single unit the interval is -1 to 1.

    Args:
        right: (T,) whether the first is right.
        other: (T,) whether the second is right.
        units: (T,) number of the field or block that each pixel lies in.

    Returns:
        first minus second, and the ends of the interval
    """
    gain = right.astype(float) - other
    _, unit = np.unique(units, return_inverse=True)
    sums, counts = np.bincount(unit, gain), np.bincount(unit)
    mean, number = float(gain.mean()), len(counts)
    if number < 2:
        return mean, -1.0, 1.0
    error = np.sqrt(number / (number - 1) * np.square(sums - mean * counts).sum()) / counts.sum()
    half = float(student_t.ppf(0.975, number - 1) * error)
    return mean, max(mean - half, -1.0), min(mean + half, 1.0)


def paired_interval(differences: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Mean of paired differences, one per split, and the ends of its 95 % t-interval; None for these with one split."""
    mean = float(np.mean(differences))
    if len(differences) < 2:
        return mean, None, None
    half = float(student_t.ppf(0.975, len(differences) - 1) * np.std(differences, ddof=1) / len(differences) ** 0.5)
    return mean, mean - half, mean + half


def _estimator(name: str, seed: int) -> tuple[Any, dict[str, list[Any]]]:
    if name == "lda":
        return LinearDiscriminantAnalysis(solver="lsqr"), {"shrinkage": ["auto", 0.01, 0.1]}
    if name == "logistic":
        return LogisticRegression(max_iter=500), {"C": list(_PENALTIES)}
    if name == "forest":
        return RandomForestClassifier(300, n_jobs=-1, random_state=seed), {}
    return SVC(), _SVM_GRID


def _features(
    name: str, train: PixelTable, noise: NDArray[np.floating]
) -> Callable[[PixelTable], NDArray[np.floating]]:
    """What a classifier sees of pixels, from statistics of the training pixels."""
    if name == "svm_context":
        return lambda table: np.hstack([table.spectra, table.context])
    if name != "svm_mnf":
        return lambda table: table.spectra
    axes = noise_components(train.spectra, noise)[:, :_COMPONENTS]
    axes /= (train.spectra @ axes).std() + 1e-12  # in units of the noise: components with little signal count little
    return lambda table: np.hstack([table.spectra @ axes, table.context @ axes])


def noise_components(spectra: NDArray[np.floating], noise: NDArray[np.floating]) -> NDArray[np.float64]:
    """Minimum noise fraction: axes (C, C) in order of signal-to-noise ratio, the highest first.

    Solves ``S v = lambda N v`` for the covariance S of spectra (N, C) and N of the noise, which is half that of the
    differences between neighbours (P, C), with a thousandth of its mean variance added to the diagonal (Green et al.
    1988, doi:10.1109/36.3001). Without neighbours these are principal components.
    """
    covariance = np.atleast_2d(np.cov(noise.T)) / 2 if len(noise) > 1 else np.eye(spectra.shape[1])
    ridge = 1e-3 * np.trace(covariance) / len(covariance)
    return eigh(np.atleast_2d(np.cov(spectra.T)), covariance + (ridge + 1e-12) * np.eye(len(covariance)))[1][:, ::-1]


@_one_blas_thread
def _fit_chosen(
    estimator: Any,
    grid: dict[str, list[Any]],
    x: NDArray[np.floating],
    y: NDArray[np.integer],
    x_val: NDArray[np.floating],
    y_val: NDArray[np.integer],
    *,
    seed: int,
) -> dict[str, Any]:
    """Fits with the setting of a grid that is most accurate on validation pixels, or on folds of training pixels."""
    folds = PredefinedSplit(np.r_[np.full(len(y), -1), np.zeros(len(y_val), int)])
    if not len(y_val):
        counts = np.bincount(y)[np.unique(y)].tolist()
        folds = StratifiedKFold(max(2, min(3, *counts)), shuffle=True, random_state=seed)
        grid = grid if max(counts) > 1 else {}  # of single pixels there are no folds
    search = GridSearchCV(estimator, grid, cv=folds, refit=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes of a pixel; and after 500 steps it is near enough
        setting = search.fit(np.vstack([x, x_val]), np.r_[y, y_val]).best_params_ if grid else {}
        estimator.set_params(**setting).fit(x, y)
    return setting
