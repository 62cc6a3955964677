"""Per-pixel classifiers that every network has to beat: RBF support vector machine and random forest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV, PredefinedSplit, StratifiedKFold
from sklearn.svm import SVC

_GRID = {"C": [10.0, 100.0, 1000.0], "gamma": ["scale", 1e-3]}


def svm_predictions(
    train: tuple[NDArray, NDArray], val: tuple[NDArray, NDArray], test: NDArray[np.floating], *, seed: int
) -> NDArray[np.int64]:
    """Classes of an RBF SVM trained on the training pixels, C and gamma chosen by the validation pixels.

    Where there are none, three folds of the training pixels choose.

    Args:
        train: standardised spectra (N, C) and class indices (N,).
        val: the same of the validation pixels; may be empty.
        test: standardised spectra (T, C).
        seed: of the folds.

    Returns:
        (T,) class indices
    """
    x, y = train
    if len(val[1]):
        folds = PredefinedSplit(np.r_[np.full(len(y), -1), np.zeros(len(val[1]), int)])
        search = GridSearchCV(SVC(), _GRID, cv=folds, refit=False).fit(np.r_[x, val[0]], np.r_[y, val[1]])
    else:
        smallest = int(np.bincount(y)[np.unique(y)].min())
        folds = StratifiedKFold(max(2, min(3, smallest)), shuffle=True, random_state=seed)
        search = GridSearchCV(SVC(), _GRID, cv=folds, refit=False).fit(x, y)
    return SVC(**search.best_params_).fit(x, y).predict(test)


def forest_predictions(train: tuple[NDArray, NDArray], test: NDArray[np.floating], *, seed: int) -> NDArray[np.int64]:
    """Classes of a random forest of 500 trees.

    Args:
        train: standardised spectra (N, C) and class indices (N,).
        test: standardised spectra (T, C).
        seed: of the trees.

    Returns:
        (T,) class indices
    """
    return RandomForestClassifier(500, n_jobs=-1, random_state=seed).fit(*train).predict(test)
