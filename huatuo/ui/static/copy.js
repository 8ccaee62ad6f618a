// A button that copies the one-time link beside it; without a clipboard the link is marked instead.
(() => {
  "use strict";
  document.addEventListener("click", async (event) => {
    const button = event.target.closest ? event.target.closest("[data-copy]") : null;
    const code = button && button.parentElement.querySelector("code, pre");
    if (!code) return;
    getSelection().selectAllChildren(code);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = button.dataset.copy;
    } catch { /* no secure connection: the marked text can be copied by hand */ }
  });
})();
