"use strict";
// Light or dark: as the reader's system has it, until the button says otherwise; that is remembered.
const theme = {
  button: document.getElementById("theme"),
  listeners: [],
  get dark() {
    return (
      (document.documentElement.dataset.theme ||
        (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark"
    );
  },
  set(name) {
    document.documentElement.dataset.theme = name;
    try {
      localStorage.setItem("llmchip-theme", name);
    } catch {
      /* a page without storage forgets */
    }
    this.changed();
  },
  toggle() {
    this.set(this.dark ? "light" : "dark");
  },
  changed() {
    this.button.textContent = this.dark ? "☀" : "☾";
    this.listeners.forEach(listener => listener());
  },
};
try {
  const stored = localStorage.getItem("llmchip-theme");
  if (["light", "dark"].includes(stored)) document.documentElement.dataset.theme = stored;
} catch {
  /* as above */
}
theme.button.onclick = () => theme.toggle();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme.changed());
theme.changed();
