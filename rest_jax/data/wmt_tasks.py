"""WMT's training text, as TFDS prepares it, as SeqIO tasks of plain text.

`gin_configs/tasks/wmt20_tfds.gin` reads them; other SeqIO programs can too. The
module imports SeqIO and TensorFlow, so import it only by name.

TFDS prepares the data once, on a machine with a network, in
`~/tensorflow_datasets` or in the folder of the environment variable
TFDS_DATA_DIR.
"""

import functools
from typing import Any

# Not every environment has it.
import seqio  # pyright: ignore[reportMissingImports]
import tensorflow as tf  # pyright: ignore[reportMissingImports]

# TFDS has no builder for WMT 2020; most of its Chinese-English text is in that
# of 2019: news commentary, the UN corpus, CWMT.
_ZH_EN = 'wmt19_translate/zh-en:1.0.0'


def register_translation(
  name: str, dataset: str, source_language: str, reference_language: str
) -> str:
  """Registers a translation builder of TFDS as a SeqIO task of plain text.

  Args:
    name: name of the task.
    dataset: TFDS data set with configuration, such as
      'wmt19_translate/zh-en:1.0.0'.
    source_language: feature that becomes `inputs`.
    reference_language: feature that becomes `targets`.

  Returns:
    The name.

  Raises:
    ValueError: another task has the name.
  """
  text: Any = seqio.Feature(
    seqio.PassThroughVocabulary(1), add_eos=False, dtype=tf.string, rank=0
  )
  # Nothing is downloaded during a run.
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
