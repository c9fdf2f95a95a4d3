"""Scaled low precision, one idea a module: blocks and their scales, products, and linear layers.

Read :mod:`slingshot.quant.blocks` first, then :mod:`slingshot.quant.matmul`, then
:mod:`slingshot.quant.linear`. All public names can be imported from here.
"""

from slingshot.quant.blocks import (
    INT4,
    INT8,
    MXFP4,
    MXFP8,
    NVFP4,
    AffineQuantized,
    Block,
    Format,
    IntFormat,
    Quantized,
    Rule,
    Scale,
    Setting,
    quantize,
    quantize_affine,
)
from slingshot.quant.linear import (
    FP8Linear,
    Fp8Recipe,
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

__all__ = [
    "INT4",
    "INT8",
    "MXFP4",
    "MXFP8",
    "NVFP4",
    "AffineQuantized",
    "Block",
    "FP8Linear",
    "Format",
    "Fp8Recipe",
    "Int8Linear",
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
    "quantize_affine",
    "replace_linears",
    "rotate",
    "smooth",
]
