r"""A ridge regression on simple features, and a run's reward model beside it.

  python -m benchmarks.ridge --ratings=../shared/data/ratings/da_wmt15-18.tsv.gz \
    --lang_pair=de-en --model_dir=runs/de_en_small

Both learn from the split train of the same ratings and see source and hypothesis
alone, no reference. The regression has tf-idf of the words of the hypothesis and
of the characters of both texts, and a few numbers on length, overlap and
repetition; its penalty is chosen on dev. Agreement with the ratings of `--split` is
shown within a source and over all; Pearson's correlation is compared by a paired
bootstrap over sources. With
`--reference_weight` the regression too learns from chrF to the references of the
ratings, as a reward of `rewards/learned_references.gin` does.

Prints one JSON line. Needs scikit-learn (`[bench]`).
"""

from collections.abc import Sequence
import dataclasses
import json
import pathlib
import sys

from absl import app, flags
import numpy as np

from rest_jax.data import ratings as ratings_lib
from rest_jax.data import words as words_lib
from rest_jax.evaluation import correlations
from rest_jax.rewards import corruptions, learned_references, reward_agreement

_RATINGS = flags.DEFINE_string(
  'ratings', None, 'A file as RatingsFile reads it.', required=True
)
_LANG_PAIR = flags.DEFINE_string('lang_pair', None, 'Such as de-en.')
_SPLIT = flags.DEFINE_string('split', 'test', 'Where both are compared.')
_MODEL_DIR = flags.DEFINE_string(
  'model_dir',
  None,
  'A finished run with `data`, `bc` and `reward`; none: ridge alone.',
)
_GIN_FILES = flags.DEFINE_multi_string(
  'gin_file', [], 'After the configuration of the run: another reward.'
)
_BINDINGS = flags.DEFINE_multi_string('gin_bindings', [], 'After those files.')
_FEATURES = flags.DEFINE_integer(
  'features', 60_000, 'Most frequent n-grams of each of the three kinds.'
)
_REFERENCE_WEIGHT = flags.DEFINE_float(
  'reference_weight', 0.0, 'Of chrF beside a rating in what the ridge fits.'
)
_RESAMPLES = flags.DEFINE_integer('resamples', 5_000, 'Of the bootstrap.')

_PENALTIES = (3.0, 10.0, 30.0, 100.0)
_MARKS = '.,;:!?'


def numbers(source: str, hypothesis: str) -> list[float]:
  """Features of length, overlap and repetition, of one pair of texts."""
  words = [words_lib.split_words(text.lower()) for text in (source, hypothesis)]
  sizes = [max(len(of_text), 1) for of_text in words]
  lengths = [max(len(text), 1) for text in (source, hypothesis)]
  distinct = [set(of_text) for of_text in words]
  shared = len(distinct[0] & distinct[1])
  digits = [{w for w in of if any(c.isdigit() for c in w)} for of in distinct]
  pairs = list(zip(words[1], words[1][1:], strict=False))
  return [
    *np.log(sizes),
    *np.log(lengths),
    np.log(sizes[1] / sizes[0]),
    abs(np.log(sizes[1] / sizes[0])),
    np.log(lengths[1] / lengths[0]),
    abs(np.log(lengths[1] / lengths[0])),
    lengths[1] / sizes[1],
    shared / len(distinct[1] or 'x'),
    shared / len(distinct[0] or 'x'),
    float(digits[0] == digits[1]),
    len(digits[0] - digits[1]),
    1 - len(set(pairs)) / max(len(pairs), 1),
    len(distinct[1]) / sizes[1],
    *(hypothesis.count(mark) - source.count(mark) for mark in _MARKS),
    float(hypothesis[:1].isupper()),
    float(hypothesis[-1:] in _MARKS),
  ]


