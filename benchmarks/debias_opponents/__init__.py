"""Other ways to debias the same classifier, with the same data: what they cost and what they bring.

    python -m benchmarks.debias_opponents --data-root DIR

Each opponent sees what rledit sees: the training comments, and the reward split with its labels and groups.
All settings of a grid are tried, each at full strength and mixed with the unedited classifier in tenths (for
networks their weights, M. Wortsman et al., arXiv:2109.01903; else their answers), which is how rledit's edits
are shrunk. The validation split picks as it does for rledit: the best objective among those that stay within
half of the budget, or the best at all if none does. The front shows the mean test figures of every setting:
there opponents may even choose by the test split.

last layer        the last layer fine-tuned on the reward split, the only baseline of Malik 2026
counterfactuals   fine-tuning on training comments, and on copies in which identity terms are swapped for
others;
                  with "more data" on the reward split as well
reweighing        fine-tuning on the reward split with every group and label equally heavy (F. Kamiran and
                  T. Calders, KAIS 2012)
thresholds        fairlearn's ThresholdOptimizer on the classifier's scores, four constraints; its answers are
                  drawn by chance, so that its AUCs are those of their probabilities
LEACE             identity groups erased from the first layer's features (N. Belrose et al., arXiv:2306.03819)
rledit            the command's default settings: the best layers of a short try of each set
rledit, gradients the same, searched by gradients
rledit, fc2       that layer alone, also with other budgets
"""
