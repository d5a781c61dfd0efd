"""How well scores find spoiled rows, and costs the spoiled columns, compared with scikit-learn.

python scripts/odd_rows.py

Rows of the test part of the digits, each once as it is and once with 4 of its 64 pixels inverted; all methods are
trained on the same training part.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture

import zoo

ROWS, PIXELS, WHITE = 200, 4, 16.0


def spoil(rows: NDArray[np.float64], rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """The rows with some pixels inverted, and which of each, (rows, PIXELS)."""
    which = np.argsort(rng.random(rows.shape), axis=1)[:, :PIXELS]
    spoiled = rows.copy()
    np.put_along_axis(spoiled, which, WHITE - np.take_along_axis(rows, which, 1), 1)
    return spoiled, which


def main() -> None:
    """Train, score, and print the area under the ROC curve of each method."""
    data = zoo.load_data("digits")
    train, sound = np.asarray(data.train), np.asarray(data.test)[:ROWS]
    spoiled, which = spoil(sound, np.random.default_rng(0))
    rows, odd = np.concatenate([sound, spoiled]), np.arange(2 * ROWS) >= ROWS
    run = zoo.fit(zoo.create("gaussian-constrained", data), data, seeds=2, progress=False)
    scores = run.score(rows, columns=PIXELS)
    print(f"gaussian-constrained          AUC {roc_auc_score(odd, -scores['log_evidence']):.3f}")
    for components in (1, 10):
        mixture = GaussianMixture(components, reg_covar=0.1, random_state=0).fit(train)
        print(f"GaussianMixture({components:2d})           AUC {roc_auc_score(odd, -mixture.score_samples(rows)):.3f}")
    forest = IsolationForest(random_state=0).fit(train)
    print(f"IsolationForest               AUC {roc_auc_score(odd, -forest.score_samples(rows)):.3f}")
    names = np.array([column.name for column in data.columns])
    named = scores[[f"column_{place + 1}" for place in range(PIXELS)]].to_numpy()[odd]
    hit = (named[:, :, None] == names[which][:, None, :]).any(2)
    first, every = hit[:, 0].mean(), hit.mean()
    print(f"inverted pixels are {first:.1%} of the columns named first, and {every:.1%} of the {PIXELS} named")


if __name__ == "__main__":
    main()
