"""Operators that have no coupling rule on purpose, and what a user is told about them.

Every operator of ai.onnx and com.microsoft has a rule or stands here; ``tests/conformance`` compares both
with the schemas of onnx and onnxruntime.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphprune.registry import DEFAULT_DOMAIN, normal_domain
from graphprune.rules.registry import RULES

_CONTRIB = "com.microsoft"
_SEQUENCE = "its tensors are packed in a sequence or an optional, in which no axis is followed"
_TEXT = "it computes with text"
_RANDOM = "it draws random numbers, which a cut would shift"
_TABLE = "its result is a table counted by position"
_LOSS = "it is a loss of training, with class numbers as data"
_BOXES = "it picks boxes by their values at run time"
_SAMPLING = "positions are computed from sizes and coordinates along these axes"
_TRAINING = "it belongs to training"
_DECODING = "it runs a whole decoding loop over models of its own"
_LAYOUT = "its weights are packed in a layout of one device"
_STATE = "it carries a state from step to step in a layout of its own"
_SPARSE = "its keys are chosen at run time from blocks of a cache"
_DEVICE = "onnxruntime's optimizer makes it for one device; prune the model before that step"
_OLD = "it is an older double of an operator of ai.onnx; export the model with that one"
_HASH = "its result are hashes or table rows picked by values"

_BY_REASON: dict[tuple[str, str], tuple[str, ...]] = {
    (DEFAULT_DOMAIN, _SEQUENCE): (
        "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement", "SequenceAt",
        "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength",
        "SequenceMap", "SplitToSequence",
    ),
    (DEFAULT_DOMAIN, _TEXT): (
        "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer",
    ),
    (DEFAULT_DOMAIN, _RANDOM): ("Bernoulli", "Multinomial", "RandomNormalLike", "RandomUniformLike"),
    (DEFAULT_DOMAIN, _TABLE): ("BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix"),
    (DEFAULT_DOMAIN, _LOSS): ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"),
    (DEFAULT_DOMAIN, _BOXES): ("NonMaxSuppression",),
    (DEFAULT_DOMAIN, _SAMPLING): ("AffineGrid", "MaxUnpool", "STFT"),
    (DEFAULT_DOMAIN, "it reads a compressed image"): ("ImageDecoder",),
    (_CONTRIB, _DECODING): ("BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch"),
    (_CONTRIB, _TRAINING): ("BiasDropout", "BitmaskBiasDropout", "BitmaskDropout", "IsAllFinite"),
    (_CONTRIB, _TEXT): ("Tokenizer", "WordConvEmbedding"),
    (_CONTRIB, _LAYOUT): (
        "DequantizeBFP", "DequantizeWithOrder", "DynamicQuantizeLSTM", "GatherBlockQuantized", "GemmFloat8",
        "MatMulBlockQuantizedFp4Weight", "MatMulBlockQuantizedFp8Weight", "MatMulBnb4", "MatMulFpQ4",
        "MatMulNBitsMlp", "MatMulNBitsQkv", "QEmbedLayerNormalization", "QOrderedAttention", "QOrderedGelu",
        "QOrderedLayerNormalization", "QOrderedLongformerAttention", "QOrderedMatMul", "QuantizeBFP",
        "QuantizeWithOrder",
    ),
    (_CONTRIB, _STATE): (
        "AttnLSTM", "CausalConvWithState", "DecoderAttention", "DecoderMaskedSelfAttention", "GatedDeltaNet",
        "LinearAttention", "LinearAttentionGate", "VarlenCausalConvWithState",
    ),
    (_CONTRIB, _SPARSE): (
        "DynamicSparseAttention", "LongformerAttention", "PackedSparseAttentionIndexer", "PagedAttention",
        "SparseAttention", "SparseAttentionIndexer", "SparsePagedAttention",
    ),
    (_CONTRIB, _DEVICE): (
        "BiasSoftmax", "FusedMatMulActivation", "GatedRelativePositionBias", "GemmaRotaryEmbedding",
        "MRotaryEmbedding", "QLinearReduceMean", "RelativePositionBias", "RemovePadding", "RestorePadding",
    ),
    (_CONTRIB, "it holds a compiled part of the model"): ("EPContext", "Snpe"),
    (_CONTRIB, _OLD): (
        "CDist", "ConvTransposeWithDynamicPads", "CropAndResize", "ExpandDims", "GatherND", "GridSample",
        "Inverse", "Irfft", "MatMulInteger16", "MaxpoolWithMask", "MulInteger", "Pad", "QLinearConv",
        "QLinearWhere", "Range", "ReduceSumInteger", "Rfft", "Trilu", "Unique",
    ),
    (_CONTRIB, _HASH): (
        "BifurcationDetector", "MurmurHash3", "NGramHashMapping", "NGramRepeatBlock", "TorchEmbedding",
        "VarlenNGramHashMapping",
    ),
    (_CONTRIB, "its operands are pairs of numbers, which no rule follows"): ("ComplexMul", "ComplexMulConj"),
    (_CONTRIB, "it mixes streams whose number is fixed"): (
        "BranchwiseRMSNorm", "EngramGate", "HyperConnectionPostMix", "HyperConnectionPreMix",
    ),
    (_CONTRIB, "its weights are packed in blocks of a format of its own"): (
        "GatherPacked", "MatMulNBitsQLoRA", "MatMulPacked", "MoEPacked",
    ),
    (_CONTRIB, "it fuses layers whose widths no rule follows yet"): (
        "HyperConnectionLowRankMix", "MoEGroupRouter", "Mamba2Verify", "RMSNormRotary", "RouterGateUpProj",
        "SwiGLU",
    ),
    (_CONTRIB, "it moves states that are kept between runs"): (
        "ConvStateReplay", "GatedDeltaNetStateReplay", "PackedSparseAttentionIndexerMerge",
        "SpeculativePrefixCommit",
    ),
    (_CONTRIB, "its windows run over this axis"): ("DynamicTimeWarping", "UnfoldTensor"),
    (_CONTRIB, "its operand is a sparse tensor"): ("SparseToDenseMatMul",),
    (_CONTRIB, "it is an example without a use in networks"): ("SampleOp",),
}  # fmt: skip

#: (domain, operator) -> why it has no rule.
DECLARED: Mapping[tuple[str, str], str] = {
    (domain, op_type): text for (domain, text), ops in _BY_REASON.items() for op_type in ops
}


def why_blocked(domain: str, op_type: str) -> str:
    """What keeps an operator without a rule from being cut.

    Args:
        domain: of the operator.
        op_type: its name.
    """
    key = normal_domain(domain), op_type
    name = f"{key[0] or 'ai.onnx'}::{op_type}"
    newer = [since for d, op, since in RULES.ops() if (d, op) == key]
    if key in DECLARED:
        return f"no coupling rule for {name}: {DECLARED[key]}"
    if newer:
        return f"no coupling rule for {name} before opset {min(newer)}: convert the model to a newer opset"
    return f"no coupling rule for {name}"
