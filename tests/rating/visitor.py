"""A rater who talks HTTP to the app, as a browser would."""

import html
import re
from typing import Any

from rest_jax.rating import app as app_lib
from rest_jax.rating import order
from rest_jax.rating import rating_config as config_lib
from rest_jax.rating import store as store_lib

ORIGIN = 'http://localhost'


class Visitor:
  """Keeps cookies, and sends forms with what is in them."""

  def __init__(
    self,
    store: store_lib.Store,
    items: list[store_lib.Item],
    *,
    token: str | None = None,
    **settings: Any,
  ):
    self.config = config_lib.RatingConfig(**settings)
    self.store = store
    self.numbers = store.add(items)
    self._app = app_lib.make(store, self.config, self.numbers, token)
    self.client = self._app.test_client()

  def another(self) -> 'Visitor':
    """A visitor of the same app in another browser."""
    other = object.__new__(Visitor)
    other.__dict__.update(self.__dict__, client=self._app.test_client())
    return other

  def get(self, path: str, **arguments: Any):
    return self.client.get(path, buffered=True, **arguments)

  def post(self, path: str, form: dict[str, Any], origin: str = ORIGIN):
    return self.client.post(
      path, data=form, headers={'Origin': origin}, follow_redirects=True
    )

  def csrf(self) -> str:
    return hidden(self.get('/').text, 'csrf')

  def enter(self, name: str):
    return self.post('/name', {'csrf': self.csrf(), 'name': name})

  def answer(self, left: Any, right: Any):
    page = self.get('/rate').text
    return self.post('/rate', {**form_of(page), 'left': left, 'right': right})

  def prefer(self, side: str):
    page = self.get('/rate').text
    return self.post('/rate', {**form_of(page), 'preferred': side})

  def shown(self) -> int:
    """The number of the item that is shown."""
    return int(form_of(self.get('/rate').text)['item'])

  def sides(self, name: str, number: int) -> tuple[str, str]:
    """The outputs of an item as a rater sees them."""
    item = self.store.item(number)
    outputs = [item.first_output, item.second_output]
    if order.is_swapped(number, name, self.config.seed):
      outputs.reverse()
    return outputs[0], outputs[1]


def hidden(page: str, name: str) -> str:
  (found,) = set(re.findall(rf'name="{name}" value="([^"]*)"', page))
  return html.unescape(found)


def form_of(page: str) -> dict[str, str]:
  """Hidden fields of the form in which an item is answered."""
  answer = page[page.index('<form id="answer"') :]
  return {name: hidden(answer, name) for name in ('csrf', 'item')}


def done(page: str) -> int:
  """How many items the bar says are done."""
  (found,) = re.findall(r'<progress value="(\d+)"', page)
  return int(found)
