"""Scaled low precision, one idea a module: blocks and their scales, products, and linear layers.

Read :mod:`slingshot.quant.blocks` first, then :mod:`slingshot.quant.matmul`,
:mod:`slingshot.quant.outliers`, :mod:`slingshot.quant.linear`, :mod:`slingshot.quant.fp4` and
:mod:`slingshot.quant.weight_only`. What is fast is in rooms of its own, ``rounding``, ``amx``,
``packed`` and ``few_rows``: each is one call that returns the result or ``None``. All public names
can be imported from here.
"""

from slingshot.quant.blocks import (
    INT4,
    INT8,
    MXFP4,
    MXFP8,
    NVFP4,
    Block,
    Format,
    IntFormat,
    Quantized,
    Rule,
    Scale,
    Setting,
    quantize,
)
from slingshot.quant.fp4 import FP4Linear, FP4Recipe
from slingshot.quant.linear import (
    FP8Linear,
    FP8Recipe,
    Int8Linear,
    QuantizedLinear,
    replace_linears,
)
from slingshot.quant.matmul import (
    accumulate,
    block_scaled_matmul,
    int8_matmul,
)
from slingshot.quant.outliers import llm_int8_matmul, rotate, smooth
from slingshot.quant.weight_only import Int4WeightOnlyLinear, Int8WeightOnlyLinear

__all__ = [
    "INT4",
    "INT8",
    "MXFP4",
    "MXFP8",
    "NVFP4",
    "Block",
    "FP4Linear",
    "FP4Recipe",
    "FP8Linear",
    "FP8Recipe",
    "Format",
    "Int4WeightOnlyLinear",
    "Int8Linear",
    "Int8WeightOnlyLinear",
    "IntFormat",
    "Quantized",
    "QuantizedLinear",
    "Rule",
    "Scale",
    "Setting",
    "accumulate",
    "block_scaled_matmul",
    "int8_matmul",
    "llm_int8_matmul",
    "quantize",
    "replace_linears",
    "rotate",
    "smooth",
]
