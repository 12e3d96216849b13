"""Tests of gin_files: what a configuration builds, and every way it is refused."""

import dataclasses
import os
import pathlib
import pickle
import subprocess
import sys
from typing import Any

import pytest

from rest_jax.config import gin_files


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cloning:
  smoothing: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weighted:
  horizon: int = 5
  model: Any = None
  tags: tuple[str, ...] = ()

  def __post_init__(self):
    if self.horizon < 1:
      raise ValueError(f'horizon must be at least 1; got {self.horizon}.')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
  loss: Any
  steps: int = 10
  path: str | None = None
  losses: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unused:
  x: int = 1


gin_files.register(Cloning, Weighted, Run, Unused)

CLONING = 'LOSS = @Cloning()\nCloning.smoothing = 0.1\n'
WEIGHTED = 'LOSS = @Weighted()\nWeighted.horizon = 7\n'
RUN = 'LOSS = %gin.REQUIRED\nSTEPS = 10\nRun.loss = %LOSS\nRun.steps = %STEPS\n'


@pytest.fixture
def build(tmp_path, monkeypatch):
  """Returns a function that writes texts to files and builds from them."""
  monkeypatch.chdir(tmp_path)

  def build_from(*texts: str, overrides: tuple[str, ...] = (), **files: str):
    for name, text in files.items():
      pathlib.Path(f'{name}.gin').write_text(text, encoding='utf-8')
    names = []
    for index, text in enumerate(texts):
      names.append(f'{index}.gin')
      pathlib.Path(names[-1]).write_text(text, encoding='utf-8')
    return gin_files.parse_and_build(names, overrides, root=Run)

  return build_from


def refused(build, *texts, **kwargs) -> str:
  with pytest.raises(gin_files.ConfigError) as caught:
    build(*texts, **kwargs)
  return str(caught.value)


# What is built.


def test_files_compose_left_to_right(build):
  assert build(RUN, CLONING) == Run(loss=Cloning(smoothing=0.1))
  assert build(RUN, WEIGHTED, 'STEPS = 3') == Run(
    loss=Weighted(horizon=7), steps=3
  )
  assert build(RUN, CLONING, 'STEPS = 3', 'STEPS = 4').steps == 4


def test_each_configuration_starts_from_nothing(build):
  build(RUN, CLONING, 'STEPS = 3')
  assert build(RUN, 'LOSS = @Cloning()') == Run(loss=Cloning())


def test_objects_are_of_the_class_itself(build):
  run = build(RUN, CLONING)
  assert type(run) is Run and type(run.loss) is Cloning
  assert pickle.loads(pickle.dumps(run)) == run


def test_includes_and_nested_references(build):
  run = build(
    "include 'run.gin'\ninclude 'weighted.gin'\nWeighted.model = @Cloning()\n"
    'Cloning.smoothing = %SMOOTHING\nSMOOTHING = 0.25\n'
    'Run.losses = (@Cloning(), [@Weighted()])',
    run=RUN,
    weighted=WEIGHTED,
  )
  weighted = Weighted(horizon=7, model=Cloning(smoothing=0.25))
  assert run.loss == weighted
  assert run.losses == (Cloning(smoothing=0.25), [weighted])


def test_scopes(build):
  run = build(
    RUN,
    'LOSS = @a/Weighted()\na/Weighted.horizon = 2\nWeighted.tags = ("t",)\n'
    'Run.losses = (@Weighted(), @b/Weighted())\nb/Weighted.horizon = 3',
  )
  assert run.loss == Weighted(horizon=2, tags=('t',))
  assert run.losses == (
    Weighted(tags=('t',)),
    Weighted(horizon=3, tags=('t',)),
  )


def test_include_beside_the_including_file(build, tmp_path):
  folder = tmp_path / 'mine'
  folder.mkdir()
  (folder / 'top.gin').write_text("include 'part.gin'\nRun.loss = 1")
  (folder / 'part.gin').write_text('Run.steps = 4')
  built = gin_files.parse_and_build([str(folder / 'top.gin')], root=Run)
  assert built == Run(loss=1, steps=4)


def test_current_folder_wins_over_the_package(build, tmp_path):
  package = pathlib.Path(gin_files.__file__).resolve().parents[1]
  name = 'gin_configs/experiments/demo.gin'
  shipped = [
    path for path in (package, package.parent) if (path / name).is_file()
  ]
  assert shipped, f'{name} is neither in the package nor beside it'
  mine = tmp_path / name
  mine.parent.mkdir(parents=True)
  mine.write_text('Run.loss = "mine"')
  assert gin_files.parse_and_build([name], root=Run).loss == 'mine'
  mine.unlink()
  # Now the package's is found, which is of other classes than these.
  with pytest.raises(gin_files.ConfigError) as caught:
    gin_files.parse_and_build([name], root=Run)
  assert 'gin_configs' in str(caught.value)
  assert 'no gin file' not in str(caught.value)


