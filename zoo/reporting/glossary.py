"""What the words of a report mean: in its glossary, and in the tooltips of columns that bear their names."""

__all__ = ["MEANINGS", "WORDS"]

NAT = (
    "The unit of natural logarithms. A pair that scores 1 nat a row more than another makes every held-out row "
    "2.7 times as probable, on average."
)

WORDS = {
    "held-out log-likelihood": (
        "The logarithm of the probability that a pair gives a row it was not trained on, averaged over such "
        "rows: higher is better. It is also called log evidence."
    ),
    "nat": NAT,
    "probability and density": (
        "Values recorded in steps (counts, grey levels, two decimals) are scored by their own probability, "
        "log mass, which can never exceed 0. Other numbers have a density, which can. The two cannot be "
        "compared."
    ),
    "±": "One standard error. Of a difference it counts both the rows and the seeds.",
    "seed": "A pair is trained several times from different random numbers, its seeds. Their mean is scored.",
    "ill-posed": (
        "A likelihood without an upper bound: training gains for ever by letting a variance shrink towards zero."
    ),
    "ran away": (
        "A decoder scale shrank without end while the pair was trained. Its score depends on when training stopped."
    ),
    "undertrained": "Validation was still improving when training ended.",
    "ELBO": "What training maximises: a lower bound on the log-likelihood.",
    "Pareto k": (
        "Tells whether importance sampling can be trusted for a row. Above 0.7 it cannot, and annealed "
        "importance sampling scores the row instead."
    ),
    "stacking": "The mixture of pairs that predicts the held-out rows best, and the share of each pair in it.",
}

MEANINGS = {
    "held-out log-likelihood": f"{WORDS['held-out log-likelihood']} In nats a row, ± one standard error over rows.",
    "behind the best": (
        "Difference to the best pair of the table in nats a row, row by row, ± one standard error over rows "
        "and, after it, over seeds."
    ),
    "verdict": "How the pair compares with the best, and what has to be known of its score.",
    "share in the best mixture": f"{WORDS['stacking']} ± one standard error, by bootstrap over rows.",
    "bits per dimension": "Minus the log-likelihood in bits, divided by the number of columns: lower is better.",
    "median row": "Log-likelihood of the median held-out row.",
    "worst row": "Log-likelihood of the worst held-out row.",
    "worst seed": "Mean log-likelihood of the worst seed.",
    "spread over seeds": "Standard deviation over seeds of their means; after it, that of a single row.",
    "from constant columns": "How much of the log-likelihood comes from columns that are constant in training.",
    "rows beyond importance sampling": WORDS["Pareto k"],
    "seeds scored": "Of all that were trained. A seed that met a loss that is not finite is not scored.",
    "scored as": "Which kind of number is ranked, and whether it is exact or a lower bound.",
    "log density": (
        "What the pair itself is trained on, where its probabilities of the values are ranked. It ranks nothing."
    ),
}
