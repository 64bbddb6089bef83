from __future__ import annotations

import numpy as np

from stream.vitals.envelope import Envelope, hear_together
from stream.vitals.grid import BLOCK
from tests.stream.vitals.feeds import TWO, simulated


def test_a_beat_is_compared_at_the_levels_of_the_beat_before_it() -> None:
    # Also of one in the same block: levels are learned from each beat, not from each block.
    signal, beats = simulated(7, "sinus:75@0", 10, TWO)
    envelope = Envelope(2, 0)
    for at in range(0, signal.values.shape[1], BLOCK):
        block = slice(at, at + BLOCK)
        hear_together([(envelope, signal.values[:, block], signal.missing[:, block], np.ones(2, np.bool_))])
    assert envelope.learned
    assert envelope.stop == signal.values.shape[1] // BLOCK * BLOCK
    before, level = envelope.scale, envelope.level
    envelope.note_beat(round(100 * beats[beats < 9][-1]), forget=True)
    assert (envelope.level != level).all()
    np.testing.assert_allclose(envelope.scale * envelope.level, before * level)