def test_import_registers_a_class_of_ones_own(build, tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(tmp_path)
  (tmp_path / 'my_losses.py').write_text(
    'import dataclasses\nfrom rest_jax.config import gin_files\n'
    '@dataclasses.dataclass(frozen=True)\nclass Mine:\n  x: int = 1\n'
    'gin_files.register(Mine)\n'
  )
  run = build('import my_losses', 'Run.loss = @Mine()\nMine.x = 2')
  assert (type(run.loss).__name__, run.loss.x) == ('Mine', 2)
  assert 'import my_losses' in gin_files.config_text()
  assert 'absent' in refused(build, 'import my_absent_module\nRun.loss = 1')


# Overrides.


@pytest.mark.parametrize(
  ('written', 'value'),
  [
    ('/data/wmt/train.de.gz', '/data/wmt/train.de.gz'),
    ('abc', 'abc'),
    ('it\'s "x"', 'it\'s "x"'),
    ('gs://b/a=b', 'gs://b/a=b'),
    ('2024-01-08', '2024-01-08'),
    ('a,b', 'a,b'),
    ("'7'", '7'),
    ("''", ''),
    ('7', 7),
    ('-1e-4', -1e-4),
    ('None', None),
    ('True', True),
    ('(0.7, 0.8)', (0.7, 0.8)),
    ("['a']", ['a']),
    ('@Cloning()', Cloning()),
    ('%STEPS', 10),
  ],
)
def test_override_values(build, written, value):
  for name in ('LOSS', 'Run.loss'):
    run = build(RUN, overrides=(f'{name}={written}',))
    assert run.loss == value and type(run.loss) is type(value)


@pytest.mark.parametrize(
  ('written', 'remedy'),
  [
    ('false', 'write False'),
    ('null', 'write None'),
    ('0.7,0.8', r'write a tuple as (0.7,0.8)'),
    ('@Cloning(', 'not closed'),
    ('(1, 2', 'not closed'),
    ("'a' = 2", 'cannot be read'),
    ('', 'a name and a value'),
    ('@Cloning', '@Cloning()'),
  ],
)
def test_override_values_refused(build, written, remedy):
  message = refused(build, RUN, overrides=(f'LOSS={written}',))
  assert f'--gin.LOSS={written}' in message and remedy in message


def test_override_replaces_a_required_value(build):
  run = build(RUN, CLONING, overrides=('STEPS=3', 'Cloning.smoothing=0.5'))
  assert run == Run(loss=Cloning(smoothing=0.5), steps=3)
  assert build(RUN, overrides=('LOSS=a', 'LOSS=b')).loss == 'b'


def test_split_flags():
  argv = ['main', '--gin.A=1', '--x', 'y', '-gin.B.c=d=e', '--', '--gin.C=1']
  rest, overrides = gin_files.split_flags(argv)
  assert rest == ['main', '--x', 'y', '--', '--gin.C=1']
  assert overrides == ['A=1', 'B.c=d=e']


@pytest.mark.parametrize('flag', ['--gin.A', '--gin.A=', '--gin.=3'])
def test_split_flags_refuses_half_a_flag(flag):
  with pytest.raises(gin_files.ConfigError, match='a name and a value'):
    gin_files.split_flags(['main', flag])


# What is refused.


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (
      'Cloning.smothing = 1',
      '1.gin:1: Cloning has no parameter smothing. Did ',
    ),
    ('Clonig.smoothing = 1', 'no class is named Clonig. Did you mean Cloning'),
    ('LOSS = @Clonig()', 'no class is named Clonig. Did you mean Cloning'),
    ('LOSS = @mod.Cloning()', 'is named mod.Cloning. Did you mean Cloning'),
    ('LOSS = @Cloning', '@Cloning is the class; write @Cloning()'),
    (
      'LOSS = @Cloning()\n\nLOS = 1',
      '1.gin:3: LOS is set, but nothing uses it.',
    ),
    ('LOSS = @Cloning()\nLOS = 1', 'Did you mean LOSS?'),
    ('LOSS = %STEP', '%STEP is not set anywhere. Did you mean STEPS?'),
    (
      'steps = 3',
      'steps is neither a macro (UPPERCASE) nor a Class.parameter.',
    ),
    ('steps = 3', 'Did you mean STEPS'),
    ('smoothing = 3', 'Did you mean Cloning.smoothing?'),
    ('LOSS = 1\nUnused.x = 2', 'this configuration builds no Unused'),
    ('LOSS = 1\nb/Run.steps = 2', 'no Run is built in that scope'),
    (
      'LOSS = @a/Cloning()\na/Cloning.smoothing = 1\nCloning.smoothing = 2',
      '1.gin:3: Cloning.smoothing is set, but each Cloning takes it from a scope',
    ),
    ('LOSS = 1\nSTEPS = 1\nSTEPS = 2', 'already set in line 2 of this file'),
    ('LOSS = abc', '1.gin:1: LOSS = abc\n  cannot be read: malformed'),
    ('LOSS = 1\nSTEPS 2', '1.gin:2: STEPS 2\n  cannot be read'),
    ('LOSS = (1,\n', 'not closed'),
    ('include "absent.gin"', '1.gin: no gin file absent.gin in '),
    ('from __gin__ import dynamic_registration', 'not supported'),
    ('LOSS = %A\nA = %B\nB = %A', '%A contains itself'),
    ('LOSS = @Weighted()\nWeighted.model = @Weighted()', 'contains itself'),
  ],
)
def test_faults_in_a_file(build, text, message):
  assert message in refused(build, RUN, text)


