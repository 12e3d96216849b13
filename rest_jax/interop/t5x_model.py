"""T5X's model with the filtered loss of an Improve step.

For T5X's own `t5x.train` and `t5x.infer`, by the gin files of gin_configs/t5x/;
docs/t5x.md has the commands. The only module that imports T5X, with it
TensorFlow and SeqIO: import it by its name, where T5X is installed.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

# T5X and what it brings are an extra.
from clu import metrics as clu_metrics  # pyright: ignore[reportMissingImports]
import jax
import jax.numpy as jnp
import seqio  # pyright: ignore[reportMissingImports]
from t5x import metrics as metrics_lib  # pyright: ignore[reportMissingImports]
from t5x import models  # pyright: ignore[reportMissingImports]
import tensorflow as tf  # pyright: ignore

from rest_jax import types
from rest_jax.data import stored_rows
from rest_jax.filters import base as filters_base
from rest_jax.losses import base as losses_base
from rest_jax.losses import bc
from rest_jax.models import policy as policy_lib

# What a row is given that has no reward: a pair that F keeps.
_UNSCORED = {'rewards': 0.0, 'thresholds': float('-inf'), 'row_weights': 1.0}
_COLUMNS = ('rewards',)
# Type checkers do not see its fields.
_Average: Any = clu_metrics.Average


class RowsFeatureConverter(seqio.EncDecFeatureConverter):
  """T5X's batch, and the numbers of `stored_rows.REWARD_FEATURES` beside it.

  A row without them, such as a prepared pair, is one that F keeps.
  """

  MODEL_FEATURES = {  # noqa: RUF012 (as in SeqIO)
    **seqio.EncDecFeatureConverter.MODEL_FEATURES,
    **{
      name: seqio.FeatureConverter.FeatureSpec(dtype=tf.float32, rank=0)
      for name in stored_rows.REWARD_FEATURES
    },
  }

  def __init__(self, pack: bool = False, **settings: Any):
    if pack:
      raise ValueError(
        'pack must be False: SeqIO packs whole numbers alone, and rewards are '
        'none. Set DatasetConfig.pack = False.'
      )
    super().__init__(pack=False, **settings)

  def _convert_example(self, features):
    converted = dict(super()._convert_example(features))
    for name, default in _UNSCORED.items():
      value = features.get(name, tf.constant(default, tf.float32))
      converted[name] = tf.cast(value, tf.float32)
    return converted

  def get_model_feature_lengths(self, task_feature_lengths):
    lengths = super().get_model_feature_lengths(task_feature_lengths)
    return {**lengths, **dict.fromkeys(stored_rows.REWARD_FEATURES, 1)}


class ReSTModel(models.EncoderDecoderModel):
  """An encoder-decoder whose loss is F(x, y; tau) L(x, y; theta).

  F is applied to the batch's rewards and thresholds; L is a loss of this package
  that looks at a batch alone. The loss is its sum over its normaliser, the
  weighted tokens of the batch for `BC`. With a `loss_normalizing_factor`, a
  number, it is the sum over that number: micro-batches add up to the batch, and
  tokens weigh alike in all batches, as in an Improve step here, which divides by
  the weighted tokens that a batch has on average.

  Source: ReST (arXiv 2308.08998), Eq. 2.
  """

  FEATURE_CONVERTER_CLS = RowsFeatureConverter

  def __init__(
    self,
    *args: Any,
    loss: losses_base.Loss | None = None,
    is_inclusive: bool = False,
    **settings: Any,
  ):
    """Makes the model.

    Args:
      *args: of T5X's `EncoderDecoderModel`.
      loss: L; None for BC with T5X's `label_smoothing` and `z_loss`.
      is_inclusive: whether F is R >= tau rather than the paper's R > tau.
      **settings: of T5X's `EncoderDecoderModel`.

    Raises:
      ValueError: for a loss that needs more than a batch, or a normalising
        factor that is no number.
    """
    super().__init__(*args, **settings)
    if loss is None:
      loss = bc.BC(
        label_smoothing=self._label_smoothing, z_loss=self._z_loss or 0.0
      )
    elif self._label_smoothing or self._z_loss:
      raise ValueError(
        'label_smoothing and z_loss must be 0 where a loss is given; got '
        f'{self._label_smoothing} and {self._z_loss}. The loss has its own.'
      )
    _check_loss(loss, self.output_vocabulary.vocab_size)
    factor = self._loss_normalizing_factor
    if factor is not None and not isinstance(factor, int | float):
      raise ValueError(
        'loss_normalizing_factor must be a number, or None for the normaliser '
        f'of the loss; got {factor!r}.'
      )
    self._loss = loss
    self._is_inclusive = is_inclusive

  def loss_fn(
    self,
    params: types.Params,
    batch: Mapping[str, jax.Array],
    dropout_rng: jax.Array | None,
  ) -> tuple[jax.Array, dict[str, clu_metrics.Metric]]:
    """Returns the loss and T5X's metrics: `loss`, `kept`, and the loss's own."""
    if jax.tree.leaves(self._loss.init_auxiliary(params, {})):
      raise ValueError(_needs_more(self._loss, 'keeps state of its own'))
    batch = filters_base.mask_rows(dict(batch), self._is_inclusive)
    output = self._loss(
      losses_base.Inputs(
        model=_Scored(self),
        params=params,
        batch=batch,
        dropout_key=dropout_rng,
      )
    )
    normalizer = self._loss_normalizing_factor
    if normalizer is None:
      # A batch of which F keeps nothing has the loss 0, not NaN.
      normalizer = jnp.where(output.normalizer > 0, output.normalizer, 1.0)
    loss = output.weighted_sum / normalizer
    rows = batch['decoder_loss_weights'].max(-1) > 0  # [B]
    metrics: dict[str, clu_metrics.Metric] = {
      'loss': metrics_lib.AveragePerStep(total=loss),
      'kept': _Average(total=rows.sum(), count=rows.size),
      'timing/seconds': metrics_lib.Time(),
      'timing/steps_per_second': metrics_lib.StepsPerTime.from_model_output(),
    }
    for name, (total, count) in output.metrics.items():
      metrics[name] = _Average(total=total, count=count)
    return loss, metrics


@dataclasses.dataclass(frozen=True)
class _Scored:
  """T5X's module in the shape that losses know."""

  model: ReSTModel

  def logits(self, params, batch, *, dropout_key=None):
    """Float32 logits of each target position, [B, T, V]."""
    logits = self.model._compute_logits(params, batch, dropout_key)
    return jnp.asarray(logits, jnp.float32)

  def log_probs(self, params, batch, *, dropout_key=None):
    """log pi(y_t | y_<t, x) of every target token in nats, [B, T]."""
    logits = self.logits(params, batch, dropout_key=dropout_key)
    return policy_lib.target_log_probs(logits, batch['decoder_target_tokens'])


def _check_loss(loss: losses_base.Loss, vocab_size: int) -> None:
  """Raises ValueError for a loss that needs more than a batch of rows."""
  columns = sorted(set(loss.columns) - set(_COLUMNS))
  reasons = {
    f'needs {", ".join(loss.needs)}': loss.needs,
    f'reads {", ".join(columns)}': columns,
    'gathers statistics of the global batch': loss.needs_statistics,
    'pairs rows': loss.layout is not losses_base.Layout.ROWS,
    'starts the decoder with another token': (
      loss.decoder_start(vocab_size) is not None
    ),
  }
  for reason, applies in reasons.items():
    if applies:
      raise ValueError(_needs_more(loss, reason))


def _needs_more(loss: losses_base.Loss, reason: str) -> str:
  return (
    f'loss must look at a batch of rows alone, as BC and RewardWeightedBC do; '
    f'{loss.name} {reason}. Run that Improve step with rest-jax run.'
  )
