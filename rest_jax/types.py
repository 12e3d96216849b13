"""Words and shapes that every part shares.

Axis letters used in shape comments and annotations throughout:

    B  batch rows (sources, where a source has several hypotheses)
    N  hypotheses sampled for each source
    S  source length, in tokens, EOS included
    T  target length, in tokens, EOS included
    V  vocabulary
    D  model width
    H  attention heads
    K  size of one head
    L  length of a decoding cache, L <= T

Batches are plain dicts with T5X's keys; the columns that a loss declares
(`rewards`, `thresholds`, ...) stand beside them.
"""

from typing import Any

Batch = dict[str, Any]
Params = dict[str, Any]
