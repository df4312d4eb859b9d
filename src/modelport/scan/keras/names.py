"""Which names the configuration of a Keras model may refer to.

Keras builds a model by looking up every ``class_name`` that its configuration holds and calling
the class with the rest. These are Keras' own classes and functions that compute and do nothing
else; ``tests/scan`` holds the lists against the installed version.
"""

from __future__ import annotations

import re
from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: The packages of Keras in which a model's parts live.
FAMILIES: Final = (
    "activations applications constraints dtype_policies engine initializers layers losses metrics"
    " models ops optimizers quantizers random regularizers"
)
MODULE: Final = re.compile(
    rf"keras(\.src)?(\.({'|'.join(FAMILIES.split())})(\.[a-z][a-z0-9_]*)*)?", re.ASCII
)

_FEATURES: Final = ("keras.utils", "FeatureSpace")

#: What Keras itself has, and a file may not use; with the reason.
DENIED: Final = {
    "__lambda__": "it runs Python bytecode out of the file",
    "Lambda": "it runs Python bytecode out of the file",
    "TorchModuleWrapper": "it unpickles a PyTorch module out of the file",
    "JaxLayer": "it runs a Python function out of the file",
    "FlaxLayer": "it runs a Python function out of the file",
    "TFSMLayer": "it loads a SavedModel from a path",
    "TFOpLambda": "it calls any function of TensorFlow by its name",
    "SlicingOpLambda": "it calls any function of TensorFlow by its name",
    "TensorFlowOpLayer": "it runs any operation of TensorFlow",
}

#: Plain values in Keras' own notation; their content is walked like everything else.
VALUES: Final = _words(
    "CompositeTensor TensorShape __bytes__ __ellipsis__ __keras_tensor__ __numpy__ __slice__"
    " __tensor__ __tuple__"
)

#: The argument of the look-up layers that is a list of words, or the path of a file of words.
VOCABULARY: Final = "vocabulary"

FUNCTIONS: Final = _words(
    # activations
    "celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh"
    " leaky_relu linear log_sigmoid log_softmax mish relu relu6 selu sigmoid silu swish"
    " soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid sparsemax squareplus tanh"
    " tanh_shrink threshold"
    # losses and metrics
    " binary_accuracy binary_crossentropy binary_focal_crossentropy categorical_accuracy"
    " categorical_crossentropy categorical_focal_crossentropy"
    " categorical_generalized_cross_entropy categorical_hinge circle concordance_correlation"
    " cosine_similarity ctc dice hinge huber kl_divergence log_cosh mean_absolute_error"
    " mean_absolute_percentage_error mean_squared_error mean_squared_logarithmic_error"
    " pearson_correlation poisson sparse_categorical_accuracy sparse_categorical_crossentropy"
    " sparse_top_k_categorical_accuracy squared_hinge top_k_categorical_accuracy tversky"
)