def fit(
  train: ratings_lib.Ratings, dev: ratings_lib.Ratings, num_features: int
):
  """Fits the regression.

  Args:
    train: to learn from, weighted by annotators.
    dev: chooses the penalty.
    num_features: of each kind of n-gram.

  Returns:
    The scores of ratings, a function, and the penalty.
  """
  import scipy.sparse
  from sklearn import feature_extraction, linear_model, preprocessing

  def tf_idf(**settings):
    return feature_extraction.text.TfidfVectorizer(
      sublinear_tf=True, min_df=3, max_features=num_features, **settings
    )

  columns = [
    (tf_idf(ngram_range=(1, 2), token_pattern=r'\S+'), 'hypothesis'),
    (tf_idf(analyzer='char_wb', ngram_range=(2, 4)), 'hypothesis'),
    (tf_idf(analyzer='char_wb', ngram_range=(2, 4)), 'source'),
  ]
  scaler = preprocessing.StandardScaler()

  def dense(rated):
    rows = zip(rated.source, rated.hypothesis, strict=True)
    return np.array([numbers(*row) for row in rows])

  def features(rated, *, is_first=False):
    name = 'fit_transform' if is_first else 'transform'
    parts = [
      getattr(vectorizer, name)(getattr(rated, field))
      for vectorizer, field in columns
    ]
    scaled = getattr(scaler, name)(dense(rated))
    # Numbers have about the length of a row of tf-idf.
    return scipy.sparse.hstack(
      [*parts, scaled / np.sqrt(scaled.shape[1])], format='csr'
    )

  rows, seen = features(train, is_first=True), features(dev)
  best = None
  for penalty in _PENALTIES:
    model = linear_model.Ridge(alpha=penalty, solver='sparse_cg', tol=1e-3)
    model.fit(rows, train.score, sample_weight=train.weight)
    found = correlations.pearson(model.predict(seen), dev.score)
    print(f'penalty {penalty:g}: dev {found:.3f}', file=sys.stderr, flush=True)
    if best is None or found > best[0]:
      best = found, penalty, model
  _, penalty, model = best
  return lambda rated: model.predict(features(rated)), penalty


def reward_scores(
  model_dir: pathlib.Path,
  gin_files: Sequence[str],
  overrides: Sequence[str],
  rated: ratings_lib.Ratings,
) -> np.ndarray:
  """Scores ratings by the reward of a run, or one around what it trained.

  Args:
    model_dir: of the run; its `data`, `bc` and `reward` are finished.
    gin_files: read after the run's own configuration.
    overrides: bindings after them.
    rated: what to score.
  """
  from rest_jax import experiment_run as run_lib
  from rest_jax.config import gin_files, registry

  registry.register()
  experiment = gin_files.parse_and_build(
    [str(model_dir / 'config.gin'), *gin_files],
    overrides,
    root=registry.ROOT,
  )
  reward = run_lib.Run(experiment, model_dir).reward_model
  return reward.score(rated.source, rated.hypothesis)


def compare(
  ours: np.ndarray,
  theirs: np.ndarray,
  rated: ratings_lib.Ratings,
  num_resamples: int,
) -> dict[str, float]:
  """Paired bootstrap of the difference of two correlations with ratings.

  Sources are drawn with replacement, each with all of its rows.

  Returns:
    The difference ours - theirs, the ends of its 95 % interval, and the
    two-sided p = 2 min(share of resamples <= 0, share >= 0), at least
    2 / (resamples + 1).
  """
  _, source = np.unique(rated.source, return_inverse=True)
  count = source.max() + 1
  random = np.random.default_rng(0)
  found = []
  for _ in range(num_resamples):
    times = np.bincount(random.integers(count, size=count), minlength=count)
    weights = times[source].astype(np.float64)
    found.append(
      correlations.pearson(ours, rated.score, weights)
      - correlations.pearson(theirs, rated.score, weights)
    )
  found = np.array(found)
  tail = min((found <= 0).sum(), (found >= 0).sum())
  low, high = np.percentile(found, [2.5, 97.5])
  return {
    'difference': correlations.pearson(ours, rated.score)
    - correlations.pearson(theirs, rated.score),
    'low': float(low),
    'high': float(high),
    'p': min(1.0, 2 * float(tail + 1) / (num_resamples + 1)),
  }


def _agreement(scores: np.ndarray, rated: ratings_lib.Ratings) -> dict:
  return reward_agreement.agreement(
    scores, rated.score, rated.source, num_resamples=_RESAMPLES.value
  )


def main(argv: list[str]) -> None:
  del argv
  rated = ratings_lib.RatingsFile(
    path=_RATINGS.value, lang_pair=_LANG_PAIR.value
  ).read()
  train = rated.select('train')
  if _REFERENCE_WEIGHT.value:
    taught, _ = learned_references.teach(
      learned_references.RatedReferences(weight=_REFERENCE_WEIGHT.value),
      train,
      chrf_beta=corruptions.CorruptionConfig().chrf_beta,
    )
    train = dataclasses.replace(train, score=taught.scores)
  predict, penalty = fit(train, rated.select('dev'), _FEATURES.value)
  judged = rated.select(_SPLIT.value)
  ridge = np.asarray(predict(judged))
  result = {
    'split': _SPLIT.value,
    'rows': len(judged),
    'ridge': {
      'penalty': penalty,
      'reference_weight': _REFERENCE_WEIGHT.value,
      **_agreement(ridge, judged),
    },
  }
  if _MODEL_DIR.value:
    ours = reward_scores(
      pathlib.Path(_MODEL_DIR.value), _GIN_FILES.value, _BINDINGS.value, judged
    )
    result['reward'] = _agreement(ours, judged)
    result['paired'] = compare(ours, ridge, judged, _RESAMPLES.value)
  print(json.dumps(result))


if __name__ == '__main__':
  app.run(main)
