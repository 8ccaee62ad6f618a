// What the pages need in the browser: theme, menu, tabs for the two answers, keys, scrolling.
// It only presses the page's own buttons: every decision is made and checked on the server.
(() => {
  "use strict";
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);

  // Theme: the reader's choice, or the system's.
  const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const wanted = () => stored() || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const paint = () => {
    const dark = wanted() === "dark";
    root.classList.toggle("dark", dark);
    if (document.body) document.body.classList.toggle("dark", dark);
  };
  paint();
  // Gradio paints the system's theme and names the browser's language once it starts; ours stand.
  const language = root.lang;
  const keep = () => { paint(); if (root.lang !== language) root.lang = language; };
  const guard = new MutationObserver(keep);
  guard.observe(root, { attributeFilter: ["class", "lang"] });
  document.addEventListener("DOMContentLoaded", () => {
    guard.observe(document.body, { attributeFilter: ["class"] });
    keep();
  });

  // The two answers on a narrow screen.
  const show = (side) => {
    const duel = byId("duel");
    if (!duel) return;
    duel.classList.toggle("show-right", side === "right");
    mark();
  };
  const mark = () => {
    const duel = byId("duel");
    if (!duel) return;
    const right = duel.classList.contains("show-right");
    duel.querySelectorAll(".tabs [data-pane]").forEach((tab) => {
      const on = String((tab.dataset.pane === "right") === right);
      if (tab.getAttribute("aria-selected") !== on) tab.setAttribute("aria-selected", on);
    });
  };

  document.addEventListener("click", (event) => {
    const target = event.target.closest ? event.target.closest("[data-theme],[data-menu],[data-pane]") : null;
    if (!target) return;
    if (target.hasAttribute("data-theme")) {
      try { localStorage.setItem("theme", wanted() === "dark" ? "light" : "dark"); } catch { /* private window */ }
      paint();
    } else if (target.hasAttribute("data-menu")) {
      const open = target.closest(".bar").classList.toggle("open");
      target.setAttribute("aria-expanded", String(open));
    } else show(target.dataset.pane);
  });

  let touch = null;
  document.addEventListener("touchstart", (event) => {
    const one = event.touches.length === 1 && event.target.closest && event.target.closest(".panes");
    touch = one ? { x: event.touches[0].clientX, y: event.touches[0].clientY } : null;
  }, { passive: true });
  document.addEventListener("touchend", (event) => {
    if (!touch) return;
    const dx = event.changedTouches[0].clientX - touch.x, dy = event.changedTouches[0].clientY - touch.y;
    if (Math.abs(dx) > 60 && Math.abs(dx) > 2 * Math.abs(dy)) show(dx < 0 ? "right" : "left");
    touch = null;
  }, { passive: true });

  // Keys: 1-4 choose, Enter submits, S skips, Z undoes, N takes the next pair.
  const press = (...ids) => {
    for (const id of ids) {
      const found = byId(id);
      const button = found && (found.matches("button") ? found : found.querySelector("button"));
      if (button && !button.disabled && button.offsetParent !== null) { button.click(); return true; }
    }
    return false;
  };
  const choose = (number) => {
    const choices = document.querySelectorAll("#choice input[type=radio]"), radio = choices[number - 1];
    if (!radio || radio.disabled || !byId("choice").offsetParent) return false;
    radio.click();
    return radio.checked;
  };
  // The bar comes a moment after the pair it belongs to. A key pressed in between waits for it, in
  // its order; it is forgotten when another pair has come or nothing takes it for some seconds.
  const PATIENCE_MS = 10000, waiting = [];
  let turn = 0;
  const ticket = () => { const found = document.querySelector("#ticket textarea, #ticket input"); return found ? found.value : ""; };
  const isWhole = () => document.querySelector('.duel[data-state="votable"], .duel[data-state="voted"]') !== null;
  const serve = () => {
    clearTimeout(turn);
    while (waiting.length) {
      const { act, of, until } = waiting[0];
      const gone = performance.now() > until || !isWhole() || (of && of !== ticket());
      if (!gone && !act()) { turn = setTimeout(serve, 40); return; }
      waiting.shift();
    }
  };
  const soon = (act) => {
    if (!waiting.length && act()) return true;
    if (!isWhole() || waiting.length >= 8) return false;
    waiting.push({ act, of: ticket(), until: performance.now() + PATIENCE_MS });
    serve();
    return true;
  };
  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    const field = event.target;
    const typing = field.matches && field.matches("textarea, input:not([type=radio]), select, [contenteditable]");
    if (typing && event.key === "Escape") field.blur(); // from here on, keys are keys
    if (typing) return;
    if (event.repeat) return;
    const inControl = field.matches && field.matches("a, button, summary");
    let done = false;
    if (/^[1-4]$/.test(event.key)) done = soon(() => choose(Number(event.key)));
    else if (event.key === "Enter" && !inControl) done = soon(() => press("submit-vote", "next"));
    else if (event.key === "s" || event.key === "S") done = soon(() => press("skip"));
    else if (event.key === "z" || event.key === "Z") done = press("undo", "undo-last");
    else if (event.key === "n" || event.key === "N") done = soon(() => press("next"));
    if (done) event.preventDefault();
  });

  // Where there is a keyboard, the question box is ready at once; on a phone that would move the page.
  const ready = setInterval(() => {
    const box = document.querySelector("#question textarea");
    if (!box) return;
    clearInterval(ready);
    if (matchMedia("(hover: hover) and (min-width: 721px)").matches && !byId("choice")) box.focus({ preventScroll: true });
  }, 200);
  setTimeout(() => clearInterval(ready), 20000);

  // While text arrives, stay at its end if the reader is there; a new pair starts at the top, with the
  // tab in front that the server drew for it.
  let pair = "", drawn = "";
  const follow = new MutationObserver(() => {
    const duel = document.querySelector(".duel[data-pair]");
    if (duel && duel.dataset.pair !== drawn) { drawn = duel.dataset.pair; show(duel.dataset.first); }
    mark();
    const now = ticket();
    if (now !== pair) {
      if (pair && !document.querySelector('.duel[data-state="writing"]')) window.scrollTo(0, 0);
      pair = now;
    }
    const writing = document.querySelector(".dots") || byId("talk");
    const near = root.scrollHeight - window.innerHeight - window.scrollY < 240;
    if (writing && byId("talk") && near) window.scrollTo(0, root.scrollHeight);
  });
  document.addEventListener("DOMContentLoaded", () => follow.observe(document.body, { childList: true, subtree: true, characterData: true }));
})();
