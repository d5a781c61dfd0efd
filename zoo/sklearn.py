"""A pair as a scikit-learn estimator, for pipelines, grid searches and comparison with its other densities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

import zoo
from zoo.dataframes import is_frame, same_kind
from zoo.errors import OptionError
from zoo.options import count, share
from zoo.runs import Run
from zoo.scoring import log_evidence
from zoo.supports import MIXED

__all__ = ["ZooDensity"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

LEAST_ROWS = 3  # one for each part


class ZooDensity(DensityMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    r"""A density estimator and transformer to latents: a pair of the zoo, fitted for several seeds.

    .. math:: \log p(x) = \log \tfrac{1}{S} \sum_s p_s(x)

    in nats per datum and in the units of X, exact for mixtures and linear models, otherwise a lower bound in
    expectation. NaN is a missing entry. A data frame of pandas or polars may hold words if the pair takes them, as
    ``"mixed"`` does.

    Args:
        pair: a name in the catalogue, optionally with options: ``"gaussian-constrained[floor=0.01]"``.
        options: options of the pair, by name.
        seeds: S, how many are trained at once.
        steps: gradient steps, or "auto": until validation stops improving.
        batch_size: rows per step.
        learning_rate: Adam's step size; None takes the card's.
        samples: importance draws per row; mixtures and linear models need none.
        validation_fraction: share of the rows held out of training to choose the best weights.
        contamination: share of the training rows that :meth:`predict` calls odd.
        random_state: the first seed; also decides which rows are held out.

    Attributes:
        run_: the :class:`zoo.Run`; ``run_.score`` says which columns make a row odd.
        offset_: what :meth:`decision_function` subtracts from the scores.
        n_features_in_: the number of columns.
        feature_names_in_: their names, if X is a data frame.

    >>> from sklearn.datasets import load_wine
    >>> density = ZooDensity("gmm-constrained[components=3]", steps=100, random_state=0).fit(load_wine().data)
    >>> density.score_samples(load_wine().data).shape, density.transform(load_wine().data).shape
    ((178,), (178, 3))
    """

    def __init__(
        self,
        pair: str = "gaussian-constrained",
        *,
        options: Mapping[str, Any] | None = None,
        seeds: int = 1,
        steps: int | str = 2000,
        batch_size: int = 128,
        learning_rate: float | None = None,
        samples: int = 1000,
        validation_fraction: float = 0.1,
        contamination: float = 0.1,
        random_state: Any = None,
    ) -> None:
        self.pair = pair
        self.options = options
        self.seeds = seeds
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.samples = samples
        self.validation_fraction = validation_fraction
        self.contamination = contamination
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> ZooDensity:  # noqa: ARG002
        """Train the pair on X, (N, D); y is ignored.

        Raises:
            ValueError: X is not a table of at least three rows, or the pair does not model it (:class:`zoo.errors`).
        """
        X = self._checked(X, reset=True)
        held_out, contamination = (
            share("validation_fraction", self.validation_fraction),
            share("contamination", self.contamination),
        )
        random = check_random_state(self.random_state)
        order = random.permutation(len(X))
        parts = np.full(len(X), "train", dtype="<U10")
        parts[order[1 : 1 + max(1, min(round(held_out * len(X)), len(X) - 2))]] = "validation"
        parts[order[0]] = "test"  # unused here, but the zoo needs a test row
        support = zoo.card(self.pair).support
        data = zoo.load_data(X, split=parts.tolist(), support="auto" if support == MIXED else support)
        first = int(random.randint(2**31 - 1))
        self.run_: Run = zoo.fit(
            zoo.create(self.pair, data, **self._options()),
            data,
            seeds=[first + row for row in range(count("seeds", self.seeds))],
            steps=self.steps,  # type: ignore[arg-type]
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            progress=False,
        )
        scores = log_evidence(self.run_, X, self.samples)
        self.offset_ = float(np.quantile(scores, contamination))
        self._like = X[:0] if is_frame(X) else None
        self._latents = [*self.run_.embed(data.train.values[:1]).columns]
        return self

    def score_samples(self, X: Any) -> Array:
        """Log evidence of each row, (N,), in nats."""
        return log_evidence(self._fitted(), self._checked(X), self.samples)

    def score(self, X: Any, y: Any = None) -> float:  # noqa: ARG002
        """The mean of :meth:`score_samples`, in nats per datum, which a grid search maximises."""
        return float(self.score_samples(X).mean())

    def decision_function(self, X: Any) -> Array:
        """:meth:`score_samples` minus ``offset_``, (N,): negative for odd rows."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> Array:
        """-1 for odd rows, 1 for others, (N,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def transform(self, X: Any) -> Array:
        """Posterior means of the latents by the best seed, (N, L); for a mixture, probabilities of its components."""
        return np.asarray(self._fitted().embed(self._checked(X)), dtype=np.float64)

    def inverse_transform(self, X: Any) -> Array:
        """Means of p(x | z) for latents X, (N, L): (N, D), in the units of the fitted data; NaN in columns of words."""
        return self._fitted().decode(check_array(X))

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Any:
        """New rows, (n_samples, D); a data frame of the same library if one with named columns was fitted."""
        run = self._fitted()
        frame = run.sample_frame(n_samples, seed=int(check_random_state(random_state).randint(2**31 - 1)))
        return same_kind(frame, self._like) if hasattr(self, "feature_names_in_") else frame.to_numpy(dtype=np.float64)

    def get_feature_names_out(self, input_features: Any = None) -> Array:  # noqa: ARG002
        """The names of the latents: z0, z1, and so on."""
        self._fitted()
        return np.array(self._latents, dtype=object)

    def _options(self) -> Mapping[str, Any]:
        if self.options is not None and not isinstance(self.options, Mapping):
            raise OptionError(f"options={self.options!r}: give them by name, as in {{'latent_dim': 4}}.")
        return self.options or {}

    def _fitted(self) -> Run:
        check_is_fitted(self)
        return self.run_

    def _checked(self, X: Any, *, reset: bool = False) -> Any:
        """X if it is a table of the fitted columns; a data frame is passed on to the zoo."""
        if not reset:
            self._fitted()
        least = LEAST_ROWS if reset else 1
        if is_frame(X) and len(X) >= least:
            validate_data(self, X, reset=reset, skip_check_array=True)
            return X
        return validate_data(
            self, X, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_samples=least
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
