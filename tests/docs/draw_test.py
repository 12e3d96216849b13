"""The picture of docs/architecture.md is that of a run."""

from docs import draw
from tests import smoke


def test_the_page_shows_what_each_stage_reads(run):
  drawn = draw.flow(run.model_dir).splitlines()
  assert '  reward -- reward --> grow_1' in drawn
  assert '  improve_1_1 -- init --> improve_1_2' in drawn
  page = (smoke.ROOT / 'docs' / 'architecture.md').read_text(encoding='utf-8')
  assert set(drawn) <= set(page.splitlines())
