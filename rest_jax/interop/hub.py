"""Models of the Hugging Face Hub, by their names."""

import pathlib

# Configuration, weights and tokenisers; no pickles and no weights of other kinds.
_PATTERNS = ('*.json', '*.safetensors', '*.model', '*.spm')


def fetch(name: str) -> pathlib.Path:
  """Downloads a model, or finds it in the cache of earlier downloads.

  Args:
    name: of the model, such as 'Helsinki-NLP/opus-mt-en-de'.

  Returns:
    The folder with its files.

  Raises:
    FileNotFoundError: huggingface_hub is not installed, or does not get the model.
  """
  by_hand = f'hf download {name} --local-dir={name.split("/")[-1]}'
  try:
    # Installed by who wants it.
    import huggingface_hub  # pyright: ignore[reportMissingImports]
  except ImportError as error:
    raise FileNotFoundError(
      f'there is no folder {name}. If it is the name of a model on the Hugging '
      'Face Hub, pip install huggingface_hub, or download it elsewhere: '
      f'{by_hand}.'
    ) from error
  try:
    found = huggingface_hub.snapshot_download(
      name, allow_patterns=list(_PATTERNS)
    )
  # Whatever a network, a server or a missing permission raises.
  except Exception as error:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    raise FileNotFoundError(
      f'{name} is no folder, and cannot be fetched from the Hugging Face Hub '
      f'({reason[0]}). Check the name and the network, or download it elsewhere: '
      f'{by_hand}.'
    ) from error
  return pathlib.Path(found)
