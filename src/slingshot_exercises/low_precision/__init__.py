"""Checks of the assignment on low precision: spacing, rounding, scales, and two matrix products.

Single numbers are Python floats, so that a failure shows all their digits; many of them lie at an
edge on purpose. Matrices are NumPy arrays of few digits. Whatever is rounded by a learner to E4M3
is drawn so that no quotient lies close to a tie: an error of float64 cannot move it to another
value.
"""

from collections.abc import Callable

from slingshot.formats import E4M3
from slingshot_exercises.checking import Exercise
from slingshot_exercises.low_precision.fp8_product import (
    FP8_PRODUCT,
    check_fp8_product,
)
from slingshot_exercises.low_precision.int8_product import (
    INT8_PRODUCT,
    INT8_PRODUCT_OF_INTEGERS,
    check_int8_product,
)
from slingshot_exercises.low_precision.quantize import (
    QUANTIZE_SCALES,
    QUANTIZE_VALUES,
    check_quantize,
)
from slingshot_exercises.low_precision.round_to import (
    ROUND_TO,
    check_round_to,
)
from slingshot_exercises.low_precision.scale_exponent import (
    SCALE_EXPONENT,
    check_scale_exponent,
)
from slingshot_exercises.low_precision.spacing import SPACING, check_spacing

CHECKS: dict[str, Callable[..., str]] = {
    "spacing": check_spacing,
    "round_to": check_round_to,
    "quantize": check_quantize,
    "scale_exponent": check_scale_exponent,
    "int8_product": check_int8_product,
    "fp8_product": check_fp8_product,
}
"""The exercises of the assignment in their order, each with its check."""

EXERCISES: tuple[Exercise, ...] = (
    SPACING,
    ROUND_TO,
    QUANTIZE_SCALES,
    QUANTIZE_VALUES,
    SCALE_EXPONENT,
    INT8_PRODUCT,
    INT8_PRODUCT_OF_INTEGERS,
    FP8_PRODUCT,
)
"""The parts of the checks in the order in which they are tried; some exercises have several."""

__all__ = [
    "CHECKS",
    "E4M3",
    "EXERCISES",
    "check_fp8_product",
    "check_int8_product",
    "check_quantize",
    "check_round_to",
    "check_scale_exponent",
    "check_spacing",
]
