// The theme, before anything is drawn: the system's, or the one that was chosen on this page. A classic script, so
// that a chosen theme does not flash.
"use strict";
(() => {
  const KEY = "dedup-theme";
  const THEMES = ["system", "light", "dark"];
  const root = document.documentElement;

  function stored() {
    try {
      return THEMES.find((theme) => theme === localStorage.getItem(KEY)) ?? "system";
    } catch {
      return "system"; // storage is switched off: the choice lasts as long as the page
    }
  }

  function show(theme) {
    root.dataset.theme = theme;
    const name = document.getElementById("theme-name");
    if (name) name.textContent = `Theme: ${theme}. Change it`;
  }

  show(stored());
  document.addEventListener("DOMContentLoaded", () => {
    show(root.dataset.theme);
    document.getElementById("theme").addEventListener("click", () => {
      const next = THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length];
      try {
        localStorage.setItem(KEY, next);
      } catch { /* as above */ }
      show(next);
    });
  });
})();
