"""The way from samples to cepstra."""

from __future__ import annotations

import numpy as np
import pytest

from words.aligner.features import CepstrumStream, differences, front_end


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000])
def test_the_spectrum_is_that_of_a_fourier_transform(rate_hz: int) -> None:
    fe = front_end(rate_hz)
    samples = np.random.default_rng(5).normal(0, 3000, fe.window + 9 * fe.hop).astype(np.float32)
    frames = np.stack([samples[k * fe.hop :][: fe.window] for k in range(10)])
    spectrum = np.fft.rfft(frames * np.hamming(fe.window), round(rate_hz / 31.25))
    # The filters' bins are known by their place in the spectrum: the first filter begins at 130 Hz.
    first = int(130 / 31.25) + 1
    power = np.abs(spectrum[:, first : first + len(fe.filters)]) ** 2
    expected = np.log(power @ fe.filters + 50.0) @ fe.to_cepstra.T
    stream = CepstrumStream(rate_hz)
    stream.add_samples(samples)
    np.testing.assert_allclose(stream.take(), expected, atol=1e-3)


def test_pieces_make_the_same_frames() -> None:
    samples = np.random.default_rng(6).normal(0, 3000, 8000).astype(np.float32)
    whole = CepstrumStream()
    whole.add_samples(samples)
    pieces = CepstrumStream()
    taken = []
    for start in range(0, len(samples), 150):
        pieces.add_samples(samples[start : start + 150])
        waiting = pieces.n_waiting
        taken.append(pieces.take())
        assert len(taken[-1]) == waiting and pieces.n_waiting == 0
    np.testing.assert_allclose(np.concatenate(taken), whole.take(), atol=1e-3)


def test_differences_repeat_the_edges() -> None:
    cepstra = np.zeros((5, 13), np.float32)
    cepstra[:, 0] = [1, 2, 4, 8, 16]
    features = differences(cepstra)
    assert features.shape == (5, 39)
    assert features[:, 13].tolist() == [3, 7, 15, 14, 12]
    assert features[2, 26] == (16 - 2) - (8 - 1)
