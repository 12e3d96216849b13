"""MetricX-23 and MetricX-24 as a reward, in JAX.

MetricX is an mT5 that reads source, candidate and optionally reference as one
text. Its score is the logit of the piece `<extra_id_10>` at the decoder's first
step, clamped to [0, 25]: an error score. The reward is its negative.

Source: Juraska et al., MetricX-23 (WMT 2023) and MetricX-24 (WMT 2024). Tests
compare the scores with those of the authors' model.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import pathlib
import time

from absl import logging
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int
import numpy as np

from rest_jax import settings, types
from rest_jax.data import ragged, vocabularies
from rest_jax.interop import huggingface, safetensors_folder
from rest_jax.models import scalar
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.rewards import base, scoring_plan
from rest_jax.storage import files

VOCABULARY_FILE = 'spiece.model'
# `<extra_id_10>` of mT5's vocabulary.
SCORE_PIECE = 250089
WORST_SCORE = 25.0
# The order of the parts of an input, without and with a reference.
FORMS = {
  (23, False): 'candidate: {hypothesis} source: {source}',
  (23, True): 'candidate: {hypothesis} reference: {reference}',
  (24, False): 'source: {source} candidate: {hypothesis}',
  (24, True): (
    'source: {source} candidate: {hypothesis} reference: {reference}'
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricX(base.NeedsOfParts):
  """A released MetricX checkpoint.

  Attributes:
    directory: Hugging Face folder with `config.json` and safetensors.
    version: 23 or 24, which determines the format of inputs.
    with_reference: whether it reads the reference; False for quality estimation
      ('QE' models; MetricX-24's hybrid models support both).
    vocabulary_file: mT5's sentencepiece model; None for `spiece.model` in the
      folder.
    dtype: type of parameters and activations, 'float32' or 'bfloat16'; the
      score is always float32.
    max_input_length: maximum tokens with EOS. Longer inputs are truncated and
      counted. EOS is then dropped, as in the training of MetricX.
    length_buckets: ascending lengths that inputs are padded to; each is
      compiled once. The last must hold `max_input_length`.
    tokens_per_call: approximate number of tokens per call and device.
    calls_in_flight: calls submitted to the device ahead of the awaited one.
    name: name of the reward in files and results.
  """

  directory: str
  version: int = 24
  with_reference: bool = False
  vocabulary_file: str | None = None
  dtype: str = 'float32'
  max_input_length: int = 1024
  length_buckets: tuple[int, ...] = (64, 128, 256, 512, 1024)
  tokens_per_call: int = 8192
  calls_in_flight: int = settings.recorded(default=2)
  name: str = 'metricx'

  def __post_init__(self):
    settings.make_tuples(self, 'length_buckets')
    if (self.version, self.with_reference) not in FORMS:
      raise ValueError(f'version must be 23 or 24; got {self.version!r}.')
    settings.one_of(self, ('float32', 'bfloat16'), 'dtype')
    settings.rising(self, 'length_buckets')
    settings.at_least(self, 1, 'tokens_per_call', 'calls_in_flight')
    buckets = self.length_buckets
    if not 2 <= self.max_input_length <= buckets[-1] + 1:
      raise ValueError(
        'max_input_length must be at least 2, and at most one more than the '
        f'largest of length_buckets {buckets}, since EOS is dropped; got '
        f'{self.max_input_length}.'
      )

  @property
  def needs_references(self) -> bool:
    return self.with_reference

  @property
  def vocabulary_path(self) -> pathlib.Path:
    if self.vocabulary_file is not None:
      return pathlib.Path(self.vocabulary_file)
    return pathlib.Path(self.directory) / VOCABULARY_FILE

  def check(self) -> str:
    """Reads the vocabulary, and names and shapes of the checkpoint."""
    folder = safetensors_folder.Folder(self.directory)
    config = huggingface.check_scalar_model(folder, SCORE_PIECE)
    vocabulary = vocabularies.Vocabulary(self.vocabulary_path)
    own = pathlib.Path(self.directory) / VOCABULARY_FILE
    if own.is_file() and vocabulary.digest != (
      vocabularies.Vocabulary(own).digest
    ):
      raise ValueError(
        f'vocabulary_file must be {own}, which is beside the weights; '
        f'{self.vocabulary_file} is another vocabulary. Leave vocabulary_file '
        'out.'
      )
    if vocabulary.size > config.vocab_size:
      raise ValueError(
        f'the vocabulary {self.vocabulary_path} must not have more pieces than '
        f'the checkpoint embeds, {config.vocab_size}; it has '
        f'{vocabulary.size}. Use the spiece.model of mT5.'
      )
    kind = 'with reference' if self.with_reference else 'reference-free'
    return f'MetricX-{self.version} of {self.directory}, {kind}, {self.dtype}'

  def load(self, resources: base.Resources) -> 'MetricXReward':
    """Checks the checkpoint; weights are read at the first scoring."""
    return MetricXReward(self, resources.mesh)


class MetricXReward:
  """The negative of a MetricX score, in [-25, 0]; see `base.Reward`.

  Attributes:
    name: name of the reward.
    digest: digest of settings, vocabulary and the checkpoint's files.
    needs_references: whether the score reads references.
    config: the settings.
  """

  def __init__(self, config: MetricX, mesh_config: mesh_lib.MeshConfig):
    """Checks the folder; raises the errors of `MetricX.check`."""
    config.check()
    self.name = config.name
    self.needs_references = config.needs_references
    self.config = config
    self._vocabulary = vocabularies.Vocabulary(config.vocabulary_path)
    self._folder = safetensors_folder.Folder(config.directory)
    self._mesh_config = mesh_config
    self._mesh = mesh_config.build_local()
    if 1 == self._mesh.shape['model'] < mesh_config.model:
      raise ValueError(
        f'MeshConfig.model = {mesh_config.model} cannot split {config.name} over '
        "one process's devices: there is one, or the network of such a TPU slice "
        'does not let some of its chips work together. Score where one process '
        'has all devices (docs/tpu.md), or set MeshConfig.model = 1.'
      )
    sizes = huggingface.network_config(self._folder.config)
    self._model = scalar.ScalarModel(
      dataclasses.replace(sizes, dtype=config.dtype)
    )

  @functools.cached_property
  def digest(self) -> str:
    described = settings.describe(self.config)
    # The digest does not depend on the path of the files.
    for name in ('directory', 'vocabulary_file'):
      del described[name]
    described['vocabulary'] = self._vocabulary.digest
    described['files'] = {
      path.name: files.sha256(path) for path in self._folder.files
    }
    return base.digest_of(described, sort_keys=True)

  @functools.cached_property
  def _params(self) -> types.Params:
    """Returns the parameters on the devices, read at the first call."""
    params = huggingface.load_scalar_model(
      self._folder, SCORE_PIECE, dtype=self.config.dtype
    )
    return mesh_lib.put_params(
      params, self._model.logical_axes(), self._mesh, self._mesh_config.rules
    )

  def score(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: base.References = None,
  ) -> Float32[np.ndarray, ' n']:
    """Scores each hypothesis; see `base.Reward.score`."""
    return self.measured_score(sources, hypotheses, references)[0]

  def measured_score(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: base.References = None,
  ) -> tuple[Float32[np.ndarray, ' n'], scoring_plan.Statistics | None]:
    """Like `score`, with statistics; None for no hypotheses."""
    base.check_texts(sources, hypotheses, references)
    if not len(sources):
      return np.zeros(0, np.float32), None
    began = time.monotonic()
    texts, text_of = scoring_plan.distinct(
      self.inputs(sources, hypotheses, references)
    )
    tokens, cut = self.encode(texts)
    scores, computed = self._scores(ragged.Ragged.from_lists(tokens))
    rewards = -scores[text_of]
    base.check_finite(self.name, sources, hypotheses, rewards)
    statistics = scoring_plan.Statistics(
      hypotheses=len(rewards),
      distinct=len(texts),
      truncated={'inputs': (cut, len(texts))},
      real_token_share=sum(map(len, tokens)) / computed,
      seconds=time.monotonic() - began,
    )
    statistics.log(self.name, logging.INFO)
    return rewards, statistics

  def inputs(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: base.References = None,
  ) -> list[str]:
    """Returns the encoder's text for each hypothesis."""
    form = FORMS[self.config.version, self.config.with_reference]
    if self.config.with_reference:
      references = base.needed(self.name, references)
    else:
      references = [''] * len(sources)
    return [
      form.format(source=source, hypothesis=hypothesis, reference=reference)
      for source, hypothesis, reference in zip(
        sources, hypotheses, references, strict=True
      )
    ]

  def encode(self, texts: Sequence[str]) -> tuple[list[np.ndarray], int]:
    """Returns tokens per input without EOS, and how many were truncated."""
    rows = self._vocabulary.encode_batch(texts)
    # An input has at most `max_input_length` tokens with EOS; then EOS is
    # dropped.
    longest = self.config.max_input_length - 1
    return [row[:longest] for row in rows], sum(len(r) > longest for r in rows)

  def scores(self, tokens: Sequence[np.ndarray]) -> Float32[np.ndarray, ' n']:
    """Returns MetricX's own scores: in [0, 25], lower is better.

    Args:
      tokens: n inputs of token ids without EOS, with at least one token and at
        most the largest of `length_buckets`.

    Returns:
      n scores.
    """
    return self._scores(ragged.Ragged.from_lists(tokens))[0]

  def _scores(
    self, tokens: ragged.Ragged
  ) -> tuple[Float32[np.ndarray, ' n'], int]:
    """Returns the scores of inputs and the number of computed tokens."""
    with mesh_lib.use(self._mesh, self._mesh_config.rules):
      scores, computed = scoring_plan.collect(
        self._calls(tokens),
        len(tokens),
        calls_in_flight=self.config.calls_in_flight,
        description=f'reward {self.name}',
        unit='input',
      )
    # NaN stays NaN; the caller reports it.
    return np.clip(scores, 0.0, WORST_SCORE), computed

  def _calls(
    self, tokens: ragged.Ragged
  ) -> Iterator[tuple[Int[np.ndarray, ' B'], jax.Array, int]]:
    """Yields inputs, their scores and the computed tokens of each call."""
    ids = self._model.config.special_ids
    padded = scoring_plan.bucket(self.config.length_buckets, tokens.lengths)
    for length in np.unique(padded):
      members = np.flatnonzero(padded == length)
      size = scoring_plan.call_rows(
        self.config.tokens_per_call // int(length),
        mesh_lib.num_parts(self._mesh),
      )
      for start in range(0, len(members), size):
        rows = np.full(size, scoring_plan.NONE, np.int64)
        chosen = members[start : start + size]
        rows[: len(chosen)] = chosen
        inputs = scoring_plan.pad(tokens, rows, int(length), ids)
        batch = mesh_lib.put_batch({'inputs': inputs}, self._mesh)
        result = first_values(self._model, self._params, batch['inputs'])
        yield rows, result, inputs.size


@functools.partial(jax.jit, static_argnums=0)
def first_values(
  model: scalar.ScalarModel, params: types.Params, inputs: Int[Array, 'B S']
) -> Float[Array, ' B']:
  """Returns the scalar of each input at the decoder's first position."""
  start = jnp.full(
    (inputs.shape[0], 1), model.config.special_ids.decoder_start, jnp.int32
  )
  # No targets: only the first position is read.
  values = model.module.apply({'params': params}, inputs, start)
  return jnp.asarray(values)[:, 0]
