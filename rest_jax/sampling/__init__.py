"""Sampling of N hypotheses per source from an encoder-decoder policy.

`sampler` is the entry. It has `work` split sources into items, each for a block
or a queue of a compiled shape (`shapes`), chosen by the settings
(`decode_config`), the kind of device (`devices`) and `estimates` of time.
`decoders` returns what decodes a shape: `decode` a block, `refill` a block whose
slots are refilled from a queue, `beam` a block by beam search; `blocks` has what
they share. Tokens are drawn by `categorical`; `sharing` computes equal hypotheses
once, and `compaction` leaves finished ones out.
"""
