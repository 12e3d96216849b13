"""The context of a run: settings and loaded objects that its stages share."""

from collections.abc import Mapping
import dataclasses
import functools
import pathlib

from rest_jax.data import task as task_lib
from rest_jax.data import vocabularies
from rest_jax.losses import base as losses_base
from rest_jax.losses import bc as bc_loss
from rest_jax.models import network as network_lib
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.rewards import base as rewards_base
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import prepare, vocabulary_record

# The name, in `Context.given`, of the setting of a finished Grow.
GROW_DIR = 'GROW_DIR'


@dataclasses.dataclass(kw_only=True)
class Context:
  """Settings and loaded objects that all stages of a run share.

  Attributes:
    reward: settings of R; None if nothing is scored.
    loss: loss of the Improve steps; it may change the decoder's first input.
    languages: see `Task.languages`; None for those of `vocabulary`.
    given: finished folders of other runs, by the names of their settings.
    overwrite: make stages with changed settings again, instead of refusing.
  """

  data_folder: pathlib.Path
  bc_folder: pathlib.Path = pathlib.Path('bc')
  network: network_lib.NetworkConfig = network_lib.NetworkConfig()
  mesh: mesh_lib.MeshConfig = dataclasses.field(
    default_factory=mesh_lib.MeshConfig
  )
  reward: rewards_base.RewardConfig | None = None
  loss: losses_base.Loss = bc_loss.BC()
  vocabulary: vocabularies.VocabularyConfig = dataclasses.field(
    default_factory=vocabularies.VocabularyConfig
  )
  languages: vocabularies.Languages | None = None
  given: Mapping[str, str] = dataclasses.field(default_factory=dict)
  overwrite: bool = False
  _rewards: dict[pathlib.Path, rewards_base.Reward] = dataclasses.field(
    default_factory=dict
  )
  # With the settings of each.
  _judges: dict[pathlib.Path, tuple[task_lib.Judge, rewards_base.Reward]] = (
    dataclasses.field(default_factory=dict)
  )

  @property
  def is_prepared(self) -> bool:
    return folder_lib.is_finished(self.data_folder)

  @functools.cached_property
  def data(self) -> prepare.PreparedData:
    return prepare.load(self.data_folder)

  def forget_data(self) -> None:
    """Forgets all that was loaded from prepared data, which are made again."""
    for name in ('data', 'policy', 'improved_policy'):
      self.__dict__.pop(name, None)
    self._rewards.clear()
    self._judges.clear()

  @functools.cached_property
  def policy(self) -> policy_lib.Policy:
    """The network of BC."""
    data = self.data
    self._check_vocabularies(
      data.vocabulary.digest,
      str(vocabularies.stored(data.directory)),
      data.digest,
    )
    if grown := self.given.get(GROW_DIR):
      vocabulary_record.check_samples(GROW_DIR, grown, data)
    network = self.network.with_vocab(data.vocabulary.size)
    return policy_lib.Policy(
      network.with_special_ids(data.vocabulary.special_ids)
    )

  @functools.cached_property
  def improved_policy(self) -> policy_lib.Policy:
    """The network of the Improve steps, whose loss may change its first input."""
    start = self.loss.decoder_start(self.policy.config.vocab_size)
    return self.policy.starting_with(start)

  def load_reward(self, trained: pathlib.Path) -> rewards_base.Reward:
    """Returns R with its trained part; it is loaded once.

    Args:
      trained: finished folder of stage `reward`; not read if no part of R is
        trained.
    """
    assert self.reward is not None  # Only stages that score load a reward.
    if trained not in self._rewards:
      self._rewards[trained] = self.reward.load(self.resources(trained))
    return self._rewards[trained]

  def load_judge(
    self, judge: task_lib.Judge, trained: pathlib.Path
  ) -> rewards_base.Reward:
    """Returns a judge, which may read what R reads; it is loaded once."""
    known = self._judges.get(trained)
    if known is None or known[0] is not judge:
      known = judge, judge.load(self.resources(trained))
      self._judges[trained] = known
    return known[1]

  def resources(self, trained: pathlib.Path) -> rewards_base.Resources:
    """Returns what rewards may load; `trained` is that of stage `reward`."""
    return rewards_base.Resources(
      mesh=self.mesh,
      vocabulary=self.data.vocabulary,
      pairs=self.data.pairs(task_lib.TRAIN),
      network=self.policy.config,
      policy=self.bc_folder,
      trained=trained,
    )

  @property
  def vocabulary_size(self) -> int:
    """Number of pieces of the prepared, or else the configured vocabulary."""
    if self.is_prepared:
      return self.data.vocabulary.size
    if self.vocabulary.model_file is not None:
      return vocabularies.Vocabulary(self.vocabulary.model_file).size
    return self.vocabulary.size

  @functools.cached_property
  def given_vocabulary(self) -> vocabularies.Vocabulary | None:
    """The vocabulary that the settings name; None if it is trained."""
    path = self.vocabulary.model_file
    if path is None:
      return None
    languages = self.languages or self.vocabulary.languages
    return vocabularies.Vocabulary(path, languages)

  def check_vocabularies(self) -> None:
    """Checks that given folders of other runs have the vocabulary of this run.

    Raises:
      ValueError: one has another; the message says which, and what to do.
    """
    # The prepared vocabulary may be of an earlier setting.
    vocabulary = self.given_vocabulary
    if vocabulary is not None:
      if vocabulary.languages != vocabularies.OF_EACH_PAIR:
        _ = vocabulary.source  # Raises if a language is missing.
      digest, used = vocabulary.digest, str(self.vocabulary.model_file)
    elif self.is_prepared:
      digest = vocabulary_record.digest(self.data_folder)
      used = str(vocabularies.stored(self.data_folder))
    else:
      digest, used = None, 'one that it trains'
    self._check_vocabularies(digest, used)

  def _check_vocabularies(
    self, digest: str | None, used: str, data: str | None = None
  ) -> None:
    for name, directory in self.given.items():
      vocabulary_record.check(name, directory, digest, used, data)
