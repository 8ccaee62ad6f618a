// What a rater adds to a vote: ratings, danger marks, an own answer; the clock, the pause and drafts.
// Offsets, masking and every check are the server's; here is only what the hand needs.
(() => {
  "use strict";
  const byId = (id) => document.getElementById(id);
  const one = (selector, from = document) => from.querySelector(selector);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const field = (id) => one(`#${id} textarea, #${id} input`);
  const text = (id) => { const found = field(id); return found ? found.value : ""; };
  const put = (id, value) => {
    const found = field(id);
    if (!found || found.value === value) return;
    found.value = value;
    found.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const block = () => one("#ratings .ratings");
  const ticket = () => (block() ? block().dataset.ticket : "");
  const rest = () => { const duel = byId("duel"); if (duel) { duel.tabIndex = -1; duel.focus({ preventScroll: true }); } };

  // The clock of the pair: it stands still while the tab is hidden or the rater pauses.
  const BREAK_MS = 45 * 60e3, BREAK_VOTES = 60, AWAY_MS = 5 * 60e3, BEAT_MS = 15e3;
  let active = 0, since = null, paused = false, stopped = null;
  const work = () => { try { return JSON.parse(sessionStorage.getItem("work")) || { ms: 0, votes: 0 }; } catch { return { ms: 0, votes: 0 }; } };
  const keepWork = (done) => { try { sessionStorage.setItem("work", JSON.stringify(done)); } catch { /* private window */ } };
  const beat = () => {
    const now = performance.now();
    if (since !== null) {
      active += now - since;
      const done = work();
      keepWork({ ...done, ms: done.ms + now - since });
    }
    const runs = !document.hidden && !paused && Boolean(ticket());
    if (runs && stopped !== null && now - stopped > AWAY_MS) keepWork({ ms: 0, votes: 0 });
    stopped = runs ? null : stopped === null ? now : stopped;
    since = runs ? now : null;
    const hint = one(".break-hint"), done = work();
    if (hint && runs && (done.ms >= BREAK_MS || done.votes >= BREAK_VOTES)) hint.hidden = false;
  };
  setInterval(beat, BEAT_MS);
  document.addEventListener("visibilitychange", () => { beat(); if (document.hidden) save(true); });
  window.addEventListener("pagehide", () => { beat(); save(true); });

  const pause = (on) => {
    const cover = one(".pause-cover");
    if (!cover || on === paused || (on && !ticket())) return;
    beat();
    paused = on;
    beat();
    byId("main").classList.toggle("paused", on);
    for (const id of ["duel", "better", "vote-bar", "study-row"]) if (byId(id)) byId(id).inert = on;
    cover.hidden = !on;
    one(".break-hint").hidden = true;
    keepWork({ ms: 0, votes: 0 });
    if (on) one("button", cover).focus(); else rest();
  };

  // Ratings
  const given = () => Object.fromEntries(all("#ratings input:checked").map((radio) => [radio.name, Number(radio.value)]));
  const sync = () => {
    beat();
    put("extra", JSON.stringify({ ticket: ticket(), ratings: given(), active_s: Math.round(active / 100) / 10 }));
    const groups = all("#ratings .steps"), count = one("[data-sheet] .count");
    const words = groups.length ? ` ${Object.keys(given()).length}/${groups.length}` : "";
    if (count && count.textContent !== words) count.textContent = words;
  };
  const isRated = (group) => Boolean(one("input:checked", group));
  const focusGroup = (group) => { (one("input:checked", group) || one("input", group)).focus(); };
  const toRate = (groups) => groups.find((group) => !isRated(group));
  const rate = (group, value) => {
    const radio = one(`input[value="${value}"]`, group);
    radio.checked = true;
    radio.dispatchEvent(new Event("change", { bubbles: true }));
    const groups = all("#ratings .steps"), next = groups[groups.indexOf(group) + 1];
    if (next) focusGroup(next); else rest();
  };
  const unrate = (group) => {
    for (const radio of all("input:checked", group)) {
      radio.checked = false;
      radio.dispatchEvent(new Event("change", { bubbles: true }));
    }
  };
  const sheet = (open) => {
    const bar = byId("vote-bar"), button = one("[data-sheet]");
    if (!bar || !button) return;
    bar.classList.toggle("sheet-open", open);
    button.setAttribute("aria-expanded", String(open));
  };

  // Drafts: what was not sent yet, kept on the server a moment after each change.
  let timer = 0, kept = "";
  const unsent = () => {
    const chosen = one("#choice input:checked");
    return {
      choice: chosen ? chosen.value : null, reason: text("reason"), ratings: given(),
      spans: JSON.parse(text("spans") || "[]"), better: text("better-text"),
      better_side: text("side"), consent: Boolean(one("#better-consent input:checked")),
    };
  };
  const tellDraft = (how) => {
    const line = one(".draft-state");
    if (line) { line.textContent = how ? line.dataset[how] : ""; line.classList.toggle("failed", how === "failed"); }
  };
  const save = (leaving = false) => {
    clearTimeout(timer);
    timer = 0;
    const of = ticket();
    if (!of || of.endsWith("+") || !one('.duel[data-state="votable"]')) return; // a revision is sent or left
    const now = unsent(), print = of + JSON.stringify(now);
    if (print === kept) return;
    kept = print;
    const body = JSON.stringify({ ticket: of, work: { ...now, active_s: active / 1000 } });
    fetch("/draft", { method: "POST", body, keepalive: true, headers: { "content-type": "application/json" } })
      .then((answer) => {
        if (ticket() === of && answer.status !== 409) tellDraft(answer.status === 204 ? "saved" : "failed");
        if (answer.status !== 204) kept = "";
      })
      .catch(() => { kept = ""; if (!leaving) tellDraft("failed"); });
  };
  const changed = () => { clearTimeout(timer); timer = setTimeout(save, 700); };
  document.addEventListener("input", (event) => { if (event.target.closest("#reason, #better")) changed(); });
  document.addEventListener("change", (event) => {
    if (event.target.closest("#ratings")) sync();
    if (event.target.closest("#choice, #ratings, #better")) changed();
  });

  // Danger marks. A passage is told by its letters: all characters but blanks, labels left out.
  const squeeze = (words) => words.replace(/\s/g, "");
  const nodes = (said) => {
    const walker = document.createTreeWalker(said, NodeFilter.SHOW_TEXT), found = [];
    while (walker.nextNode()) if (!walker.currentNode.parentElement.closest(".flag-label, .unfinished, .dots")) found.push(walker.currentNode);
    return found;
  };
  const lettersOf = (said) => squeeze(nodes(said).map((node) => node.data).join(""));
  const earlier = (letters, words, end) => {
    let count = 0;
    for (let at = letters.indexOf(words); at >= 0 && at < end; at = letters.indexOf(words, at + 1)) count += 1;
    return count;
  };
  const place = (said, words, start) => ({
    side: said.dataset.side, turn: Number(said.dataset.turn), words, before: earlier(lettersOf(said), words, start),
  });
  const selected = () => {
    const selection = getSelection();
    if (!selection.rangeCount || selection.isCollapsed) return null;
    const range = selection.getRangeAt(0);
    const within = (node) => (node.nodeType === 1 ? node : node.parentElement).closest(".said[data-side]");
    const said = within(range.startContainer) || within(range.endContainer);
    if (!said || !one(".flag-button", said.closest(".pane"))) return null;
    let start = 0, words = "";
    for (const node of nodes(said)) {
      if (!range.intersectsNode(node)) { if (!words) start += squeeze(node.data).length; continue; }
      const from = node === range.startContainer ? range.startOffset : 0;
      const to = node === range.endContainer ? range.endOffset : node.data.length;
      if (!words) start += squeeze(node.data.slice(0, from)).length;
      words += squeeze(node.data.slice(from, to));
    }
    return words ? { ...place(said, words, start), rectangle: range.getBoundingClientRect() } : null;
  };
  const ask = (wish) => {
    const before = text("spans"), until = performance.now() + 10e3;
    put("asking", JSON.stringify({ ...wish, at: Date.now() }));
    const button = byId("ask");
    setTimeout(() => (button.matches("button") ? button : one("button", button)).click(), 0);
    const watch = setInterval(() => {
      if (text("spans") !== before) changed();
      if (text("spans") !== before || performance.now() > until) clearInterval(watch);
    }, 150);
  };
  let passage = null;
  const menu = () => one(".flag-menu");
  const closeMenu = () => { if (menu()) menu().hidden = true; passage = null; };
  const openMenu = (found) => {
    const box = menu(), { rectangle, ...wish } = found;
    passage = wish;
    box.hidden = false;
    const left = Math.min(rectangle.left, innerWidth - box.offsetWidth - 12);
    const below = rectangle.bottom + 8, bar = byId("vote-bar").getBoundingClientRect().top;
    const top = below + box.offsetHeight < bar ? below : Math.max(8, rectangle.top - box.offsetHeight - 8);
    box.style.setProperty("--left", `${Math.max(12, left)}px`);
    box.style.setProperty("--top", `${Math.min(top, innerHeight - box.offsetHeight - 8)}px`);
  };
  const markAs = (kind) => {
    const wish = { do: "mark", kind, ...passage };
    closeMenu();
    getSelection().removeAllRanges();
    ask(wish);
    rest();
  };
  let pressing = false, settling = 0;
  const offer = () => {
    clearTimeout(settling);
    settling = setTimeout(() => {
      if (pressing || paused || !menu() || menu().contains(document.activeElement)) return;
      const found = selected();
      if (found) openMenu(found); else closeMenu();
    }, 200);
  };
  document.addEventListener("selectionchange", offer);
  document.addEventListener("pointerdown", (event) => { pressing = !event.target.closest(".flag-menu"); if (!pressing) event.preventDefault(); });
  for (const kind of ["pointerup", "pointercancel"]) document.addEventListener(kind, () => { pressing = false; offer(); });

  const sentences = (said) => {
    const letters = lettersOf(said), found = [];
    let held = "", home = null, cursor = 0;
    const flush = () => {
      for (const sentence of held.split(/(?<=[。！？；!?;\n])/)) {
        const words = squeeze(sentence), at = words ? letters.indexOf(words, cursor) : -1;
        if (at < 0) continue;
        cursor = at + words.length;
        found.push({ shown: sentence.trim(), ...place(said, words, at) });
      }
      held = "";
    };
    for (const node of nodes(said)) {
      const here = node.parentElement.closest("p, li, h4, td, th, pre, blockquote");
      if (here !== home) flush();
      home = here;
      held += node.data;
    }
    flush();
    return found;
  };
  const openList = (side) => {
    const list = one(".flag-list"), box = one(".sentences", list);
    const answers = all(".said[data-side]").filter((said) => one(".flag-button", said.closest(".pane")) && (!side || said.dataset.side === side));
    if (!answers.length) return false;
    box.replaceChildren();
    list.sentences = [];
    for (const said of answers) {
      const title = document.createElement("h3");
      title.textContent = said.closest(".pane").getAttribute("aria-label");
      if (!side || answers.length > 1) box.append(title);
      for (const sentence of sentences(said)) {
        const label = document.createElement("label"), radio = document.createElement("input"), words = document.createElement("span");
        Object.assign(radio, { type: "radio", name: "sentence", value: String(list.sentences.length) });
        words.textContent = sentence.shown;
        label.append(radio, words);
        box.append(label);
        list.sentences.push(sentence);
      }
    }
    one(".first", list).hidden = true;
    list.showModal();
    const first = one("input", box);
    if (first) first.focus();
    return true;
  };
  const markSentence = (kind) => {
    const list = one(".flag-list"), chosen = one(".sentences input:checked", list);
    one(".first", list).hidden = Boolean(chosen);
    if (!chosen) return;
    const { shown, ...wish } = list.sentences[Number(chosen.value)];
    list.close();
    ask({ do: "mark", kind, ...wish });
    rest();
  };
  const flag = (side) => {
    const found = menu() && selected();
    if (found && (!side || found.side === side)) { openMenu(found); one("button", menu()).focus(); return true; }
    return openList(side);
  };

  // The own answer
  const openBetter = (open, focus = true) => {
    const box = byId("better"), button = byId("open-better");
    if (!box || !button) return false;
    box.classList.toggle("open", open);
    button.setAttribute("aria-expanded", String(open));
    if (open && focus) { box.scrollIntoView({ block: "end" }); field("better-text").focus({ preventScroll: true }); }
    return true;
  };

  // Clicks. The ratings are brought up to date before Gradio reads the fields of a vote.
  let voting = "";
  document.addEventListener("click", (event) => {
    const target = event.target.closest ? event.target : null;
    if (!target) return;
    const on = (selector) => target.closest(selector);
    if (on("#submit-vote")) {
      sync();
      clearTimeout(timer);
      voting = ticket();
      const lacks = toRate(all('#ratings .steps[data-required="true"]'));
      const agree = one("#better-consent input"), chosen = one("#choice input:checked");
      if (chosen && lacks) { sheet(true); setTimeout(() => focusGroup(lacks), 0); }
      else if (chosen && text("better-text").trim() && agree && !agree.checked) { openBetter(true, false); byId("better").scrollIntoView({ block: "end" }); setTimeout(() => agree.focus({ preventScroll: true }), 0); }
    } else if (on("[data-sheet]")) sheet(!byId("vote-bar").classList.contains("sheet-open"));
    else if (on("[data-pause]")) pause(!paused);
    else if (on("#pause")) pause(true);
    else if (on("[data-later]")) { keepWork({ ms: BREAK_MS * 2 / 3, votes: BREAK_VOTES * 2 / 3 }); one(".break-hint").hidden = true; rest(); }
    else if (on("[data-flag]")) flag(on("[data-flag]").dataset.flag);
    else if (on("[data-unflag]")) { ask({ do: "unmark", number: Number(on("[data-unflag]").dataset.unflag) }); rest(); }
    else if (on(".flag-menu [data-kind]")) markAs(on("[data-kind]").dataset.kind);
    else if (on(".flag-list [data-kind]")) markSentence(on("[data-kind]").dataset.kind);
    else if (on(".flag-list [data-close]")) { one(".flag-list").close(); rest(); }
    else if (on("#open-better")) openBetter(!byId("better").classList.contains("open"));
    else if (on("#better-starts button")) setTimeout(changed, 400);
    else if (on("#send, #frame a")) save();
  }, true);
  let wasChecked = null; // a second click on a rating takes it back
  document.addEventListener("pointerdown", (event) => {
    const label = event.target.closest && event.target.closest("#ratings label");
    wasChecked = label && one("input", label).checked ? one("input", label) : null;
  }, true);
  document.addEventListener("click", (event) => {
    if (wasChecked && event.target === wasChecked) { unrate(wasChecked.closest(".steps")); wasChecked = null; }
  });

  // Keys: R ratings (then 1-5, 0 takes back), F marks, B own answer, P pauses. Never while typing.
  const handle = (event) => {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, target = event.target;
    if (paused) {
      if (key === "p" || key === "Escape") { pause(false); return true; }
      return !["Tab", "Enter", " "].includes(event.key);
    }
    const list = one(".flag-list"), box = menu(), kinds = (from) => all("[data-kind]", from);
    if (list && list.open) {
      if (/^[1-5]$/.test(key)) { markSentence(kinds(list)[key - 1].dataset.kind); return true; }
      event.stopImmediatePropagation(); // no vote behind the list
      return false;
    }
    if (key === "Enter" && target.closest && target.closest("#question")) save();
    const typing = target.matches && target.matches("textarea, input:not([type=radio]):not([type=checkbox]), select, [contenteditable]");
    if (typing || event.repeat || !block()) return false;
    if (box && !box.hidden && passage) {
      const items = kinds(box), at = items.indexOf(document.activeElement);
      if (key === "Escape") { closeMenu(); getSelection().removeAllRanges(); rest(); return true; }
      if (at >= 0 && /^Arrow(Down|Up)$/.test(key)) { items[(at + (key === "ArrowDown" ? 1 : items.length - 1)) % items.length].focus(); return true; }
      if (at >= 0 && /^[1-5]$/.test(key)) { markAs(items[key - 1].dataset.kind); return true; }
    }
    const group = target.closest && target.closest("#ratings .steps");
    if (group && /^[1-5]$/.test(key)) { rate(group, key); return true; }
    if (group && ["0", "Backspace", "Delete"].includes(key)) { unrate(group); return true; }
    if (group && key === "Escape") { rest(); return true; }
    const groups = all("#ratings .steps");
    if (key === "r" && groups.length) { sheet(true); focusGroup(toRate(groups) || groups[0]); return true; }
    if (key === "f") return flag("");
    if (key === "b" && block().dataset.better === "true") return openBetter(true);
    if (key === "p") { pause(true); return true; }
    return false;
  };
  window.addEventListener("keydown", (event) => {
    if (event.isComposing || event.keyCode === 229 || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!handle(event)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }, true);

  // A new pair: its own clock and ratings, nothing open; focus leaves the bar, so that keys are keys.
  let shown = "", state = "";
  const arrived = () => {
    const now = ticket(), duel = one("#duel .duel"), is = duel ? duel.dataset.state : "";
    if (voting && (now !== voting || is === "voted")) {
      const done = work();
      keepWork({ ...done, votes: done.votes + 1 });
      voting = "";
    }
    if (now !== shown) {
      const before = shown;
      shown = now;
      beat();
      active = now ? 1000 * Number(block().dataset.active) : 0;
      kept = "";
      closeMenu();
      sheet(false);
      tellDraft("");
      sync();
      setTimeout(() => { openBetter(Boolean(text("better-text")), false); sync(); }, 300);
      if (before && now && !byId("composer")) rest();
    } else if (is !== state && is === "voted") rest();
    state = is;
  };
  document.addEventListener("DOMContentLoaded", () => new MutationObserver(arrived).observe(document.body, { childList: true, subtree: true }));
})();
