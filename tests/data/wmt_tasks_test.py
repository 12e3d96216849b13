"""The tasks of WMT's text, read from a miniature of what TFDS prepares."""

import itertools

import pytest

from rest_jax.config import gin_files, registry
from rest_jax.data import seqio_tasks, sources

_MODULE = 'rest_jax.data.wmt_tasks'
_TEXTS = {
  'train': [('你好。', 'Hello.'), ('三个', 'three'), ('谢谢', 'thanks')],
  'validation': [('新闻', 'news')],
}


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  """A folder in which TFDS's builder of this name has prepared texts."""
  # Here, since it takes long and every worker of a run reads this file.
  tfds = pytest.importorskip(
    'tensorflow_datasets', reason='TensorFlow Datasets is not installed'
  )

  class Wmt19Translate(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes what TFDS's builder does, of texts at hand."""

    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name='zh-en'),)

    def _info(self):
      return tfds.core.DatasetInfo(
        builder=self,
        features=tfds.features.Translation(languages=('zh', 'en')),
      )

    def _split_generators(self, dl_manager):
      del dl_manager
      return {name: self._generate_examples(name) for name in _TEXTS}

    def _generate_examples(self, name):  # pyright: ignore
      for key, (source, target) in enumerate(_TEXTS[name]):
        yield key, {'zh': source, 'en': target}

  path = tmp_path_factory.mktemp('tfds')
  Wmt19Translate(data_dir=path).download_and_prepare()
  return path


@pytest.fixture
def tfds_folder():
  """Names the folder where TFDS looks for its data."""
  seqio = pytest.importorskip('seqio', reason='SeqIO is not installed')
  before = seqio.utils._TFDS_DATA_DIR_OVERRIDE
  yield lambda path: seqio.set_tfds_data_dir_override(str(path))
  seqio.set_tfds_data_dir_override(before)


def test_prepared_text_is_read(tfds_folder, prepared):
  tfds_folder(prepared)
  for split, texts in _TEXTS.items():
    pairs = seqio_tasks.SeqioPairs(
      task='wmt20_zh_en', module=_MODULE, split=split
    )
    read = [list(pairs.read()) for _ in range(2)]
    # TFDS has an order of its own, always the same.
    assert read[0] == read[1]
    assert sorted(read[0]) == sorted(itertools.starmap(sources.Pair, texts))


def test_the_task_file_reads_it(tfds_folder, prepared):
  tfds_folder(prepared)
  registry.register()
  files = {
    f'{split}_{side}': "('a',)"
    for split in ('VALIDATION', 'TEST')
    for side in ('SOURCES', 'REFERENCES')
  }
  task = gin_files.parse_and_build(
    [
      'gin_configs/experiments/wmt20_zh_en.gin',
      'gin_configs/tasks/wmt20_tfds.gin',
    ],
    [
      *(f'{name}={value}' for name, value in files.items()),
      "RATINGS_FILE='ratings.tsv'",
      'NUM_TRAIN_PAIRS=2',
    ],
    root=registry.ROOT,
  ).task
  assert len(list(task.train.read())) == 2


def test_text_that_nobody_prepared_says_what_to_run_where(
  tfds_folder, tmp_path
):
  # Imported here, since it is there only where SeqIO is.
  from rest_jax.data import wmt_tasks

  tfds_folder(tmp_path)
  name = 'wmt19_translate/zh-en:1.0.0'
  wmt_tasks.register_translation('wmt_missing', name, 'zh', 'en')
  with pytest.raises(FileNotFoundError) as raised:
    next(seqio_tasks.SeqioPairs(task='wmt_missing').read())
  message = str(raised.value)
  assert "'wmt_missing' cannot be read" in message
  assert 'where there is a network' in message
  assert f"tfds.load('{name}', data_dir='{tmp_path}')" in message
