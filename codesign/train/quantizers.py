# SPDX-License-Identifier: Apache-2.0
"""The quantization scheme, as Brevitas quantizers. The integer machine depends on every line of it.

* weights: int8, symmetric, narrow range (-127..127), one scale per output channel (largest magnitude / 127);
* ternary expert weights: {-1, 0, 1}, one scale per expert and output channel: the mean magnitude
  (BitNet b1.58, Ma et al. 2024, equation 3, per channel), i.e. a two-bit narrow-range integer;
* activations: int8, symmetric, full range (-128..127), one learned scale per tensor;
* image: int8, scale 1/128; unnormalised attention probabilities: 0..127, scale 1/127;
* residual stream: int16, one constant scale for the whole model.

Every quantizer can be switched off, which turns the model into its float twin, and activations can be observed for
calibration.
"""

from __future__ import annotations

from enum import Enum

import brevitas.nn as qnn
import torch
import torch.nn.functional as F
from brevitas.core.restrict_val import LogFloatRestrictValue
from brevitas.core.scaling import ConstScaling, ParameterScaling
from brevitas.inject.enum import ScalingImplType, StatsOp
from brevitas.nn.mixin import QuantWeightMixin
from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloat
from torch import Tensor, nn

from codesign.train.fused import fake_quant
from codesign.train.recipe import ExpertWeights


class Mode(Enum):
    """What quantizers do: nothing (float twin), nothing but watch ranges, or quantize."""

    FLOAT = 0
    OBSERVE = 1
    QUANTIZED = 2


class _Learned8(Int8ActPerTensorFloat):
    """Learned threshold, kept as its logarithm so that a step of the optimizer is a relative change."""

    scaling_impl_type = ScalingImplType.PARAMETER
    scaling_impl = ParameterScaling
    restrict_scaling_impl = LogFloatRestrictValue
    scaling_init = 1.0
    narrow_range = False


class _Learned16(_Learned8):
    bit_width = 16


class _Constant8(Int8ActPerTensorFloat):
    scaling_impl_type = ScalingImplType.CONST
    scaling_impl = ConstScaling
    scaling_init = 1.0
    narrow_range = False


class _Probability8(_Constant8):
    """Values in (0, 1] become 1/127 steps; the narrow range makes the scale threshold / 127."""

    narrow_range = True


