// The keys of the rating page. Without this file its forms work by themselves.
'use strict';

const answer = document.getElementById('answer');
const undo = document.getElementById('undo');
const outputs = answer ? [...answer.querySelectorAll('fieldset')] : [];
let active = 0;

function activate(index) {
  active = index;
  outputs.forEach((output, at) =>
    output.classList.toggle('active', at === index));
}

function score(key) {
  const radio = outputs[active].querySelector(`input[value="${key}"]`);
  if (!radio) return;
  radio.checked = true;
  activate((active + 1) % outputs.length);
}

function clear() {
  answer.reset();
  activate(0);
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.matches('input:not([type=radio])')) return;
  const choice = answer?.querySelector(`[data-key="${event.key}"]`);
  if (event.key.toLowerCase() === 'u' && undo) {
    undo.requestSubmit();
  } else if (choice) {
    answer.requestSubmit(choice);
  } else if (outputs.length && /^[0-9]$/.test(event.key)) {
    score(event.key);
  } else if (outputs.length && event.key === 'Backspace') {
    clear();
  } else if (outputs.length && event.key === 'Enter' &&
             !event.target.matches('a, button')) {
    answer.requestSubmit();
  } else {
    return;
  }
  event.preventDefault();
}

// A second press while the first is on its way would answer the next item.
for (const form of document.forms) {
  let sent = false;
  form.addEventListener('submit', (event) => {
    if (sent) event.preventDefault();
    sent = true;
  });
}
// A page that the browser kept when one goes back may be sent again.
addEventListener('pageshow', (event) => {
  if (event.persisted) location.reload();
});
outputs.forEach((output, at) =>
  output.addEventListener('focusin', () => activate(at)));
if (outputs.length) activate(0);
document.addEventListener('keydown', onKey);
// The token need not stay in the address bar.
if (location.search) history.replaceState(null, '', location.pathname);