@pytest.mark.parametrize(
  ('override', 'message'),
  [
    (
      'LOS=1',
      'command line: LOS is set, but nothing uses it. Did you mean LOSS',
    ),
    ('loss=1', 'Did you mean LOSS'),
    ('Cloning.smothing=1', 'Did you mean smoothing?'),
    ('cloning.smoothing=1', 'Did you mean Cloning'),
    ('smoothing=1', 'Did you mean Cloning.smoothing?'),
    ('Unused.x=1', 'this configuration builds no Unused'),
    ('Weighted.horizon=1', 'this configuration builds no Weighted'),
  ],
)
def test_faults_in_an_override(build, override, message):
  assert message in refused(build, RUN, CLONING, overrides=(override,))


def test_missing_values_are_listed_at_once(build):
  message = refused(
    build,
    'DATA = %gin.REQUIRED\nTAGS = %gin.REQUIRED\nRun.path = %DATA\n'
    'Run.steps = %gin.REQUIRED\nRun.losses = (@Weighted(),)\n'
    'Weighted.tags = (%TAGS, "x")',
  )
  for line in (
    'DATA       required by 0.gin:1',
    'TAGS       required by 0.gin:2',
    'Run.steps  required by 0.gin:4',
    'Run.loss   required by the run itself',
  ):
    assert line in message
  assert '--gin.NAME=VALUE' in message


def test_required_values_out_of_use_are_not_missing(build):
  optional = 'DATA = %gin.REQUIRED\nWeighted.tags = %DATA\nLOSS = @Weighted()\n'
  assert 'DATA' in refused(build, RUN, optional)
  assert build(RUN, optional, CLONING).loss == Cloning(smoothing=0.1)


def test_a_run_file_after_the_file_that_fills_it(build):
  message = refused(build, CLONING, RUN)
  assert 'LOSS  required by 1.gin:1, after 0.gin:1 gave it' in message


def test_all_errors_are_reported_together(build):
  message = refused(build, RUN, 'Unused.x = 1\nSTEP = 1', overrides=('PATH=a',))
  assert message.startswith('4 problems:')
  for part in ('Unused.x', 'STEP is set', 'PATH is set', 'LOSS  required'):
    assert part in message


def test_absent_file_suggests_the_nearest(build, tmp_path):
  folder = tmp_path / 'gin_configs' / 'losses'
  folder.mkdir(parents=True)
  (folder / 'cloning.gin').write_text(CLONING)
  with pytest.raises(gin_files.ConfigError) as caught:
    gin_files.parse_and_build(['gin_configs/losses/clonin.gin'], root=Run)
  assert 'Did you mean gin_configs/losses/cloning.gin' in str(caught.value)
  assert str(tmp_path) in str(caught.value)


def test_files_that_include_each_other(build):
  message = refused(build, a="include 'b.gin'", b="include 'a.gin'")
  assert 'Run.loss' in message  # Neither file was asked for.
  message = refused(build, "include 'a.gin'")
  assert 'a.gin includes b.gin includes a.gin' in message


def test_file_that_is_not_utf8(build, tmp_path):
  (tmp_path / 'latin.gin').write_bytes(b'Run.loss = "\xe4"\n')
  assert 'latin.gin is not valid UTF-8' in refused(build, "include 'latin.gin'")


