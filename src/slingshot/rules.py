"""The two United States export rules on chips, as arithmetic.

What a chip computes, how dense it is, and, in the first rule, how fast its link is, compared with
the thresholds in ``facts``. An argument that cannot be meant raises ``ValueError``.
"""

from dataclasses import dataclass

from slingshot import facts, require


@dataclass(frozen=True)
class Verdict:
    """What the arithmetic of a rule says of a chip; ``paragraph`` is empty when it is free."""

    controlled: bool
    paragraph: str
    reason: str


@require.python_numbers()
def total_processing_performance(tops: float, bits: float) -> float:
    """Return the TPP: dense tera-operations per second times the bit length of the operation.

    A multiplication with addition counts as two. A chip's TPP is the largest over its precisions.
    """
    require.positive(tops=tops, bits=bits)
    return tops * bits


@require.python_numbers()
def performance_density(tpp: float, die_mm2: float) -> float:
    """Return TPP per square millimeter of die."""
    require.positive(tpp=tpp, die_mm2=die_mm2)
    return tpp / die_mm2


@require.python_numbers()
def rule_2022(tpp: float, interconnect_gb_per_s: float) -> Verdict:
    """Apply the thresholds of 2022-10-07 (ECCN 3A090): fast arithmetic and a fast link, both.

    ``interconnect_gb_per_s`` is the sum over all inputs and outputs but those to volatile memory,
    both directions together, in GB/s, 0 for none: NVLink and PCIe both count. Thresholds come from
    ``facts``. This is the arithmetic only: the rule has definitions and exceptions beyond it, and
    is not law any more. Source: Federal Register, document 2022-21658, ECCN 3A090.
    """
    require.positive(tpp=tpp)
    require.not_negative(interconnect_gb_per_s=interconnect_gb_per_s)
    least_tpp = facts.value("rule.2022.performance")
    least_link = facts.value("rule.2022.transfer_rate") / 1e9
    parts = [_compare("TPP", tpp, least_tpp), _compare("GB/s", interconnect_gb_per_s, least_link)]
    if tpp >= least_tpp and interconnect_gb_per_s >= least_link:
        return Verdict(True, "3A090", f"{parts[0]} and {parts[1]}")
    missed = [part for part in parts if "below" in part]
    return Verdict(False, "", f"{' and '.join(missed)}; the rule asks for both")


@require.python_numbers()
def rule_2023(tpp: float, performance_density: float) -> Verdict:
    """Apply the thresholds of 2023-10-17 (ECCN 3A090.a and b): arithmetic alone or with density.

    The link no longer counts. Thresholds come from ``facts``; the density of the second branch of
    paragraph b is only reported there. This is the arithmetic only: the real rule treats chips that
    are not designed or marketed for data centers differently, and paragraph b has a license
    exception with notice.
    """
    require.positive(tpp=tpp, performance_density=performance_density)
    for paragraph, tpp_key, density_key in (
        ("3A090.a", "performance", None),
        ("3A090.a", "performance_with_density", "density"),
        ("3A090.b", "b.performance", "b.density"),
        ("3A090.b", "performance_with_density", "b.density_second"),
    ):
        least_tpp = facts.value(f"rule.2023.{tpp_key}")
        least_density = facts.value(f"rule.2023.{density_key}") if density_key else 0.0
        if tpp >= least_tpp and performance_density >= least_density:
            reason = _compare("TPP", tpp, least_tpp)
            if density_key:
                reason += f" and {_compare('TPP/mm²', performance_density, least_density)}"
            return Verdict(True, paragraph, reason)
    reason = f"{tpp:,.4g} TPP with {performance_density:.3g} TPP/mm² meets no pair of thresholds"
    return Verdict(False, "", reason)


def _compare(unit: str, value: float, threshold: float) -> str:
    relation = "reaches" if value >= threshold else "is below"
    return f"{value:,.10g} {unit} {relation} {threshold:,.10g}"
