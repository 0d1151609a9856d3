"""The terms of a debiasing report, explained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...objectives.metric_names import label

_POWER_MEAN = "Over groups: the power mean with exponent -5, which the worst groups dominate."
_BORKAN = "Borkan et al. 2019, arXiv:1903.04561."

TERMS: Mapping[str, str] = {
    "utility_accuracy": "Share of the ordinary comments that the classifier gets right.",
    "utility_auc": "Probability that a toxic comment scores above a harmless one, among ordinary comments.",
    "utility_f1": "Harmonic mean of precision and recall of toxic, on the ordinary comments.",
    "utility_precision": "Share of what is called toxic that is, among the ordinary comments.",
    "utility_recall": "Share of the toxic ordinary comments that is called so.",
    "false_positive_rate": "Share of the harmless sentences of the bias set that is called toxic.",
    "false_negative_rate": "Share of the toxic sentences of the bias set that is called harmless.",
    "bias_accuracy": "How often the classifier is right on the bias set as a whole.",
    "bias_f1": "Harmonic mean of precision and recall of toxic, on the bias set as a whole.",
    "bias_precision": "Share of what is called toxic that is, on the bias set as a whole.",
    "bias_recall": "Share of the toxic sentences that is called so, on the bias set as a whole.",
    "bias_auc": "Probability that a toxic sentence scores above a harmless one, on the bias set as a whole.",
    "bpsn_auc": (
        "Background positive, subgroup negative: the probability that a toxic sentence about others scores "
        "above a harmless one about the group. Low where harmless mentions of the group are taken for toxic. "
        f"{_POWER_MEAN} {_BORKAN}"
    ),
    "bnsp_auc": (
        "Background negative, subgroup positive: the probability that a toxic sentence about the group "
        f"scores above a harmless one about others. {_POWER_MEAN} {_BORKAN}"
    ),
    "subgroup_auc": (
        "Probability that a toxic sentence about the group scores above a harmless one about the same group. "
        f"{_POWER_MEAN} {_BORKAN}"
    ),
    "fped": (
        "False positive equality difference: the sum over groups of how far a group's false positive rate is "
        "from that of all. Dixon et al. 2018, AIES."
    ),
    "fned": (
        "False negative equality difference: the sum over groups of how far a group's false negative rate is "
        "from that of all. Dixon et al. 2018, AIES."
    ),
    "demographic_parity_difference": "Largest less smallest share of a group that is called toxic.",
    "equalized_odds_difference": (
        "The larger of two spreads between groups: of false positive rates and of true positive rates."
    ),
    "accuracy": "Share of the group's sentences that the classifier gets right.",
    "f1": "Harmonic mean of precision and recall of toxic, on the group's sentences.",
    "precision": "Share of the group's sentences called toxic that is.",
    "recall": "Share of the group's toxic sentences that is called so.",
    "log_odds": "Logit of toxic less logit of harmless; above zero the classifier calls the text toxic.",
}
"""By key of the metric."""


def explained(keys: Iterable[str]) -> list[tuple[str, str]]:
    """Label and explanation of the keys that have one, each once, by label."""
    found = {label(key): TERMS[key] for key in keys if key in TERMS}
    return sorted(found.items(), key=lambda pair: pair[0].lower())