def test_a_class_refuses_its_values(build):
  with pytest.raises(ValueError, match='horizon must be at least 1; got 0'):
    build(RUN, WEIGHTED, overrides=('Weighted.horizon=0',))


@pytest.mark.parametrize(
  ('overrides', 'words'),
  [
    (('STEPS=ten',), "Run.steps must be an int; got 'ten'. STEPS sets it."),
    (('Run.steps=1e3',), 'Run.steps must be an int; got 1000.0. Write 1000.'),
    (('Run.path=1',), 'Run.path must be text or None; got 1.'),
    (('Weighted.horizon=None',), 'Weighted.horizon must be an int; got None.'),
    (('Weighted.tags=%STEPS',), 'a tuple, of text each; got 10. STEPS sets it'),
    # The class leaves it as it is, rather than make a tuple of it.
    (('Run.losses=1',), 'Run.losses must be a tuple, of a Any each; got 1.'),
  ],
)
def test_values_of_another_type_are_refused(build, overrides, words):
  assert words in refused(build, RUN, WEIGHTED, overrides=overrides)


# What was replaced.


def test_settings_of_a_replaced_object_are_superseded(build):
  expected = Run(loss=Weighted(horizon=7))
  assert build(RUN, CLONING, WEIGHTED) == expected
  assert build(RUN, "include 'c.gin'\n" + WEIGHTED, c=CLONING) == expected
  assert build(RUN, CLONING, overrides=('LOSS=@Weighted()',)).loss == Weighted()


def test_superseded_through_macros_and_nested_objects(build):
  nested = (
    'LOSS = @Weighted()\nHORIZON = 3\nWeighted.horizon = %HORIZON\n'
    'Weighted.model = @Cloning()\nCloning.smoothing = %SMOOTHING\n'
    'SMOOTHING = 0.3\n'
  )
  assert build(RUN, nested, 'LOSS = @Unused()').loss == Unused()
  assert build(RUN, nested, 'Run.loss = 1').loss == 1
  partly = build(RUN, nested, 'Weighted.model = None')
  assert partly.loss == Weighted(horizon=3)


def test_settings_that_were_never_used_are_not_superseded(build):
  stray = CLONING + 'Unused.x = 3\nTYPO = 1\n'
  message = refused(build, RUN, stray, WEIGHTED)
  assert 'Unused.x' in message and 'TYPO' in message
  assert 'Cloning.smoothing' not in message


def test_an_override_is_never_superseded(build):
  message = refused(
    build, RUN, CLONING, WEIGHTED, overrides=('Cloning.smoothing=0.2',)
  )
  assert 'this configuration builds no Cloning' in message


# What is written down.


def test_operative_config_builds_the_same_tree(build, tmp_path):
  run = build(
    RUN,
    CLONING,
    WEIGHTED,
    'Weighted.model = @small/Cloning()\nsmall/Cloning.smoothing = 0.3\n'
    'Run.losses = (@Weighted(), @Cloning())',
    overrides=('Run.path=/a b/c', 'Weighted.tags=("x",)'),
  )
  asked, operative = gin_files.config_text(), gin_files.operative_config_text()
  assert 'Cloning.smoothing = 0.1' in asked and 'STEPS = 10' in asked
  assert 'gin.REQUIRED' not in operative
  (tmp_path / 'operative.gin').write_text(operative)
  assert gin_files.parse_and_build(['operative.gin'], root=Run) == run
  assert gin_files.operative_config_text() == operative


# Registration.


def test_only_frozen_dataclasses_register():
  @dataclasses.dataclass
  class Melting:
    x: int = 1

  class Plain:
    pass

  for cls in (Melting, Plain):
    with pytest.raises(gin_files.ConfigError, match='frozen dataclass'):
      gin_files.register(cls)


def test_two_classes_of_one_name():
  other = dataclasses.make_dataclass('Cloning', ['x'], frozen=True)
  with pytest.raises(gin_files.ConfigError, match='two classes are named'):
    gin_files.register(other)
  gin_files.register(Cloning)  # The same one again is fine.


def test_import_is_cheap():
  program = (
    'import sys\nimport rest_jax.config.gin_files\n'
    "heavy = {'jax', 'numpy', 'tensorflow'} & set(sys.modules)\n"
    'assert not heavy, heavy\n'
  )
  root = pathlib.Path(__file__).resolve().parents[2]
  environment = {**os.environ, 'PYTHONPATH': str(root)}
  subprocess.run([sys.executable, '-c', program], check=True, env=environment)
