// Live updates while the page is looked at, and keys. All pages work without it.
(() => {
  const doc = document;
  const by = (id) => doc.getElementById(id);
  const main = by('main');
  const status = by('live');
  const url = main.dataset.liveUrl;
  let source = null;
  let last = '';
  let late = 0;
  let again = 0;

  // A part is left alone while somebody works in it.
  const busy = (part) => {
    const picked = doc.getSelection();
    const focused = doc.activeElement;
    return (focused !== part && part.contains(focused)) || part.querySelector('details.control[open]')
      || (picked && !picked.isCollapsed && part.contains(picked.anchorNode));
  };
  const parts = (root) => [...root.querySelectorAll('[data-live]')];
  const names = (root) => parts(root).map((part) => part.dataset.live).join();
  const keep = (old, fresh) => {
    for (const open of old.querySelectorAll('details[open][id]')) {
      const same = fresh.querySelector('#' + CSS.escape(open.id));
      if (same) same.open = true;
    }
  };
  const swap = (html) => {
    const box = doc.createElement('template');
    box.innerHTML = html;
    // Parts have come or gone, as those of a database that answers again: all is new.
    const differ = names(box.content) !== names(main);
    let left = differ && busy(main);
    if (differ && !left) {
      keep(main, box.content);
      main.replaceChildren(box.content);
    }
    for (const fresh of parts(box.content)) {
      const old = main.querySelector('[data-live="' + fresh.dataset.live + '"]');
      if (!old) continue;
      keep(old, fresh);
      if (old.outerHTML === fresh.outerHTML) continue;
      if (busy(old)) left = true;
      else old.replaceWith(fresh);
    }
    clearTimeout(again);
    if (left) again = setTimeout(() => swap(html), 2000);
  };
  const say = (word, why) => {
    clearTimeout(late);
    const text = why ? word + ': ' + why : word;
    status.dataset.state = word;
    if (status.textContent !== text) status.textContent = text;
  };
  const shut = (word) => {
    if (source) source.close();
    source = null;
    say(word);
  };
  const close = () => shut('paused');
  const open = () => {
    if (source || doc.hidden) return;
    source = new EventSource(url + '&last=' + last);
    source.onopen = () => say('live');
    source.onerror = () => {
      clearTimeout(late);
      // A stream that has ended is soon open again; one that was refused may be let in later.
      if (source.readyState < 2) late = setTimeout(() => say('reconnecting'), 3000);
      else { shut('not live'); setTimeout(open, 30000); }
    };
    source.addEventListener('body', (event) => {
      last = event.lastEventId;
      say('live');
      swap(event.data);
    });
    source.addEventListener('stale', (event) => say('stale', event.data));
  };
  if (url && window.EventSource) {
    status.hidden = false;
    doc.addEventListener('visibilitychange', () => doc.hidden ? close() : open());
    addEventListener('pagehide', close);
    addEventListener('pageshow', open);
    open();
  }

  // Keys: / searches, j and k go through rows, ? shows them.
  const keys = by('keys');
  const rows = () => [...doc.querySelectorAll('[data-row] a[data-go]')];
  const go = (by) => {
    const all = rows();
    const at = all.indexOf(doc.activeElement);
    const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by];
    if (next) { next.focus(); next.closest('[data-row]').scrollIntoView({ block: 'nearest' }); }
  };
  doc.addEventListener('keydown', (event) => {
    const field = event.target.closest('input, textarea, select');
    if (event.key === 'Escape' && field) return field.blur();
    if (field || event.ctrlKey || event.metaKey || event.altKey || keys.open) return;
    const acts = {
      '/': () => by('q').focus(),
      j: () => go(1),
      k: () => go(-1),
      '?': () => keys.showModal(),
    };
    if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
  });
  by('keys-open').addEventListener('click', (event) => { event.preventDefault(); keys.showModal(); });
})();
