"""The ops that an exported graph may hold: plain ones that every TensorFlow has on a CPU.

No Python (`PyFunc`), no cuDNN, no custom ops, nothing that touches a file but the loading of the weights, no state that
one request leaves to the next, and no random numbers.
"""

WEIGHTS = """VarHandleOp ReadVariableOp AssignVariableOp VarIsInitializedOp DisableCopyOnRead RestoreV2 SaveV2
    MergeV2Checkpoints ShardedFilename StaticRegexFullMatch"""
STRUCTURE = """Const Identity IdentityN NoOp Placeholder PartitionedCall StatefulPartitionedCall If StatelessIf While
    StatelessWhile Switch Merge Assert EnsureShape StopGradient PreventGradient"""
SHAPES = """Shape Size Rank Reshape ExpandDims Squeeze Pack Unpack ConcatV2 Split SplitV Slice StridedSlice Tile Fill
    Range ZerosLike OnesLike BroadcastTo BroadcastArgs Transpose GatherV2 GatherNd Cast Pad PadV2 MirrorPad ReverseV2
    Bitcast InvertPermutation Where"""
ARITHMETIC = """Add AddV2 AddN Sub Mul Div RealDiv FloorDiv FloorMod DivNoNan Neg Abs Sign Square Sqrt Rsqrt Pow Exp Log
    Log1p Sin Cos Erf Erfc Floor Ceil Round Rint Maximum Minimum SquaredDifference Reciprocal ClipByValue Cumsum"""
LOGIC = "Equal NotEqual Less LessEqual Greater GreaterEqual LogicalAnd LogicalOr LogicalNot Select SelectV2 IsFinite"
REDUCTIONS = "Sum Mean Max Min Prod All Any ArgMax ArgMin"
NETWORK = """MatMul BatchMatMulV2 BatchMatMulV3 Einsum BiasAdd Conv2D MaxPool Relu Sigmoid Tanh Softmax LogSoftmax Elu
    FusedBatchNormV3"""
STRINGS = "AsString StringJoin ReduceJoin StringLength StringSplitV2 StaticRegexReplace Substr"
FILES = """DecodePng DecodeJpeg ExtractJpegShape DecodeRaw ScaleAndTranslate ResizeNearestNeighbor AvgPool DenseBincount
    MatrixDiagV3 MatrixSolve RFFT IRFFT ComplexAbs TopKV2 TensorScatterUpdate UnsortedSegmentMax UnsortedSegmentSum
    TensorListFromTensor TensorListGetItem TensorListReserve TensorListSetItem TensorListStack"""
ROWS = """TensorDataset TensorSliceDataset ParallelMapDatasetV2 IgnoreErrorsDataset ConcatenateDataset BatchDatasetV2
    DatasetToSingleElement"""
"""Data sets of what is in the request already: they read no files."""

ALLOWED = frozenset(
    " ".join((WEIGHTS, STRUCTURE, SHAPES, ARITHMETIC, LOGIC, REDUCTIONS, NETWORK, STRINGS, FILES, ROWS)).split()
)
