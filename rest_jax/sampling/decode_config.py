"""Settings of sampling."""

from collections.abc import Sequence
import dataclasses
import itertools

from rest_jax import settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeConfig:
  """How hypotheses are sampled.

  The block shape (`block_sources`, `samples_per_block`, the lists of lengths)
  affects results: matrix kernels of another shape round differently, so a row
  may draw another token. `blocks_in_flight` never does.

  Lists of lengths and shares are the most that is compiled: a run uses those that
  save more time than they take to compile, see `work.fitted`, and that its device
  uses, see `devices`.

  Attributes:
    num_samples_per_source: N.
    temperature: τ of softmax(logits / τ); 0 for greedy decoding.
    top_k: sample from the k most likely tokens; None for all, as in the paper.
    top_p: sample from the smallest set of most likely tokens with at least this
      share of the probability, in (0, 1]; 1 for all.
    beam_size: number of beams per source, for beam search, which returns the
      `num_samples_per_source` best hypotheses; see `beam.Beam`. Needs
      temperature 0. The settings of rows and cache stages are not used.
    length_penalty: alpha of beam search, at least 0.
    max_target_length: maximum tokens of a hypothesis, with EOS; a hypothesis
      that reaches it without EOS is unfinished.
    block_sources: sources that a device decodes at once. Lower it if
      block_sources * samples_per_block rows do not fit into memory.
    samples_per_block: hypotheses per source that are decoded at once; None for
      all N. With fewer, the source is encoded once per group.
    source_length_buckets: ascending lengths that sources are padded to.
    row_shares: ascending shares of block_sources * samples_per_block rows,
      below 1. Hypotheses of a source that are equal so far share a row,
      finished ones have none, and a step computes the smallest share that holds
      all rows. An empty tuple disables sharing.
    compact_shares: descending shares of block_sources * samples_per_block,
      below 1. Once so few hypotheses are open, they continue in a block of that
      size, whose caches take that share of the memory in addition. Not used if
      `row_shares` is empty.
    cache_stages: ascending lengths of the self-attention cache; a step attends
      over the first that holds it. Lengths of `max_target_length` and above are
      replaced by `max_target_length`.
    weights_dtype: 'float32', or 'bfloat16' to sample with kernels and embeddings
      rounded to it, summing in float32. Log-probabilities are then those of the
      rounded policy.
    blocks_in_flight: blocks or queues submitted to a device before the first is
      fetched.
    queue_sources: sources submitted to a device at once where a bucket has
      many, see `refill.Refill`: when all hypotheses of a source are finished,
      the next source takes its slot. None for blocks only. Used if caches are
      at most half as long as `max_target_length`.
    queue_length: capacity of a queue's slots, in tokens of a hypothesis per
      token of the bucket. Longer hypotheses are sampled again in blocks, from
      the same random numbers: raise it if targets are longer than sources.
  """

  num_samples_per_source: int
  temperature: float = 0.8
  top_k: int | None = None
  top_p: float = 1.0
  beam_size: int | None = None
  length_penalty: float = 0.6
  max_target_length: int = 128
  block_sources: int = 16
  samples_per_block: int | None = None
  source_length_buckets: Sequence[int] = (16, 32, 64, 128)
  cache_stages: Sequence[int] = (16, 32, 64, 96, 128)
  row_shares: Sequence[float] = (0.25, 0.5, 0.75)
  compact_shares: Sequence[float] = (0.25, 0.0625)
  weights_dtype: str = 'float32'
  queue_sources: int | None = 512
  queue_length: float = 1.5
  blocks_in_flight: int = settings.recorded(default=2)

  def __post_init__(self):
    lengths_of = ('source_length_buckets', 'cache_stages')
    settings.make_tuples(self, *lengths_of, 'row_shares', 'compact_shares')
    settings.rising(self, *lengths_of, hint='For example (16, 32, 64, 128).')
    settings.at_least(self, 1, 'top_k', none='all tokens')
    settings.inside(self, '(0, 1]', 'top_p', hint='1 is all tokens.')
    settings.one_of(self, ('float32', 'bfloat16'), 'weights_dtype')
    self._check_shares('row_shares', 'increasing', self.row_shares)
    self._check_shares(
      'compact_shares', 'decreasing', self.compact_shares[::-1]
    )
    settings.at_least(
      self,
      1,
      'num_samples_per_source',
      'max_target_length',
      'block_sources',
      'blocks_in_flight',
    )
    settings.at_least(self, 1, 'queue_sources', none='blocks alone')
    hint = 'At 1.5 hypotheses may have half as many tokens again as a source.'
    settings.positive(self, 'queue_length', hint=hint)
    if self.samples_per_block is not None and not (
      1 <= self.samples_per_block <= self.num_samples_per_source
    ):
      raise ValueError(
        'samples_per_block must lie between 1 and num_samples_per_source='
        f'{self.num_samples_per_source}; got {self.samples_per_block}. '
        'None decodes all samples of a source at once.'
      )
    hint = 'The paper samples at 0.8; 0 is greedy.'
    settings.inside(self, '[0, inf)', 'temperature', hint=hint)
    settings.inside(self, '[0, inf)', 'length_penalty')
    least, hint = self.num_samples_per_source, 'The best N beams are returned.'
    settings.at_least(self, least, 'beam_size', none='sampling', hint=hint)
    if self.beam_size is not None:
      if self.temperature != 0 or self.samples_per_block is not None:
        raise ValueError(
          'beam_size needs temperature=0 and samples_per_block=None; got '
          f'{self.temperature} and {self.samples_per_block}.'
        )
    elif self.temperature == 0 and self.num_samples_per_source > 1:
      raise ValueError(
        'temperature=0 gives the same hypothesis every time; got '
        f'num_samples_per_source={self.num_samples_per_source}. '
        'Set it to 1, or raise the temperature.'
      )

  def _check_shares(self, name: str, order: str, shares: Sequence[float]):
    if not all(a < b for a, b in itertools.pairwise((0, *shares, 1))):
      default = getattr(type(self), name)
      raise ValueError(
        f'{name} must be strictly {order} and lie between 0 and 1; got '
        f'{getattr(self, name)}. For example {default}, or () for none.'
      )

  def untempered(self) -> 'DecodeConfig':
    """Returns settings that sample from the untempered policy.

    Temperature 1 and all tokens; this compiles nothing new unless `top_k` or
    `top_p` was set.
    """
    return dataclasses.replace(
      self, temperature=1.0, top_k=None, top_p=1.0, beam_size=None
    )

  @property
  def block_samples(self) -> int:
    """Hypotheses per source in one block."""
    return self.samples_per_block or self.num_samples_per_source

  @property
  def stages(self) -> tuple[int, ...]:
    """The used cache lengths, `max_target_length` last."""
    last = self.max_target_length
    return (*(n for n in self.cache_stages if n < last), last)