_LAYERS: Final = _words(
    "Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D"
    " AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add"
    " AdditiveAttention AlphaDropout Attention AugMix AutoContrast Average AveragePooling1D"
    " AveragePooling2D AveragePooling3D AvgPool1D AvgPool2D AvgPool3D BatchNormalization"
    " Bidirectional CategoryEncoding CenterCrop Concatenate ContrastLimitedAdaptiveHistogram"
    "Equalization Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D"
    " ConvLSTM2D ConvLSTM3D Convolution1D Convolution1DTranspose Convolution2D"
    " Convolution2DTranspose Convolution3D Convolution3DTranspose Cropping1D Cropping2D Cropping3D"
    " CutMix Dense DepthwiseConv1D DepthwiseConv2D Discretization Dot Dropout ELU EinsumDense"
    " Embedding Equalization Flatten GRU GRUCell GaussianDropout GaussianNoise"
    " GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalAvgPool1D"
    " GlobalAvgPool2D GlobalAvgPool3D GlobalMaxPool1D GlobalMaxPool2D GlobalMaxPool3D"
    " GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization"
    " GroupQueryAttention GroupedQueryAttention HashedCrossing Hashing Identity InputLayer"
    " InputSpec IntegerLookup LSTM LSTMCell Layer LayerNormalization LeakyReLU Masking MaxNum"
    "BoundingBoxes MaxPool1D MaxPool2D MaxPool3D MaxPooling1D MaxPooling2D MaxPooling3D Maximum"
    " MelSpectrogram Minimum MixUp MultiHeadAttention Multiply Normalization PReLU Permute"
    " Pipeline RMSNormalization RNN RandAugment RandomBrightness RandomColorDegeneration"
    " RandomColorJitter RandomContrast RandomCrop RandomElasticTransform RandomErasing RandomFlip"
    " RandomGaussianBlur RandomGrayscale RandomHeight RandomHue RandomInvert RandomPerspective"
    " RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear"
    " RandomTranslation RandomWidth RandomZoom ReLU RepeatVector Rescaling Reshape Resizing"
    " ReversibleEmbedding STFTSpectrogram SeparableConv1D SeparableConv2D SeparableConvolution1D"
    " SeparableConvolution2D SimpleRNN SimpleRNNCell Softmax Solarization SpatialDropout1D"
    " SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells StringLookup"
    " Subtract TextVectorization ThresholdedReLU TimeDistributed UnitNormalization UpSampling1D"
    " UpSampling2D UpSampling3D Wrapper ZeroPadding1D ZeroPadding2D ZeroPadding3D"
)
# Those of Keras 1 and 2 that only compute; that they are gone is for Keras to say.
_OLD_LAYERS: Final = _words(
    "BatchNormalizationV1 BatchNormalizationV2 CuDNNGRU CuDNNLSTM Highway LocallyConnected1D"
    " LocallyConnected2D MaxoutDense Merge RandomFourierFeatures SyncBatchNormalization"
)
_TRAINING: Final = _words(
    # optimizers and their schedules
    "Adadelta Adafactor Adagrad Adam AdamW Adamax CosineDecay CosineDecayRestarts ExponentialDecay"
    " Ftrl InverseTimeDecay Lamb LearningRateSchedule Lion LossScaleOptimizer MultiOptimizer Muon"
    " Nadam Optimizer OptimizerMap PiecewiseConstantDecay PolynomialDecay RMSprop SGD"
    " ScheduleFreeAdamW"
    # losses and metrics
    " AUC Accuracy BinaryAccuracy BinaryCrossentropy BinaryFocalCrossentropy BinaryIoU CTC"
    " CategoricalAccuracy CategoricalCrossentropy CategoricalFocalCrossentropy"
    " CategoricalGeneralizedCrossEntropy CategoricalHinge Circle ConcordanceCorrelation"
    " CosineSimilarity Dice F1Score FBetaScore FalseNegatives FalsePositives Hinge Huber IoU"
    " KLDivergence LogCosh LogCoshError Loss LossFunctionWrapper Mean MeanAbsoluteError"
    " MeanAbsolutePercentageError MeanIoU MeanMetricWrapper MeanSquaredError"
    " MeanSquaredLogarithmicError Metric OneHotIoU OneHotMeanIoU PearsonCorrelation Poisson"
    " Precision PrecisionAtRecall R2Score Recall RecallAtPrecision RootMeanSquaredError"
    " SensitivityAtSpecificity SparseCategoricalAccuracy SparseCategoricalCrossentropy"
    " SparseTopKCategoricalAccuracy SpecificityAtSensitivity SquaredHinge Sum"
    " TopKCategoricalAccuracy TrueNegatives TruePositives Tversky"
)
_PARTS: Final = _words(
    # models, and what the ready-made ones have of their own
    "Cross CustomScaleLayer Feature FeatureSpace Functional LayerScale Model Sequential"
    " StochasticDepth"
    # initializers, regularizers, constraints
    " Constant Constraint GlorotNormal GlorotUniform HeNormal HeUniform Identity"
    " IdentityInitializer Initializer L1 L1L2 L2 LecunNormal LecunUniform MaxNorm MinMaxNorm"
    " NonNeg Ones Orthogonal OrthogonalInitializer OrthogonalRegularizer RandomNormal"
    " RandomUniform Regularizer STFT STFTInitializer TruncatedNormal UnitNorm VarianceScaling"
    " Zeros"
    # number types, quantization, randomness
    " AWQConfig AWQDTypePolicy AbsMaxQuantizer DTypePolicy DTypePolicyMap Float8Quantization"
    "Config FloatDTypePolicy GPTQConfig GPTQDTypePolicy Int4DTypePolicy Int4QuantizationConfig"
    " Int8QuantizationConfig Policy QuantizationConfig QuantizedDTypePolicy"
    " QuantizedFloat8DTypePolicy Quantizer SeedGenerator"
)
# Functional models hold the operations of `keras.ops` that were applied to their tensors.
_OPERATIONS: Final = _words(
    "Abs Absolute AdaptiveAveragePool AdaptiveMaxPool Add AffineTransform All AllClose Amax Amin"
    " Angle Any Append Arange Arccos Arccosh Arcsin Arcsinh Arctan Arctan2 Arctanh Argmax Argmin"
    " Argpartition Argsort Array ArraySplit AssociativeScan Average AveragePool BatchNorm Bincount"
    " BitwiseAnd BitwiseInvert BitwiseLeftShift BitwiseNot BitwiseOr BitwiseRightShift BitwiseXor"
    " BroadcastTo CDist CTCDecode CTCLoss Cast Cbrt Ceil Celu Cholesky CholeskyInverse Clip Cond"
    " Conj Conjugate Conv ConvTranspose ConvertToTensor Copy Corrcoef Correlate Cos Cosh"
    " CountNonzero CropImages Cross Cumprod Cumsum Deg2rad DepthToSpace DepthwiseConv Det Diag"
    " Diagflat Diagonal Diff Digitize Divide DivideNoNan DotProductAttention Dsplit Dstack Eig"
    " Eigh Einsum ElasticTransform Elu EmptyLike Equal Erf Erfc Erfinv Exp Exp2 ExpandDims Expm1"
    " ExtractPatches ExtractSequences FFT FFT2 Fabs Flip Fliplr Flipud Floor FloorDivide Fmax Fmin"
    " Fmod Fold ForiLoop Full FullLike GaussianBlur Gcd Gelu Geomspace GetItem Glu Greater"
    " GreaterEqual HSVToRGB HardShrink HardSigmoid HardSilu HardTanh Heaviside Histogram Hsplit"
    " Hstack Hypot I0 IFFT2 IRFFT ISTFT Imag InTopK Inner Inv IsIn Isclose Isfinite Isinf Isnan"
    " Isneginf Isposinf Isreal JVP Kron LayerNorm Lcm Ldexp LeakyRelu LeftShift Less LessEqual"
    " Linspace Log Log10 Log1p Log2 LogSigmoid LogSoftmax Logaddexp Logaddexp2 Logdet LogicalAnd"
    " LogicalNot LogicalOr LogicalXor Logspace Logsumexp Lstsq LuFactor Map MapCoordinates Matmul"
    " MatrixRank Max MaxPool Maximum Mean Median Meshgrid Min Minimum Mod Moments Moveaxis"
    " MultiHot Multiply NanToNum Nanargmax Nanargmin Nancumprod Nancumsum Nanmax Nanmean Nanmedian"
    " Nanmin Nanpercentile Nanprod Nanquantile Nanstd Nansum Nanvar Ndim Negative Nextafter"
    " Nonzero Norm Normalize NotEqual OneHot OnesLike Operation Outer PSNR Pad PadImages Percentile"
    " PerspectiveTransform Pinv Polar Power Prod Ptp Qr Quantile RFFT RGBToGrayscale RGBToHSV"
    " RMSNorm Rad2deg Ravel Real Rearrange Reciprocal Relu Relu6 Repeat Reshape Resize RightShift"
    " Roll Rot90 Round Rsqrt SSIM STFT SVD SaturateCast ScaleAndTranslate Scan Scatter"
    " ScatterUpdate SearchSorted SegmentMax SegmentMin SegmentProd SegmentReduction SegmentSum"
    " Select Selu SeparableConv Sigmoid Sign Signbit Silu Sin Sinc Sinh Size Slice SliceUpdate"
    " Slogdet SobelEdges SoftShrink Softmax Softplus Softsign Solve SolveTriangular Sort SpaceTo"
    "Depth SparsePlus SparseSigmoid Sparsemax Split Sqrt Square Squareplus Squeeze Stack Std"
    " StopGradient Subtract Swapaxes Switch Take TakeAlongAxis Tan Tanh TanhShrink Tensordot"
    " Threshold Tile TopK Trace Transpose Trapezoid Tril Triu TrueDivide Trunc Unfold Unique"
    " UnravelIndex Unstack Vander Var Vdot VectorizedMap View ViewAsComplex ViewAsReal Vsplit"
    " Vstack Where WhileLoop ZerosLike"
)

#: Under this Keras 2.11 to 2.15 registered their own optimizers.
_OF_KERAS_2: Final = "Custom>"

CLASSES: Final = _LAYERS | _OLD_LAYERS | _TRAINING | _PARTS | _OPERATIONS


def refusal(module: str | None, name: str) -> str:
    """Why a class or function is refused; empty when it is one of Keras' own.

    Parameters
    ----------
    module : str or None
        None where the format names no modules (HDF5), and Keras searches its own.
    name : str
    """
    ours = (
        module in (None, "builtins")
        or (module, name) == _FEATURES
        or (MODULE.fullmatch(module or "") is not None and not (module or "").endswith("_test"))
    )
    if not ours:
        return "Keras would import it, or have it registered by code that you ran"
    if name in DENIED:
        return DENIED[name]
    if module is None and name.removeprefix(_OF_KERAS_2) in _TRAINING:
        return ""
    if name in FUNCTIONS or (name in CLASSES and module != "builtins"):
        return ""
    return "not one of the classes and functions of Keras that only compute"
