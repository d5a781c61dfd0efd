"""What the words of a report mean, for its glossary and for the tooltips of table columns."""

__all__ = ["MEANINGS", "WORDS"]

NAT = (
    "The unit of natural logarithms. A pair that scores 1 nat a row more than another makes held-out rows "
    "2.7 times as probable, on (geometric) average."
)

WORDS = {
    "held-out log-likelihood": (
        "The logarithm of the probability that a pair gives a row it was not trained on, averaged over such "
        "rows: higher is better. It is also called log evidence."
    ),
    "nat": NAT,
    "probability and density": (
        "Values recorded in steps (counts, grey levels, two decimals) are scored by their probability; its "
        "logarithm, the log mass, never exceeds 0. Other numbers have a density, whose log can. The two cannot be "
        "compared."
    ),
    "±": "One standard error. For a difference it covers both the rows and the seeds.",
    "seed": "A pair is trained several times from different random numbers, its seeds. Its score is their mean.",
    "ill-posed": (
        "A likelihood without an upper bound: training can gain for ever by shrinking a variance towards zero."
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
    "verdict": "How the pair compares with the best, and what to know about its score.",
    "share in the best mixture": f"{WORDS['stacking']} ± one standard error, by bootstrap over rows.",
    "bits per dimension": "Minus the log-likelihood in bits, divided by the number of columns: lower is better.",
    "median row": "Log-likelihood of the median held-out row.",
    "worst row": "Log-likelihood of the worst held-out row.",
    "worst seed": "Mean log-likelihood of the worst seed.",
    "spread over seeds": "Standard deviation over seeds of the mean; after it, of a single row's score.",
    "from constant columns": "How much of the log-likelihood comes from columns that are constant in training.",
    "rows beyond importance sampling": WORDS["Pareto k"],
    "seeds scored": "Out of all trained seeds. A seed whose loss became infinite or NaN is not scored.",
    "scored as": "What kind of number is ranked, and whether it is exact or a lower bound.",
    "log density": (
        "The density the pair is trained on, if it is ranked by probability. It plays no part in the ranking."
    ),
}
