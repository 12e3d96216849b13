// Shows the samples of the page's data, filtered and sorted. Texts are only ever
// set as text, never as markup.
'use strict';
(() => {
  const data = document.getElementById('data');
  if (!data) return;
  const {policies, sources} = JSON.parse(data.textContent);
  const form = document.getElementById('controls');
  const list = document.getElementById('browsed');
  const pages = document.getElementById('pages');
  const PER_PAGE = 3;
  // Columns of a candidate.
  const TEXT = 0, REWARD = 1, JUDGE = 2, LENGTH = 3, FINISHED = 4, COUNT = 5;
  let page = 0;

  function element(name, text, className) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  // A text with what was searched for marked.
  function marked(parent, text, wanted) {
    const lower = text.toLowerCase();
    // Where small letters have other lengths, places would not fit.
    let at = wanted && lower.length === text.length ? lower.indexOf(wanted) : -1;
    let from = 0;
    while (at >= 0) {
      parent.append(text.slice(from, at));
      parent.append(element('mark', text.slice(at, at + wanted.length)));
      from = at + wanted.length;
      at = lower.indexOf(wanted, from);
    }
    parent.append(text.slice(from));
    return parent;
  }

  function mean(candidates) {
    let sum = 0, count = 0;
    for (const one of candidates) {
      sum += one[REWARD] * one[COUNT];
      count += one[COUNT];
    }
    return count ? sum / count : NaN;
  }

  function number(name, otherwise) {
    const value = form.elements[name].valueAsNumber;
    return Number.isNaN(value) ? otherwise : value;
  }

  function asked() {
    return {
      policy: Number(form.elements.policy.value),
      beside: Number(form.elements.beside.value),
      order: form.elements.order.value,
      text: form.elements.text.value.toLowerCase(),
      reward: [number('reward_from', -Infinity), number('reward_to', Infinity)],
      length: [number('length_from', -Infinity), number('length_to', Infinity)],
    };
  }

  function passes(one, query) {
    return one[REWARD] >= query.reward[0] && one[REWARD] <= query.reward[1] &&
        one[LENGTH] >= query.length[0] && one[LENGTH] <= query.length[1];
  }

  // Sources of which a candidate passes, with those that do.
  function found(query) {
    const results = [];
    for (const source of sources) {
      const own = source.candidates[query.policy];
      const kept = own.filter((one) => passes(one, query));
      if (!kept.length) continue;
      const beside = query.beside < 0 ? null :
          source.candidates[query.beside].filter((one) => passes(one, query));
      if (query.text) {
        const texts = [source.source, source.reference || ''];
        for (const one of kept) texts.push(one[TEXT]);
        for (const one of beside || []) texts.push(one[TEXT]);
        if (!texts.some((t) => t.toLowerCase().includes(query.text))) continue;
      }
      const change = query.beside < 0 ? NaN :
          mean(own) - mean(source.candidates[query.beside]);
      results.push({source, kept, beside, change});
    }
    const by = {
      best: (a, b) => b.kept[0][REWARD] - a.kept[0][REWARD],
      worst: (a, b) => a.kept.at(-1)[REWARD] - b.kept.at(-1)[REWARD],
      rise: (a, b) => b.change - a.change,
      fall: (a, b) => a.change - b.change,
    }[query.order];
    return by ? results.sort(by) : results;
  }

  function table(policy, candidates, wanted) {
    const made = element('table');
    const average = candidates.length ?
        `, mean reward ${mean(candidates).toFixed(1)}` : '';
    made.append(element('caption', policies[policy] + average));
    const judged = candidates.some((one) => one[JUDGE] !== null);
    const names = ['reward', ...(judged ? ['judge'] : []), 'length', 'sample'];
    const head = element('tr');
    for (const name of names) {
      const cell = element('th', name);
      cell.scope = 'col';
      head.append(cell);
    }
    const header = element('thead');
    header.append(head);
    made.append(header);
    const body = element('tbody');
    for (const one of candidates) {
      const row = element('tr');
      row.append(element('td', one[REWARD].toFixed(1)));
      if (judged) {
        row.append(element('td', one[JUDGE] === null ? '-' : one[JUDGE].toFixed(1)));
      }
      row.append(element('td', String(one[LENGTH])));
      const text = marked(element('td'), one[TEXT], wanted);
      text.dir = 'auto';
      if (one[COUNT] > 1) text.append(element('span', ` ×${one[COUNT]}`, 'times'));
      if (!one[FINISHED]) text.append(element('span', ' (no end)', 'times'));
      row.append(text);
      body.append(row);
    }
    made.append(body);
    return made;
  }

  function card({source, kept, beside, change}, query) {
    const item = element('li', undefined, 'browsed');
    const sign = change > 0 ? '+' : '';
    item.append(element('h3', `Source ${source.id}` +
        (Number.isNaN(change) ? '' : `, mean reward changes by ${sign}${change.toFixed(1)}`)));
    const texts = element('dl', undefined, 'texts');
    for (const [name, text] of [
      ['source', source.source], ['reference', source.reference],
    ]) {
      if (text === null) continue;
      texts.append(element('dt', name));
      const shown = marked(element('dd'), text, query.text);
      shown.dir = 'auto';
      texts.append(shown);
    }
    item.append(texts);
    const side = element('div', undefined, 'beside');
    side.tabIndex = 0;
    side.setAttribute('role', 'region');
    side.setAttribute('aria-label', `Samples of source ${source.id}`);
    side.append(table(query.policy, kept, query.text));
    if (beside) side.append(table(query.beside, beside, query.text));
    item.append(side);
    return item;
  }

  function show() {
    const query = asked();
    const results = found(query);
    const last = Math.max(Math.ceil(results.length / PER_PAGE) - 1, 0);
    page = Math.min(Math.max(page, 0), last);
    const shown = results.slice(page * PER_PAGE, (page + 1) * PER_PAGE);
    list.replaceChildren(...shown.map((result) => card(result, query)));
    document.getElementById('count').textContent =
        `${results.length} of ${sources.length} sources`;
    document.getElementById('where').textContent = `${page + 1} of ${last + 1}`;
    document.getElementById('before').disabled = page === 0;
    document.getElementById('after').disabled = page === last;
    pages.hidden = last === 0;
  }

  function turn(by) {
    page += by;
    show();
    document.getElementById('count').scrollIntoView();
  }

  const choices = policies.map((name, index) => {
    const option = element('option', name);
    option.value = index;
    return option;
  });
  const none = element('option', 'none');
  none.value = -1;
  form.elements.policy.append(...choices.map((one) => one.cloneNode(true)));
  form.elements.beside.append(none, ...choices);
  function preselect() {
    // The last of ReST; its controls come after it.
    const last = policies.findLastIndex((name) => !name.startsWith('BC'));
    form.elements.policy.value = last < 0 ? policies.length - 1 : last;
    form.elements.beside.value = policies.length > 1 ? 0 : -1;
  }
  function again() {
    page = 0;
    show();
  }
  form.addEventListener('submit', (event) => event.preventDefault());
  form.addEventListener('input', again);
  // After the browser has emptied the fields.
  form.addEventListener('reset', () => setTimeout(() => {
    preselect();
    again();
  }));
  document.getElementById('before').addEventListener('click', () => turn(-1));
  document.getElementById('after').addEventListener('click', () => turn(1));
  preselect();
  form.hidden = false;
  show();
})();
