"""WMT's training text, as TFDS prepares it, as SeqIO tasks of plain text.

`gin_configs/tasks/wmt20_tfds.gin` reads them; anything else that speaks SeqIO may.
It imports SeqIO and with it TensorFlow: import it by its name.

TFDS prepares where there is a network, once, in `~/tensorflow_datasets` or the
folder that the environment variable TFDS_DATA_DIR names.
"""

import functools
from typing import Any

# Not every environment has it.
import seqio  # pyright: ignore[reportMissingImports]
import tensorflow as tf  # pyright: ignore[reportMissingImports]

# TFDS has no builder of WMT 2020; most of its Chinese-English text is in that of
# the year before: news commentary, the UN corpus, CWMT.
_ZH_EN = 'wmt19_translate/zh-en:1.0.0'


def register_translation(
  name: str, dataset: str, source_language: str, reference_language: str
) -> str:
  """Makes a SeqIO task of plain text of one of TFDS's translation builders.

  Args:
    name: of the task.
    dataset: of TFDS with its configuration, as in 'wmt19_translate/zh-en:1.0.0'.
    source_language: its feature that becomes `inputs`.
    reference_language: its feature that becomes `targets`.

  Returns:
    The name.

  Raises:
    ValueError: another task has the name.
  """
  text: Any = seqio.Feature(
    seqio.PassThroughVocabulary(1), add_eos=False, dtype=tf.string, rank=0
  )
  # Nothing is downloaded in the midst of a run.
  source: Any = seqio.TfdsDataSource(dataset, read_only=True)
  seqio.TaskRegistry.add(
    name,
    source=source,
    preprocessors=[
      functools.partial(
        seqio.preprocessors.rekey,
        key_map={'inputs': source_language, 'targets': reference_language},
      )
    ],
    output_features={'inputs': text, 'targets': text},
  )
  return name


register_translation('wmt20_zh_en', _ZH_EN, 'zh', 'en')