class ActQuant(nn.Module):
    """An activation quantizer, same shape out as in; `seen` is the best threshold observed so far."""

    seen: Tensor

    def __init__(self, quantizer: type[Int8ActPerTensorFloat], learned: bool) -> None:
        super().__init__()
        self.inner = qnn.QuantIdentity(act_quant=quantizer, return_quant_tensor=False)
        self.learned = learned
        self.mode = Mode.FLOAT
        self.bit_width = int(self.inner.act_quant.bit_width())
        self.narrow = bool(self.inner.act_quant.is_narrow_range)
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer as the mode wants it."""
        if self.mode is Mode.QUANTIZED:
            if self.training:
                high = 2 ** (self.bit_width - 1) - 1
                low = -high - int(not self.narrow)
                return fake_quant(x, self.scale(), low, high)
            return self.inner(x)  # type: ignore[no-any-return]
        if self.mode is Mode.OBSERVE and self.learned:
            self._observe(x.detach())
        return x

    def _observe(self, x: Tensor) -> None:
        """Keep the largest of the batches' best thresholds: the one that minimises the squared error of int8."""
        flat = x.flatten()
        sample = flat[:: max(1, flat.numel() // 65536)]
        peak = float(flat.abs().max())
        ratios = torch.linspace(0.4, 1.0, 13)
        errors = torch.stack([self._error(sample, peak * float(r)) for r in ratios])
        best = peak * float(ratios[int(errors.argmin())])
        self.seen.fill_(max(float(self.seen), best))

    def _error(self, x: Tensor, threshold: float) -> Tensor:
        scale = threshold / 2 ** (self.bit_width - 1)
        limit = 2 ** (self.bit_width - 1)
        error: Tensor = ((x / scale).round().clamp(-limit, limit - 1) * scale - x).square().mean()
        return error

    @property
    def parameter(self) -> nn.Parameter:
        """Logarithm (base 2) of the learned threshold."""
        value = self.inner.act_quant.fused_activation_quant_proxy.tensor_quant.scaling_impl.value
        assert isinstance(value, nn.Parameter)
        return value

    def set_threshold(self, threshold: float) -> None:
        """Set the largest magnitude that is represented."""
        with torch.no_grad():
            self.parameter.fill_(torch.log2(torch.tensor(max(threshold, 1e-6))))

    def scale(self) -> Tensor:
        """The step, a scalar."""
        scale: Tensor = self.inner.act_quant.scale()
        return scale


def learned8() -> ActQuant:
    """An int8 activation."""
    return ActQuant(_Learned8, learned=True)


def learned16() -> ActQuant:
    """An int16 activation: the residual stream or a head's output."""
    return ActQuant(_Learned16, learned=True)


def image8() -> ActQuant:
    """The image: u8 - 128 at scale 1/128."""
    return ActQuant(_Constant8, learned=False)


def probability8() -> ActQuant:
    """Unnormalised attention probabilities: 0..127 at scale 1/127."""
    return ActQuant(_Probability8, learned=False)


class _Weight8(Int8WeightPerChannelFloat):
    scaling_min_val = 1e-8


class Linear(qnn.QuantLinear):
    """Linear layer with int8 weights per output channel and a float bias."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias=bias, weight_quant=_Weight8, return_quant_tensor=False)
        self.mode = Mode.FLOAT
        nn.init.trunc_normal_(self.weight, std=inputs**-0.5)
        if bias:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer as the mode wants it."""
        if self.mode is Mode.QUANTIZED:
            return super().forward(x)  # type: ignore[no-any-return]
        return F.linear(x, self.weight, self.bias)

    def quantized(self) -> Tensor:
        """Weight [out, in] as the mode wants it."""
        weight: Tensor = self.quant_weight().value if self.mode is Mode.QUANTIZED else self.weight
        return weight


class PatchConv(qnn.QuantConv2d):
    """Patch embedding: a convolution whose stride is its kernel."""

    def __init__(self, outputs: int, patch: int) -> None:
        super().__init__(3, outputs, patch, stride=patch, bias=True, weight_quant=_Weight8, return_quant_tensor=False)
        self.mode = Mode.FLOAT
        nn.init.trunc_normal_(self.weight, std=(3 * patch * patch) ** -0.5)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer as the mode wants it."""
        if self.mode is Mode.QUANTIZED:
            return super().forward(x)  # type: ignore[no-any-return]
        return F.conv2d(x, self.weight, self.bias, stride=self.stride)


class _MergeLeading(nn.Module):
    """View [experts, out, in] as [experts * out, in], the rows over which scales are computed."""

    def __init__(self) -> None:  # Brevitas' injection needs a plain signature
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer as the mode wants it."""
        return x.flatten(0, 1)


class _Expert8(_Weight8):
    scaling_stats_input_view_shape_impl = _MergeLeading


class _Ternary(_Expert8):
    bit_width = 2
    scaling_stats_op = StatsOp.AVE


class ExpertWeight(QuantWeightMixin, nn.Module):
    """One weight of all experts, [experts, out, in], with a scale per expert and output channel."""

    def __init__(self, experts: int, outputs: int, inputs: int, kind: ExpertWeights) -> None:
        nn.Module.__init__(self)
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs))
        nn.init.trunc_normal_(self.weight, std=inputs**-0.5)
        self.out_channels = outputs
        self.mode = Mode.FLOAT
        quantizer = _Ternary if kind is ExpertWeights.TERNARY else _Expert8
        QuantWeightMixin.__init__(self, quantizer, weight_scaling_shape=(experts, outputs, 1))

    @property
    def output_channel_dim(self) -> int:
        """Asked for by Brevitas; the scales' shape is given explicitly."""
        return 0

    @property
    def channelwise_separable(self) -> bool:
        """Asked for by Brevitas."""
        return False

    def forward(self) -> Tensor:
        """The weight as the mode wants it."""
        if self.mode is not Mode.QUANTIZED:
            return self.weight
        weight: Tensor = self.quant_weight().value  # type: ignore[operator]
        return weight


WEIGHT_QUANTIZERS = (Linear, PatchConv, ExpertWeight)
