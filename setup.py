"""Describes the package; the settings of the tools are in pyproject.toml."""

import pathlib
import re

import setuptools

_HERE = pathlib.Path(__file__).parent
[_VERSION] = re.findall(
  r"^__version__ = '(.+)'$",
  (_HERE / 'rest_jax' / '__init__.py').read_text(encoding='utf-8'),
  re.MULTILINE,
)

# Lower bounds name the first line that is tested. The versions that the tests
# ran with are in launch/constraints.txt.
_INSTALL_REQUIRES = [
  'absl-py',
  'flax>=0.12',
  'gin-config>=0.5',
  'grain>=0.2',
  # TFDS imports it to prepare a data set, and does not ask for it.
  'importlib_resources',
  'jax>=0.10',
  'jaxtyping',
  'jinja2',
  'matplotlib',
  'numpy>=2',
  'optax',
  'orbax-checkpoint>=0.11',
  'pyarrow',
  'sacrebleu>=2.4',
  'safetensors',
  'scipy',
  'sentencepiece',
  # Brings TensorFlow, which only rest_jax.data.seqio_tasks imports.
  'seqio>=0.0.20',
  'tensorboardX',
  'tensorflow-datasets',
  'tqdm',
]

_GCS = ['gcsfs']
_RATE = ['flask>=3.1', 'waitress>=3']

_EXTRAS_REQUIRE = {
  # Cloud TPU VMs. Not for machines without a TPU: importing jax with libtpu
  # installed is slower and prints noise.
  'tpu': ['jax[tpu]', *_GCS],
  # A --model_dir such as gs://bucket/run.
  'gcs': _GCS,
  'cuda': ['jax[cuda12]'],
  'test': [
    'beartype',
    'gcp-storage-emulator',
    *_GCS,
    'hypothesis',
    'import-linter',
    # With a Node.js of its own, so that nothing is fetched at the first run.
    'pyright[nodejs]',
    # Older ones can't end a test that takes too long.
    'pytest>=9',
    'pytest-xdist',
    'ruff',
    *_RATE,
    'sacremoses',
  ],
  # Vocabularies that have a tokenizer.json, such as BART's and T5Gemma's.
  'tokenizers': ['tokenizers'],
  # The tokeniser of the customary split of IWSLT 2014.
  'iwslt': ['sacremoses'],
  # Peers to compare with. torch brings its own CUDA libraries.
  'bench': [
    'ctranslate2',
    'fastchrf',
    'scikit-learn',
    'torch',
    'transformers',
  ],
  # A second implementation of V-MPO, for one test; brings a nightly TFP.
  'rlax': ['rlax'],
  # T5X and two of its requirements are not on the package index, or not in a
  # version that builds.
  't5x': [
    'airio @ git+https://github.com/google/airio',
    'jestimator @ git+https://github.com/google-research/jestimator',
    't5x @ git+https://github.com/google-research/t5x',
  ],
  # Files of released learned metrics.
  'metrics': ['huggingface_hub'],
  # The page of --run_mode=rate.
  'rate': _RATE,
  # The site of the documentation: mkdocs serve.
  'docs': ['mkdocs-material'],
}

setuptools.setup(
  name='rest_jax',
  version=_VERSION,
  description='Reinforced Self-Training (ReST) for sequence models, in JAX',
  long_description=(_HERE / 'README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  author='The rest_jax Authors',
  license='Apache-2.0',
  license_files=['LICENSE'],
  python_requires='>=3.11',
  packages=[
    *setuptools.find_packages(include=['rest_jax', 'rest_jax.*']),
    # The gin files stand at the top of the repository and ship inside the
    # package; rest_jax/config/gin_files.py finds them in either place.
    'rest_jax.gin_configs',
    # What `rest-jax launch` copies to other machines beside the package.
    'rest_jax.project',
  ],
  package_dir={'rest_jax.gin_configs': 'gin_configs', 'rest_jax.project': '.'},
  package_data={
    'rest_jax': ['py.typed'],
    'rest_jax.gin_configs': ['README.md', '**/*.gin'],
    'rest_jax.project': [
      'LICENSE',
      'README.md',
      'launch/*.sh',
      'launch/constraints.txt',
      'pyproject.toml',
      'setup.py',
    ],
    'rest_jax.report.render': ['web/*'],
    'rest_jax.rating': ['static/*', 'templates/*'],
  },
  install_requires=_INSTALL_REQUIRES,
  extras_require=_EXTRAS_REQUIRE,
  entry_points={'console_scripts': ['rest-jax = rest_jax.cli.console:main']},
  classifiers=[
    'Intended Audience :: Science/Research',
    'Programming Language :: Python :: 3',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
  ],
)
