"""Floating-point operations of one window, counted from a network's configuration."""

from __future__ import annotations

from itertools import pairwise

from models.architectures import (
    LEAD_HEADS,
    TEMPORAL_HEADS,
    CaeConfig,
    NetworkConfig,
    VaeBilstmConfig,
    VaeBilstmMhaConfig,
)

# Of the CAE's transposed convolutions (see models.networks.cae).
_UP_KERNEL = 4


def flop_per_window(config: NetworkConfig) -> int:
    r"""Return the floating-point operations that a network needs for one window.

    Products of matrices are counted, at two operations (multiply, add) for each weight used: biases,
    activations, softmax and normalisation are less than a hundredth. With *T* recurrent steps, *n* inputs,
    *h* units per direction, *L* leads:

    linear map
        :math:`2 n m` for each position it is applied to.
    convolution
        :math:`2 k c_{in} c_{out}` for each output sample; transposed, for each input sample.
    LSTM, one direction
        four gates of input and state: :math:`2 T \cdot 4h (n + h)`.
    temporal attention of width *w*
        projections of inputs and latents, and :math:`q k^T` and weights times values over all pairs of steps:
        :math:`2 T (2 n w + z w + w w) + 2 \cdot 2 T^2 w`.
    lead attention of width *w*, at each step
        embedding, query and key of each lead's patch *p*; :math:`q k^T` over pairs of leads; one weighted
        token for each of *h* heads, projected to values; the output:
        :math:`2 T (L p w + 2 L w^2 + L^2 w + h L w + w^2 + w z)`.
    feature density of *F* features
        :math:`2 F^2`.

    What a backend really computes may be less where an export folds maps into one another.

    Parameters
    ----------
    config : CaeConfig, VaeBilstmConfig or VaeBilstmMhaConfig

    Returns
    -------
    int
    """
    match config:
        case CaeConfig():
            return _cae(config)
        case VaeBilstmConfig():
            return _vae_bilstm(config)
        case VaeBilstmMhaConfig():
            return _vae_bilstm_mha(config)


def _lstm(steps: int, inputs: int, hidden: int, directions: int) -> int:
    return directions * 2 * steps * 4 * hidden * (inputs + hidden)


def _linear(positions: int, inputs: int, outputs: int) -> int:
    return 2 * positions * inputs * outputs


def _density(channels: int, used: bool) -> int:
    # Mean and deviation of each channel.
    return _linear(1, 2 * channels, 2 * channels) if used else 0


def _cae(config: CaeConfig) -> int:
    flop, samples = 0, config.samples
    for before, after in pairwise((2 * config.leads, *config.channels)):
        samples //= 2
        flop += 2 * samples * config.kernel * before * after
    code = config.channels[-1]
    flop += 2 * samples * config.wide_kernel * code * code
    for before, after in pairwise((*reversed(config.channels), config.leads)):
        flop += 2 * samples * _UP_KERNEL * before * after
        samples *= 2
    return flop + _density(config.channels[0], config.density)


def _vae_bilstm(config: VaeBilstmConfig) -> int:
    steps, values = config.steps, config.leads * config.patch
    return (
        _lstm(steps, config.step_inputs, config.hidden, 2)
        + 2 * _linear(config.latent_steps, 2 * config.hidden, config.latent)
        + _lstm(steps, config.latent, config.decoder_hidden, 1)
        + 2 * _linear(steps, config.decoder_hidden, values)
        + _density(config.decoder_hidden, config.density)
    )


def _vae_bilstm_mha(config: VaeBilstmMhaConfig) -> int:
    steps, leads, values = config.steps, config.leads, config.leads * config.patch
    (first, second), (third, fourth) = config.encoder, config.decoder
    lead, time = config.lead_width, config.temporal_width
    encoder = (
        _lstm(steps, config.step_inputs, first, 2)
        + _lstm(steps, 2 * first, second, 2)
        + _linear(steps, 2 * second, second)
        + 2 * _linear(steps, second, config.latent)
    )
    among_leads = (
        _linear(steps * leads, config.patch, lead)
        + 2 * _linear(steps * leads, lead, lead)
        + _linear(steps * leads, leads, lead)
        + _linear(steps * LEAD_HEADS, leads, lead)
        + _linear(steps, lead, lead)
        + _linear(steps, lead, config.latent)
    )
    over_time = (
        2 * _linear(steps, config.step_inputs, time)
        + _linear(steps, config.latent, time)
        + _linear(steps, time, time)
        # Scores and mixing, each head with its share of the width.
        + 2 * TEMPORAL_HEADS * _linear(steps, time // TEMPORAL_HEADS, steps)
    )
    decoder = (
        _lstm(steps, time, third, 2)
        + _lstm(steps, 2 * third, fourth, 2)
        + _linear(steps, 2 * fourth, fourth)
        + 2 * _linear(steps, fourth, values)
    )
    return encoder + among_leads + over_time + decoder + _density(fourth, config.density)
