// Live updates while the page is looked at, and keys. All pages work without it.
(() => {
  const doc = document;
  const by = (id) => doc.getElementById(id);
  const main = by('main');
  const status = by('live');
  const url = main.dataset.liveUrl;
  let source = null;
  let last = '';

  // A part is left alone while somebody works in it.
  const busy = (part) => {
    const picked = doc.getSelection();
    return part.contains(doc.activeElement) || part.querySelector('details.control[open]')
      || (picked && !picked.isCollapsed && part.contains(picked.anchorNode));
  };
  const swap = (html) => {
    const box = doc.createElement('template');
    box.innerHTML = html;
    for (const fresh of box.content.querySelectorAll('[data-live]')) {
      const old = main.querySelector('[data-live="' + fresh.dataset.live + '"]');
      if (!old || busy(old)) continue;
      for (const open of old.querySelectorAll('details[open][id]')) {
        const same = fresh.querySelector('#' + CSS.escape(open.id));
        if (same) same.open = true;
      }
      if (old.outerHTML !== fresh.outerHTML) old.replaceWith(fresh);
    }
  };
  const say = (word) => { status.dataset.state = word; status.textContent = word; };
  const open = () => {
    if (source || doc.hidden) return;
    source = new EventSource(url + '&last=' + last);
    source.onopen = () => say('live');
    source.onerror = () => say(source.readyState === 2 ? 'not live' : 'reconnecting');
    source.addEventListener('body', (event) => { last = event.lastEventId; swap(event.data); });
  };
  const close = () => {
    if (source) source.close();
    source = null;
    say('paused');
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
